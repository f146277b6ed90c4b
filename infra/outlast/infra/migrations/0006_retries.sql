-- A run that waits for its retry: queued, begun, and not ready before run_at. It stays the active run of its thread.

-- One active run per thread: at most one is in progress, ready to be claimed, or begun and waiting for its next attempt.
DROP INDEX one_active_run_per_thread;
CREATE UNIQUE INDEX one_active_run_per_thread ON runs (thread_id) WHERE status = 'in_progress' OR (status = 'queued' AND (ready OR attempt > 0));
-- The runs that wait for their retry, in the order in which they are to be made ready.
CREATE INDEX runs_delayed ON runs (run_at) WHERE status = 'queued' AND NOT ready AND attempt > 0;
