-- Threads, runs and the event log. Who writes what: `runs` claim, finish and cancel; `run_leases` claim, renew and
-- release; `run_heads` the append alone; `run_events` the append, and compaction once the run is closed.
-- Lock order everywhere: threads, runs, run_leases, run_heads, the rest; ascending id within a table.

CREATE TABLE threads (
    id         uuid        PRIMARY KEY,
    principal  text        NOT NULL,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- A principal's name for a conversation means one thread; two principals may use the same name.
    CONSTRAINT thread_names UNIQUE (principal, name),
    CONSTRAINT thread_name_is_short CHECK (length(name) BETWEEN 1 AND 512)
);

CREATE TABLE runs (
    id                  uuid        PRIMARY KEY,
    principal           text        NOT NULL,
    thread_id           uuid        NOT NULL REFERENCES threads,
    previous_run_id     uuid,
    agent               text        NOT NULL,
    status              text        NOT NULL DEFAULT 'queued',
    -- Where it waits. `ready` is true when it may be claimed now: its time has come and no earlier run of its thread is active.
    queue               text        NOT NULL DEFAULT 'default',
    priority            smallint    NOT NULL DEFAULT 0,
    turn                bigint      NOT NULL DEFAULT 0,
    ready               boolean     NOT NULL,
    run_at              timestamptz NOT NULL DEFAULT now(),
    -- The number of the latest attempt is the fence; the others count towards the limits on attempts and retries.
    attempt             integer     NOT NULL DEFAULT 0,
    charged_attempts    integer     NOT NULL DEFAULT 0,
    retries             integer     NOT NULL DEFAULT 0,
    last_cause          text,
    timeout_seconds     integer     NOT NULL,
    expires_at          timestamptz,
    deadline_at         timestamptz,
    cancel_requested_at timestamptz,
    created_at          timestamptz NOT NULL,
    started_at          timestamptz,
    finished_at         timestamptz,
    background          boolean     NOT NULL,
    store               boolean     NOT NULL,
    tool_items          text        NOT NULL,
    idempotency_key     text,
    request_digest      bytea,
    -- JSON as text: Postgres never looks inside, and what was given comes back byte for byte.
    request             text        NOT NULL,
    response            text,
    checkpoint_id       text,

    CONSTRAINT status_is_known CHECK (status IN ('queued', 'in_progress', 'completed', 'failed', 'cancelled', 'incomplete')),
    -- A run has finished exactly when its status is terminal, and then it has its answer.
    CONSTRAINT finished_when_terminal CHECK ((status NOT IN ('queued', 'in_progress')) = (finished_at IS NOT NULL)),
    CONSTRAINT answered_when_terminal CHECK ((finished_at IS NULL) = (response IS NULL)),
    -- A run that was never claimed has neither started nor a deadline.
    CONSTRAINT started_when_claimed CHECK ((attempt = 0) = (started_at IS NULL)),
    CONSTRAINT deadline_when_started CHECK ((started_at IS NULL) = (deadline_at IS NULL)),
    CONSTRAINT in_progress_when_claimed CHECK (status <> 'in_progress' OR attempt > 0),
    -- No attempt is charged, and no retry counted, that was not made.
    CONSTRAINT counters_are_sane CHECK (retries >= 0 AND charged_attempts BETWEEN 0 AND attempt),
    CONSTRAINT timeout_is_positive CHECK (timeout_seconds > 0),
    CONSTRAINT tool_items_is_known CHECK (tool_items IN ('mcp_call', 'function_call', 'hidden')),
    -- A key is kept with a digest of the request it came with: the same key with another request is an error.
    CONSTRAINT digest_with_key CHECK ((idempotency_key IS NULL) = (request_digest IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

-- One active run per thread: at most one is in progress or ready to be claimed.
CREATE UNIQUE INDEX one_active_run_per_thread ON runs (thread_id) WHERE status = 'in_progress' OR (status = 'queued' AND ready);
-- One run per principal and idempotency key.
CREATE UNIQUE INDEX runs_idempotency ON runs (principal, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- The order in which runs are claimed. Only rows that may be taken are in it.
CREATE INDEX runs_claim ON runs (queue, priority, turn, created_at) WHERE status = 'queued' AND ready;
-- A principal's highest turn in a queue, for the next turn to give.
CREATE INDEX runs_backlog ON runs (queue, principal, turn) WHERE status = 'queued';
-- The runs of a thread that wait for an earlier one.
CREATE INDEX runs_waiting ON runs (thread_id, created_at) WHERE status = 'queued' AND NOT ready;
-- Lists of runs, newest first (ids are ordered by time).
CREATE INDEX runs_of_principal ON runs (principal, id DESC);

-- The right to write a run, for a time. A row only while the run is in progress; no index on the time, so that renewing stays cheap.
CREATE TABLE run_leases (
    run_id      uuid        PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    attempt     integer     NOT NULL,
    owner       text        NOT NULL,
    lease_until timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- One narrow row per run, the only one that an append updates: every update is HOT.
CREATE TABLE run_heads (
    run_id   uuid    PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    attempt  integer NOT NULL DEFAULT 0,      -- the fence: an append must name it
    last_seq integer NOT NULL,                -- the highest committed sequence number
    closed   boolean NOT NULL DEFAULT false   -- the terminal event is written: no append is accepted any more
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- One row holds the 1..n consecutive events of one flush: compact JSON, joined by newlines. The key is the last number, so
-- that "everything after N" is one index range; the first row of it may begin before N.
CREATE TABLE run_events (
    run_id     uuid        NOT NULL REFERENCES run_heads ON DELETE CASCADE,
    last_seq   integer     NOT NULL,
    first_seq  integer     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    data       text        NOT NULL,
    PRIMARY KEY (run_id, last_seq),
    -- A row's numbers run from first_seq to last_seq without a gap.
    CONSTRAINT numbers_ascend CHECK (0 <= first_seq AND first_seq <= last_seq)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE run_events ALTER COLUMN data SET STORAGE MAIN;

-- lz4 where the server has it; the default (pglz) packs as well and costs about 1 microsecond an event more.
DO $$
BEGIN
    ALTER TABLE run_events ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;
