-- API keys, the workers that are alive, and what limits on running runs are counted with.

-- Who may call. Of a key only a digest is kept: it is shown once, when it is made.
CREATE TABLE api_keys (
    id           uuid        PRIMARY KEY,
    digest       bytea       NOT NULL UNIQUE,
    hint         text        NOT NULL,                    -- its first characters, to recognise it by
    principal    text        NOT NULL,
    name         text        NOT NULL,
    scopes       text[]      NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,                             -- to the minute or so
    CONSTRAINT digest_is_sha256 CHECK (length(digest) = 32),
    CONSTRAINT scopes_are_known CHECK (scopes <@ ARRAY['admin', 'act-for-others']),
    CONSTRAINT principal_is_short CHECK (length(principal) BETWEEN 1 AND 256)
);

-- The workers that are alive, as they report themselves once a beat. Nothing depends on it: it is there to be looked at.
CREATE TABLE workers (
    owner      text        PRIMARY KEY,                   -- as in run_leases
    host       text        NOT NULL,
    pid        integer     NOT NULL,
    version    text        NOT NULL,
    queues     text[]      NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    children   integer     NOT NULL,                      -- processes that can run agents now
    slots      integer     NOT NULL,                      -- runs it takes at once
    running    integer     NOT NULL,
    draining   boolean     NOT NULL,
    counters   text        NOT NULL DEFAULT '{}'          -- JSON: totals since it started
) WITH (fillfactor = 50);

-- What each principal has ready for each agent, in order: for claims under a limit on running runs.
CREATE INDEX runs_ready_by_principal ON runs (queue, principal, agent, priority, turn, created_at) WHERE status = 'queued' AND ready;
-- What is running, to be counted by principal and by agent.
CREATE INDEX runs_running ON runs (principal, agent) WHERE status = 'in_progress';
