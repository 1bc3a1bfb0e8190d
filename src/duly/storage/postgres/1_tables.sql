-- Format 1 of a store in PostgreSQL: its tables. `duly.` stands for the schema of the store.
--
-- The present state is in the tables; `log` has what the last commits have written, for the other nodes. Every write
-- goes through `commit_1` (1_functions.sql). Each state of a job has its own columns, which CHECK constraints enforce.

CREATE TABLE duly.store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format integer NOT NULL,            -- the formats that were applied
    needs integer NOT NULL DEFAULT 1,   -- the format that a node must know to keep running
    secret bytea NOT NULL,
    reshaped bigint NOT NULL DEFAULT 0  -- the last version that changed tables or indexes
);

-- A process, from its start until it leaves or is lost. Its fencing epoch is never used again.
CREATE TABLE duly.nodes (
    epoch bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number integer NOT NULL,            -- is part of the ids that it makes; no two live nodes have the same
    instance text NOT NULL,             -- for people: host, process, a random number
    state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'left', 'lost')),
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    steady timestamptz NOT NULL DEFAULT clock_timestamp(),  -- since when its heartbeats have had no gap
    -- When it was last ready to run due jobs: its event loop was not blocked.
    ready timestamptz NOT NULL DEFAULT '-infinity',
    lost_after interval NOT NULL,       -- not seen for so long, it is lost, and the actions that it runs have failed
    batch bigint NOT NULL DEFAULT 0,    -- the number of its last batch, and the version which that made:
    version bigint NOT NULL DEFAULT 0   -- they resolve a commit whose answer was lost
) WITH (fillfactor = 50);

-- The commit log: what other nodes must know of each commit.
CREATE TABLE duly.log (
    version bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    last_id bigint NOT NULL,            -- the largest id that was allocated
    due double precision,               -- the earliest due time of the jobs that it scheduled or postponed
    reshaped boolean NOT NULL,
    tables integer[] NOT NULL,          -- the rows: `row_counts[n]` of `ids` are of table `tables[n]`
    row_counts integer[] NOT NULL,
    ids bigint[] NOT NULL,
    indexes integer[] NOT NULL,         -- their old and new keys, likewise
    key_counts integer[] NOT NULL,
    keys bytea[] NOT NULL
);
ALTER TABLE duly.log ALTER ids SET STORAGE EXTERNAL, ALTER keys SET STORAGE EXTERNAL;  -- compression costs more

CREATE TABLE duly.tables (number integer PRIMARY KEY, name text NOT NULL UNIQUE, declared text NOT NULL);
CREATE TABLE duly.indexes (
    number integer PRIMARY KEY,
    table_number integer NOT NULL REFERENCES duly.tables,
    name text NOT NULL,
    fields text NOT NULL,
    ready boolean NOT NULL,
    UNIQUE (table_number, name, ready)
);

-- What versions of the application have declared, by fingerprint. The largest number is the newest.
CREATE TABLE duly.deploys (mark text PRIMARY KEY, number bigint NOT NULL UNIQUE);

-- Jobs that have not completed. Completed ones are moved to `completed_jobs`, which keeps this table small.
-- Dead entries of `jobs_due` stay until they are vacuumed: a claim begins after those that the last claim has passed.
CREATE TABLE duly.jobs (
    id bigint PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    args text NOT NULL,
    scheduled_time double precision NOT NULL,
    due double precision,
    state text COLLATE "C" NOT NULL,
    lane text NOT NULL CHECK (lane IN ('mutation', 'action')),
    parent bigint,
    epoch bigint,
    attempts integer NOT NULL DEFAULT 0,
    retry_of bigint,
    cron bigint,
    CHECK (CASE state
        WHEN 'pending' THEN due IS NOT NULL AND epoch IS NULL
        WHEN 'inProgress' THEN due IS NULL AND epoch IS NOT NULL
        ELSE false END)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX jobs_due ON duly.jobs (lane, due, id) WHERE due IS NOT NULL;
CREATE INDEX jobs_by_state ON duly.jobs (state, scheduled_time, id);
CREATE INDEX jobs_by_name ON duly.jobs (name, scheduled_time, id);

CREATE TABLE duly.completed_jobs (
    id bigint PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    args text NOT NULL,
    scheduled_time double precision NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('success', 'failed', 'canceled')),
    lane text NOT NULL,
    parent bigint,
    error text CHECK ((error IS NULL) = (state <> 'failed')),
    completed_time double precision NOT NULL,
    retry_of bigint
);
CREATE INDEX completed_jobs_by_state ON duly.completed_jobs (state, scheduled_time, id);
CREATE INDEX completed_jobs_by_name ON duly.completed_jobs (name, scheduled_time, id);
CREATE INDEX completed_jobs_by_end ON duly.completed_jobs (completed_time);

-- The settings of the executors of all nodes, the crons, and the logs of crons.
CREATE TABLE duly.t2__executor (id bigint PRIMARY KEY, document text NOT NULL);
CREATE TABLE duly.t3__cron_jobs (id bigint PRIMARY KEY, document text NOT NULL);
CREATE TABLE duly.i4_by_name (key bytea PRIMARY KEY, id bigint NOT NULL);
CREATE TABLE duly.t4__cron_job_logs (id bigint PRIMARY KEY, document text NOT NULL);
CREATE TABLE duly.i5_by_name (key bytea PRIMARY KEY, id bigint NOT NULL);
