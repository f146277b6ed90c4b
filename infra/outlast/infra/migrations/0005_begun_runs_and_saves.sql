-- Runs that have been begun and wait for their next attempt: a worker takes them beyond its free slots.
CREATE INDEX runs_begun ON runs (queue, priority, turn, created_at) WHERE status = 'queued' AND ready AND attempt > 0;

-- What an attempt keeps for the next one beside the log: what a function agent has saved, and what a step has said that no
-- event tells of yet. Fenced like a checkpoint.
CREATE TABLE run_saves (
    run_id   uuid    PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    kept_seq integer NOT NULL,               -- what had been said up to this number is not said again
    saved    text    NOT NULL                -- JSON
);
