-- What the migrations make, in one piece, for reading. The sentences behind the constraints stand in the
-- migrations (infra/outlast/infra/migrations). Written by `make schema`; a test compares it with a migrated database.

CREATE FUNCTION fence(held_run uuid, held_attempt integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM FROM run_leases WHERE run_id = held_run AND attempt = held_attempt FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of this attempt is lost' USING ERRCODE = 'OL001';
    END IF;
END
$$;

CREATE TABLE api_keys (
    id uuid NOT NULL,
    digest bytea NOT NULL,
    hint text NOT NULL,
    principal text NOT NULL,
    name text NOT NULL,
    scopes text[] DEFAULT '{}'::text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT digest_is_sha256 CHECK ((length(digest) = 32)),
    CONSTRAINT principal_is_short CHECK (((length(principal) >= 1) AND (length(principal) <= 256))),
    CONSTRAINT scopes_are_known CHECK ((scopes <@ ARRAY['admin'::text, 'act-for-others'::text]))
);

CREATE TABLE run_events (
    run_id uuid NOT NULL,
    last_seq integer NOT NULL,
    first_seq integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    data text NOT NULL,
    CONSTRAINT numbers_ascend CHECK (((0 <= first_seq) AND (first_seq <= last_seq)))
)
WITH (autovacuum_vacuum_insert_scale_factor='0.05');
ALTER TABLE ONLY run_events ALTER COLUMN data SET STORAGE MAIN;

CREATE TABLE run_heads (
    run_id uuid NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    last_seq integer NOT NULL,
    closed boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='500');

CREATE TABLE run_leases (
    run_id uuid NOT NULL,
    attempt integer NOT NULL,
    owner text NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='500');

CREATE TABLE run_saves (
    run_id uuid NOT NULL,
    kept_seq integer NOT NULL,
    saved text NOT NULL
);

CREATE TABLE runs (
    id uuid NOT NULL,
    principal text NOT NULL,
    thread_id uuid NOT NULL,
    previous_run_id uuid,
    agent text NOT NULL,
    status text DEFAULT 'queued'::text NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    priority smallint DEFAULT 0 NOT NULL,
    turn bigint DEFAULT 0 NOT NULL,
    ready boolean NOT NULL,
    run_at timestamp with time zone DEFAULT now() NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    charged_attempts integer DEFAULT 0 NOT NULL,
    retries integer DEFAULT 0 NOT NULL,
    last_cause text,
    timeout_seconds integer NOT NULL,
    expires_at timestamp with time zone,
    deadline_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    background boolean NOT NULL,
    store boolean NOT NULL,
    tool_items text NOT NULL,
    idempotency_key text,
    request_digest bytea,
    request text NOT NULL,
    response text,
    checkpoint_id text,
    title text,
    connections smallint DEFAULT 1 NOT NULL,
    abandoned_at timestamp with time zone,
    forgiven_attempts integer DEFAULT 0 NOT NULL,
    reopened integer DEFAULT 0 NOT NULL,
    traceparent text,
    CONSTRAINT answered_when_terminal CHECK (((finished_at IS NULL) = (response IS NULL))),
    CONSTRAINT counters_are_sane CHECK (((retries >= 0) AND ((charged_attempts >= 0) AND (charged_attempts <= attempt)))),
    CONSTRAINT deadline_when_started CHECK (((started_at IS NULL) = (deadline_at IS NULL))),
    CONSTRAINT digest_with_key CHECK (((idempotency_key IS NULL) = (request_digest IS NULL))),
    CONSTRAINT finished_when_terminal CHECK (((status <> ALL (ARRAY['queued'::text, 'in_progress'::text])) = (finished_at IS NOT NULL))),
    CONSTRAINT forgiven_were_made CHECK (((forgiven_attempts >= 0) AND ((forgiven_attempts + charged_attempts) <= attempt))),
    CONSTRAINT in_progress_when_claimed CHECK (((status <> 'in_progress'::text) OR (attempt > 0))),
    CONSTRAINT started_when_claimed CHECK (((attempt = 0) = (started_at IS NULL))),
    CONSTRAINT status_is_known CHECK ((status = ANY (ARRAY['queued'::text, 'in_progress'::text, 'completed'::text, 'failed'::text, 'cancelled'::text, 'incomplete'::text]))),
    CONSTRAINT timeout_is_positive CHECK ((timeout_seconds > 0)),
    CONSTRAINT tool_items_is_known CHECK ((tool_items = ANY (ARRAY['mcp_call'::text, 'function_call'::text, 'hidden'::text]))),
    CONSTRAINT traceparent_is_of_version_00 CHECK (((traceparent ~~ '00-%'::text) AND (length(traceparent) = 55)))
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0.02');

CREATE TABLE schema_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE threads (
    id uuid NOT NULL,
    principal text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT thread_name_is_short CHECK (((length(name) >= 1) AND (length(name) <= 512)))
);

CREATE TABLE workers (
    owner text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    queues text[] NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    children integer NOT NULL,
    slots integer NOT NULL,
    running integer NOT NULL,
    draining boolean NOT NULL,
    counters text DEFAULT '{}'::text NOT NULL,
    drain_requested_at timestamp with time zone,
    samples text DEFAULT '{}'::text NOT NULL,
    resting_until timestamp with time zone,
    agents jsonb DEFAULT '{}'::jsonb NOT NULL
)
WITH (fillfactor='50');

ALTER TABLE ONLY api_keys
    ADD CONSTRAINT api_keys_digest_key UNIQUE (digest);

ALTER TABLE ONLY api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY run_events
    ADD CONSTRAINT run_events_pkey PRIMARY KEY (run_id, last_seq);

ALTER TABLE ONLY run_heads
    ADD CONSTRAINT run_heads_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY run_leases
    ADD CONSTRAINT run_leases_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY run_saves
    ADD CONSTRAINT run_saves_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY threads
    ADD CONSTRAINT thread_names UNIQUE (principal, name);

ALTER TABLE ONLY threads
    ADD CONSTRAINT threads_pkey PRIMARY KEY (id);

ALTER TABLE ONLY workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (owner);

CREATE UNIQUE INDEX one_active_run_per_thread ON runs USING btree (thread_id) WHERE ((status = 'in_progress'::text) OR ((status = 'queued'::text) AND (ready OR (attempt > 0))));

CREATE INDEX runs_abandoned ON runs USING btree (abandoned_at) WHERE ((abandoned_at IS NOT NULL) AND (status = ANY (ARRAY['queued'::text, 'in_progress'::text])));

CREATE INDEX runs_backlog ON runs USING btree (queue, principal, turn) WHERE (status = 'queued'::text);

CREATE INDEX runs_begun ON runs USING btree (queue, priority, turn, created_at) WHERE ((status = 'queued'::text) AND ready AND (attempt > 0));

CREATE INDEX runs_cancelled ON runs USING btree (cancel_requested_at) WHERE ((cancel_requested_at IS NOT NULL) AND (status = ANY (ARRAY['queued'::text, 'in_progress'::text])));

CREATE INDEX runs_claim ON runs USING btree (queue, priority, turn, created_at) WHERE ((status = 'queued'::text) AND ready);

CREATE INDEX runs_deadline ON runs USING btree (deadline_at) WHERE ((deadline_at IS NOT NULL) AND (status = ANY (ARRAY['queued'::text, 'in_progress'::text])));

CREATE INDEX runs_delayed ON runs USING btree (run_at) WHERE ((status = 'queued'::text) AND (NOT ready) AND (attempt > 0));

CREATE INDEX runs_expiring ON runs USING btree (expires_at) WHERE ((expires_at IS NOT NULL) AND (status = 'queued'::text) AND (attempt = 0));

CREATE INDEX runs_finished ON runs USING btree (finished_at, id) WHERE (finished_at IS NOT NULL);

CREATE UNIQUE INDEX runs_idempotency ON runs USING btree (principal, idempotency_key) WHERE (idempotency_key IS NOT NULL);

CREATE INDEX runs_of_principal ON runs USING btree (principal, id DESC);

CREATE INDEX runs_of_thread ON runs USING btree (thread_id);

CREATE INDEX runs_ready_by_principal ON runs USING btree (queue, principal, agent, priority, turn, created_at) WHERE ((status = 'queued'::text) AND ready);

CREATE INDEX runs_running ON runs USING btree (principal, agent) WHERE (status = 'in_progress'::text);

CREATE INDEX runs_unstored ON runs USING btree (finished_at, id) WHERE ((NOT store) AND (finished_at IS NOT NULL));

CREATE INDEX runs_unsuccessful ON runs USING btree (id) WHERE (status = ANY (ARRAY['failed'::text, 'cancelled'::text, 'incomplete'::text]));

CREATE INDEX runs_waiting ON runs USING btree (thread_id, created_at) WHERE ((status = 'queued'::text) AND (NOT ready));

ALTER TABLE ONLY run_events
    ADD CONSTRAINT run_events_run_id_fkey FOREIGN KEY (run_id) REFERENCES run_heads(run_id) ON DELETE CASCADE;

ALTER TABLE ONLY run_heads
    ADD CONSTRAINT run_heads_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE;

ALTER TABLE ONLY run_leases
    ADD CONSTRAINT run_leases_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE;

ALTER TABLE ONLY run_saves
    ADD CONSTRAINT run_saves_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE;

ALTER TABLE ONLY runs
    ADD CONSTRAINT runs_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES threads(id);
