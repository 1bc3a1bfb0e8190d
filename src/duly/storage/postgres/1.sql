-- Format 1 of a store in PostgreSQL. `duly.` stands for the schema the store lives in, `$lock` for its advisory lock.
--
-- Every write goes through `commit_1`, one statement that takes the lock, compares what the batch has read with what
-- others have written since, and writes. It must run at READ COMMITTED: there each statement of a volatile function
-- sees what was committed before it began, so that those behind the lock see all earlier commits.
--
-- Plans are kept (force_generic_plan): each statement has but one good plan, whatever its values, and where the table
-- is large PostgreSQL would plan anew each time, which takes longer than all the rest of a claim.

CREATE TABLE duly.store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format integer NOT NULL,            -- which files like this one were applied
    needs integer NOT NULL DEFAULT 1,   -- the format that a node must know in order to go on
    secret bytea NOT NULL,
    reshaped bigint NOT NULL DEFAULT 0  -- the version that changed tables or indexes last
);

-- A process, from its start until it leaves or is lost. Its epoch is never used again.
CREATE TABLE duly.nodes (
    epoch bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number integer NOT NULL,            -- stands in the ids it makes; no two live nodes have the same
    instance text NOT NULL,             -- for humans: host, process, chance
    state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'left', 'lost')),
    seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    steady timestamptz NOT NULL DEFAULT clock_timestamp(),  -- since when it was seen without a gap
    -- When it was last seen ready to run what is due: that is, not busy with something that blocks it.
    ready timestamptz NOT NULL DEFAULT '-infinity',
    lost_after interval NOT NULL,       -- not seen for so long, it is lost, and so are the actions it runs
    batch bigint NOT NULL DEFAULT 0,    -- the last one it has committed, and the version that made:
    version bigint NOT NULL DEFAULT 0   -- what settles a commit whose answer was lost
) WITH (fillfactor = 50);

-- What each commit has written: the present is in the tables, this is what others must know of the change.
CREATE TABLE duly.log (
    version bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    last_id bigint NOT NULL,            -- the largest id that anybody has given away
    due double precision,               -- when the first becomes due of the functions it scheduled or postponed
    reshaped boolean NOT NULL,
    tables integer[] NOT NULL,          -- the rows: `row_counts[n]` of `ids` are of table `tables[n]`
    row_counts integer[] NOT NULL,
    ids bigint[] NOT NULL,
    indexes integer[] NOT NULL,         -- their old and new keys, likewise
    key_counts integer[] NOT NULL,
    keys bytea[] NOT NULL
);
ALTER TABLE duly.log ALTER ids SET STORAGE EXTERNAL, ALTER keys SET STORAGE EXTERNAL;  -- compressing costs more

CREATE TABLE duly.tables (number integer PRIMARY KEY, name text NOT NULL UNIQUE, declared text NOT NULL);
CREATE TABLE duly.indexes (
    number integer PRIMARY KEY,
    table_number integer NOT NULL REFERENCES duly.tables,
    name text NOT NULL,
    fields text NOT NULL,
    ready boolean NOT NULL,
    UNIQUE (table_number, name, ready)
);

-- What applications have declared, by its fingerprint; the largest number is the newest.
CREATE TABLE duly.deploys (mark text PRIMARY KEY, number bigint NOT NULL UNIQUE);

-- Scheduled functions that have not completed; what has is moved to `completed_jobs`, which keeps this table small.
-- Dead entries of `jobs_due` stay until they are vacuumed: a claim begins behind those that the one before it has passed.
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

-- What the executors of all nodes obey, and crons.
CREATE TABLE duly.t2__executor (id bigint PRIMARY KEY, document text NOT NULL);
CREATE TABLE duly.t3__cron_jobs (id bigint PRIMARY KEY, document text NOT NULL);
CREATE TABLE duly.i4_by_name (key bytea PRIMARY KEY, id bigint NOT NULL);
CREATE TABLE duly.t4__cron_job_logs (id bigint PRIMARY KEY, document text NOT NULL);
CREATE TABLE duly.i5_by_name (key bytea PRIMARY KEY, id bigint NOT NULL);

-- Whether what was read has been written since a version, or that version is none of this store: a server has taken over
-- that lacks the last commits. Ranges are those of an index, or of a table's ids: then
-- their number is the negative one of the table.
CREATE FUNCTION duly.conflicts_1(
    since bigint, read_ids bigint[], relations integer[], lowers bytea[], uppers bytea[], reads_jobs boolean
) RETURNS boolean LANGUAGE plpgsql
SET enable_nestloop = off SET enable_seqscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    entry duly.log;
    first integer;
    last integer;
    known bigint := since;
