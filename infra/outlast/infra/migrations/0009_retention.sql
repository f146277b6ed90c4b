-- Runs are removed when they have been over for long enough, and with a thread's last run the thread.

-- Finished runs in the order in which they ended.
CREATE INDEX runs_finished ON runs (finished_at, id) WHERE finished_at IS NOT NULL;
-- The same of those that were not to be stored: they go much sooner.
CREATE INDEX runs_unstored ON runs (finished_at, id) WHERE NOT store AND finished_at IS NOT NULL;
-- Whether a thread has other runs. The foreign key asks the same when a thread is removed, and would read all runs.
CREATE INDEX runs_of_thread ON runs (thread_id);
