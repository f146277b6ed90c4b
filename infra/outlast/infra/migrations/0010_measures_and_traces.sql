-- What workers measure as distributions, and the trace that a run is part of.

-- JSON: distributions by name, as totals since the worker started.
ALTER TABLE workers ADD COLUMN samples text NOT NULL DEFAULT '{}';

-- W3C Trace Context of the run's root span, for its attempts to continue. NULL: the run is not traced.
ALTER TABLE runs ADD COLUMN traceparent text;
-- It is kept in version 00 of its form, whatever came with the request.
ALTER TABLE runs ADD CONSTRAINT traceparent_is_of_version_00 CHECK (traceparent LIKE '00-%' AND length(traceparent) = 55);
