-- What operators do: have an ended run retried, drain a worker, find what went wrong.

-- A retry by an operator withdraws the end of a run. Limits on attempts count from there: those before are forgiven.
ALTER TABLE runs ADD COLUMN forgiven_attempts integer NOT NULL DEFAULT 0;
-- How often that was done. Who has read a log up to an end that was withdrawn can tell by it.
ALTER TABLE runs ADD COLUMN reopened integer NOT NULL DEFAULT 0;
-- No attempt is forgiven that was not made, and none that is charged.
ALTER TABLE runs ADD CONSTRAINT forgiven_were_made CHECK (forgiven_attempts >= 0 AND forgiven_attempts + charged_attempts <= attempt);

-- What has not gone well, newest first. Runs that complete are never in it.
CREATE INDEX runs_unsuccessful ON runs (id) WHERE status IN ('failed', 'cancelled', 'incomplete');

-- Since when an attempt has been with its worker.
ALTER TABLE run_leases ADD COLUMN claimed_at timestamptz NOT NULL DEFAULT now();
-- The worker finds it with its next beat, and ends as by SIGTERM.
ALTER TABLE workers ADD COLUMN drain_requested_at timestamptz;
