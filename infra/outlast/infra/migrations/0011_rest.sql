-- Workers that have nothing to do leave the database alone.

-- Until when a resting worker says nothing. NULL: it reports once a beat.
ALTER TABLE workers ADD COLUMN resting_until timestamptz;