BEGIN
    FOR entry IN SELECT * FROM duly.log WHERE version > since ORDER BY version LOOP
        IF entry.reshaped OR entry.version > known + 1 OR (reads_jobs AND 1 = ANY (entry.tables)) THEN
            RETURN true;
        END IF;
        known := entry.version;
        IF EXISTS (SELECT FROM unnest(entry.ids) AS written (id) JOIN unnest(read_ids) AS read (id) USING (id)) THEN
            RETURN true;
        END IF;
        CONTINUE WHEN relations IS NULL;
        IF cardinality(relations) * (cardinality(entry.keys) + cardinality(entry.ids)) > 1000000 THEN
            RETURN true;  -- to compare them would take longer than to run the batch again
        END IF;
        last := 0;
        FOR n IN 1 .. cardinality(entry.indexes) LOOP
            first := last + 1;
            last := last + entry.key_counts[n];
            CONTINUE WHEN entry.indexes[n] <> ALL (relations);
            IF EXISTS (
                SELECT FROM unnest(relations, lowers, uppers) AS read (relation, lower, upper),
                    unnest(entry.keys[first:last]) AS written (key)
                WHERE relation = entry.indexes[n] AND key >= lower AND key < upper
            ) THEN
                RETURN true;
            END IF;
        END LOOP;
        last := 0;
        FOR n IN 1 .. cardinality(entry.tables) LOOP
            first := last + 1;
            last := last + entry.row_counts[n];
            CONTINUE WHEN -entry.tables[n] <> ALL (relations);
            IF EXISTS (
                SELECT FROM unnest(relations, lowers, uppers) AS read (relation, lower, upper),
                    unnest(entry.ids[first:last]) AS written (id)
                WHERE relation = -entry.tables[n] AND int8send(id) >= lower AND int8send(id) < upper
            ) THEN
                RETURN true;
            END IF;
        END LOOP;
    END LOOP;
    RETURN known <> (SELECT version FROM duly.log ORDER BY version DESC LIMIT 1);
END $$;

-- The newest version, if nothing that was read has been written since a version; else null.
CREATE FUNCTION duly.check_1(
    since bigint, read_ids bigint[], relations integer[], lowers bytea[], uppers bytea[], reads_jobs boolean
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off SET enable_sort = off AS $$
DECLARE
    newest bigint;
BEGIN
    SELECT version INTO newest FROM duly.log ORDER BY version DESC LIMIT 1;
    IF newest <> since AND duly.conflicts_1(since, read_ids, relations, lowers, uppers, reads_jobs) THEN
        RETURN NULL;
    END IF;
    RETURN newest;
END $$;

-- Commit a batch. Returns its version; -1: what it has read has changed; -2: the node is no longer live. Raises
-- 40001 where a scheduled function is no longer in the state in which the batch found it.
CREATE FUNCTION duly.commit_1(
    this_epoch bigint, this_batch bigint,
    since bigint,  -- null: the caller has held the lock since before it read
    -- Of all arrays: null is an empty one, which costs less to send.
    read_ids bigint[], relations integer[], lowers bytea[], uppers bytea[], reads_jobs boolean,
    -- Documents, in groups: the relation, what is done to it (i, u, d), how many.
    tables integer[], row_relations text[], row_acts text[], row_counts integer[],
    ids bigint[], documents text[],
    -- Keys, in groups: the relation, i or d, how many.
    indexes integer[], key_relations text[], key_acts text[], key_counts integer[],
    keys bytea[], key_ids bigint[],
    -- New scheduled functions, a column each.
    job_ids bigint[], names text[], args text[], scheduled_times double precision[], dues double precision[],
    states text[], lanes text[], parents bigint[], completed_times double precision[], retries bigint[],
    crons bigint[],
    -- Those that move, in groups: from which state to which, how many.
    old_states text[], old_epochs bigint[], new_states text[], new_lanes text[], new_dues double precision[],
    new_epochs bigint[], errors text[], ends double precision[], new_attempts integer[], move_counts integer[],
    moved_ids bigint[],
    expired_ids bigint[],  -- those that completed long ago, to be deleted if they still are there
    this_last_id bigint, first_due double precision, this_reshaped boolean
) RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    newest bigint;
    newest_id bigint;
    first integer;
    last integer := 0;
    affected integer;
    jobs integer := coalesce(cardinality(job_ids), 0) + coalesce(cardinality(moved_ids), 0)
        + coalesce(cardinality(expired_ids), 0);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'got a session of another isolation level, expected READ COMMITTED: see default_transaction_isolation';
    END IF;
    PERFORM pg_advisory_xact_lock($lock);
    SELECT log.version, log.last_id INTO newest, newest_id FROM duly.log ORDER BY log.version DESC LIMIT 1;
    IF newest <> since AND duly.conflicts_1(since, read_ids, relations, lowers, uppers, reads_jobs) THEN
        RETURN -1;
    END IF;
    newest := newest + 1;
    UPDATE duly.nodes SET batch = this_batch, version = newest, seen = clock_timestamp()
    WHERE epoch = this_epoch AND batch = this_batch - 1 AND state = 'live';
    IF NOT FOUND THEN
        RETURN -2;
    END IF;

    FOR n IN 1 .. coalesce(cardinality(row_relations), 0) LOOP
        first := last + 1;
        last := last + row_counts[n];
        -- To plan a join with one row takes longer than to write it.
        EXECUTE CASE row_acts[n] || least(row_counts[n], 2)
            WHEN 'i1' THEN format('INSERT INTO duly.%I (id, document) VALUES (($1)[1], ($2)[1])', row_relations[n])
            WHEN 'i2' THEN format('INSERT INTO duly.%I (id, document) SELECT * FROM unnest($1, $2)', row_relations[n])
            WHEN 'u1' THEN format('UPDATE duly.%I SET document = ($2)[1] WHERE id = ($1)[1]', row_relations[n])
            WHEN 'u2' THEN format('UPDATE duly.%I AS old SET document = new.document'
                ' FROM unnest($1, $2) AS new (id, document) WHERE old.id = new.id', row_relations[n])
            ELSE format('DELETE FROM duly.%I WHERE id = ANY ($1)', row_relations[n])
        END USING ids[first:last], documents[first:last];
    END LOOP;
    last := 0;
    FOR n IN 1 .. coalesce(cardinality(key_relations), 0) LOOP
        first := last + 1;
        last := last + key_counts[n];
        EXECUTE CASE key_acts[n]
            WHEN 'i' THEN format('INSERT INTO duly.%I (key, id) SELECT * FROM unnest($1, $2)', key_relations[n])
            ELSE format('DELETE FROM duly.%I WHERE key = ANY ($1)', key_relations[n])
        END USING keys[first:last], key_ids[first:last];
    END LOOP;

    IF job_ids IS NOT NULL THEN
        INSERT INTO duly.jobs (id, name, args, scheduled_time, due, state, lane, parent, retry_of, cron)
        SELECT id, name, arg, scheduled_time, due, state, lane, parent, retry_of, cron
        FROM unnest(
            job_ids, names, args, scheduled_times, dues, states, lanes, parents, completed_times, retries, crons
        ) AS new (id, name, arg, scheduled_time, due, state, lane, parent, completed_time, retry_of, cron)
        WHERE completed_time IS NULL;
        GET DIAGNOSTICS affected = ROW_COUNT;
        IF affected < cardinality(job_ids) THEN
            INSERT INTO duly.completed_jobs (id, name, args, scheduled_time, state, lane, parent, completed_time)
            SELECT id, name, arg, scheduled_time, state, lane, parent, completed_time
            FROM unnest(job_ids, names, args, scheduled_times, states, lanes, parents, completed_times)
                AS new (id, name, arg, scheduled_time, state, lane, parent, completed_time)
            WHERE completed_time IS NOT NULL;
        END IF;
    END IF;
    last := 0;
    FOR n IN 1 .. coalesce(cardinality(move_counts), 0) LOOP
        first := last + 1;
        last := last + move_counts[n];
        -- `state || ''` is nothing that an index knows: each row is to be found by its id.
        IF new_states[n] = '' THEN
            DELETE FROM duly.jobs
            WHERE id = ANY (moved_ids[first:last]) AND state || '' = old_states[n]
                AND epoch IS NOT DISTINCT FROM old_epochs[n];
        ELSIF ends[n] IS NULL THEN
            UPDATE duly.jobs
            SET state = new_states[n], lane = new_lanes[n], due = new_dues[n], epoch = new_epochs[n],
                attempts = new_attempts[n]
            WHERE id = ANY (moved_ids[first:last]) AND state || '' = old_states[n]
                AND epoch IS NOT DISTINCT FROM old_epochs[n];
        ELSE
            WITH ended AS (
                DELETE FROM duly.jobs
                WHERE id = ANY (moved_ids[first:last]) AND state || '' = old_states[n]
                    AND epoch IS NOT DISTINCT FROM old_epochs[n]
                RETURNING *
            )
            INSERT INTO duly.completed_jobs
            SELECT id, name, ended.args, scheduled_time, new_states[n], lane, parent, errors[n], ends[n], retry_of FROM ended;
        END IF;
        GET DIAGNOSTICS affected = ROW_COUNT;
        IF affected <> move_counts[n] THEN
            RAISE serialization_failure USING MESSAGE = 'a scheduled function is no longer as the batch found it';
        END IF;
    END LOOP;

    IF expired_ids IS NOT NULL THEN
        DELETE FROM duly.completed_jobs WHERE id = ANY (expired_ids);
    END IF;

    INSERT INTO duly.log VALUES (
        newest, this_epoch, greatest(this_last_id, newest_id), first_due, this_reshaped,
        CASE WHEN jobs > 0 THEN tables || 1 ELSE coalesce(tables, '{}') END,
        CASE WHEN jobs > 0 THEN row_counts || jobs ELSE coalesce(row_counts, '{}') END,
        coalesce(ids || job_ids || moved_ids || expired_ids, '{}'),
        coalesce(indexes, '{}'), coalesce(key_counts, '{}'), coalesce(keys, '{}')
    );
    IF this_reshaped THEN
        UPDATE duly.store SET reshaped = newest;
    END IF;
    IF newest % 64 = 0 THEN
        DELETE FROM duly.log WHERE version < newest - $kept;
    END IF;
    IF EXISTS (SELECT FROM duly.nodes WHERE state = 'live' AND epoch <> this_epoch) THEN
        PERFORM pg_notify('$channel', format('%s %s', this_epoch, newest));
    END IF;
    RETURN newest;
END $$;

-- What became of a batch whose answer was lost: its version if it is committed, else null, and then it never will be.
CREATE FUNCTION duly.settle_1(this_epoch bigint, this_batch bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    node duly.nodes;
BEGIN
    PERFORM pg_advisory_xact_lock($lock);
    SELECT * INTO node FROM duly.nodes WHERE epoch = this_epoch FOR UPDATE;
    IF node.batch >= this_batch THEN
        RETURN nullif(node.version, 0);
    END IF;
    -- It may be asked again, if this answer is lost, too: no commit has made version 0.
    UPDATE duly.nodes SET batch = this_batch, version = 0 WHERE epoch = this_epoch;
    RETURN NULL;
END $$;

-- End the session of a node that holds the lock and has fallen silent amid a statement, whose rest is on the way. Between
-- two statements PostgreSQL does so by itself (idle_in_transaction_session_timeout); within one it waits for ever.
CREATE FUNCTION duly.evict_1() RETURNS void LANGUAGE sql AS $$
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = $lock
        AND datname = current_database() AND usename = current_user
        AND state = 'active' AND wait_event = 'ClientRead' AND state_change < clock_timestamp() - interval '1 s'
$$;

-- Make a process a node. `wanted` is the number it would like to keep.
CREATE FUNCTION duly.join_1(this_instance text, this_lost_after interval, wanted integer)
RETURNS TABLE (epoch bigint, number integer) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM duly.evict_1();
    PERFORM pg_advisory_xact_lock($lock);
    DELETE FROM duly.nodes WHERE nodes.state <> 'live' AND nodes.seen < clock_timestamp() - interval '1 day';
    RETURN QUERY INSERT INTO duly.nodes (instance, lost_after, number)
        SELECT this_instance, this_lost_after, candidate FROM generate_series(0, 1023) AS free (candidate)
        WHERE candidate NOT IN (SELECT nodes.number FROM duly.nodes WHERE nodes.state = 'live')
        ORDER BY candidate <> wanted, candidate LIMIT 1
        RETURNING nodes.epoch, nodes.number;
END $$;

-- Say that a node lives, and see who else does. Those that were not seen for too long are lost from here on: what
-- they still try to commit is refused. A row that is locked belongs to one that is committing.
CREATE FUNCTION duly.beat_1(
    this_epoch bigint, is_ready boolean, fresh interval,
    OUT is_live boolean, OUT ready_epochs bigint[], OUT live_epochs bigint[], OUT last_epoch bigint,
    OUT newest bigint, OUT now_ms double precision
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM duly.evict_1();
    UPDATE duly.nodes
    SET seen = clock_timestamp(),
        steady = CASE WHEN seen < clock_timestamp() - interval '2 s' THEN clock_timestamp() ELSE steady END,
        ready = CASE WHEN is_ready THEN clock_timestamp() ELSE nodes.ready END
    WHERE epoch = this_epoch AND state = 'live';
    is_live := FOUND;
    -- Who was away itself a moment ago, as all are while the server restarts, is no judge of others.
    UPDATE duly.nodes SET state = 'lost' WHERE epoch IN (
        SELECT epoch FROM duly.nodes WHERE state = 'live' AND seen < clock_timestamp() - lost_after
        FOR UPDATE SKIP LOCKED
    ) AND EXISTS (
        SELECT FROM duly.nodes WHERE epoch = this_epoch AND steady < clock_timestamp() - least(lost_after, interval '5 s')
    );
    SELECT array_agg(epoch ORDER BY epoch) FILTER (WHERE state = 'live' AND ready > clock_timestamp() - fresh),
        array_agg(epoch) FILTER (WHERE state = 'live'), max(epoch)
    INTO ready_epochs, live_epochs, last_epoch FROM duly.nodes;
    SELECT version INTO newest FROM duly.log ORDER BY version DESC LIMIT 1;
    now_ms := extract(epoch FROM clock_timestamp()) * 1000;
END $$;

-- The pending functions that are due, of one part of all ids, and behind them a row for each lane: its id is the version of
-- the store that this has seen, its `due` when the next one is due. As of `since_version` nothing of the part was pending
-- before `firsts`, nor between the time of that claim and `nexts`; the log tells what has come there since.
CREATE FUNCTION duly.claim_1(
    now_ms double precision, mutations integer, actions integer, part integer, parts integer,
    firsts double precision[], nexts double precision[], since_version bigint
) RETURNS TABLE (
    id bigint, name text, args text, scheduled_time double precision, due double precision, state text, lane text,
    parent bigint, attempts integer, retry_of bigint, cron bigint
) LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    lanes text[] := ARRAY['mutation', 'action'];
    newest bigint;
    since_due double precision;  -- the first of what has come since
    first_due double precision;
    next_due double precision;
    coming double precision[] := '{}';
BEGIN
    SELECT coalesce(max(log.version), 0), CASE WHEN min(log.version) = since_version  -- else some of the log is gone
            THEN coalesce(min(log.due) FILTER (WHERE log.version > since_version), 'infinity') ELSE '-infinity' END
        INTO newest, since_due FROM duly.log WHERE log.version >= since_version;
    FOR n IN 1 .. 2 LOOP
        first_due := least(firsts[n], since_due);
        next_due := least(nexts[n], since_due);
        RETURN QUERY SELECT job.id, job.name, job.args, job.scheduled_time, job.due, job.state, job.lane, job.parent,
                job.attempts, job.retry_of, job.cron
            FROM duly.jobs AS job
            WHERE job.lane = lanes[n] AND job.due IS NOT NULL AND job.due >= first_due AND job.due <= now_ms
                AND ((((job.id >> 10) # (job.id >> 17) # (job.id >> 24)) & 1023) + floor(job.due / 1000)::bigint) % parts = part
            ORDER BY job.due, job.id LIMIT CASE n WHEN 1 THEN mutations ELSE actions END;
        SELECT job.due INTO next_due FROM duly.jobs AS job
            WHERE job.lane = lanes[n] AND job.due IS NOT NULL AND job.due > now_ms AND job.due >= next_due
                AND ((((job.id >> 10) # (job.id >> 17) # (job.id >> 24)) & 1023) + floor(job.due / 1000)::bigint) % parts = part
            ORDER BY job.due LIMIT 1;
        coming := coming || next_due;
    END LOOP;
    RETURN QUERY SELECT newest, ''::text, ''::text, 0::double precision, coming[n], ''::text, lanes[n], NULL::bigint, 0,
        NULL::bigint, NULL::bigint FROM generate_series(1, 2) AS n;
END $$;
