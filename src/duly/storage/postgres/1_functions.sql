-- Format 1 of a store in PostgreSQL: its functions. `duly.` stands for the schema of the store, `$lock` for the key of its
-- advisory lock, `$channel` for the channel of notifications, `$kept` for the number of commits that the log keeps.
--
-- Every write goes through `commit_1`, one statement that takes the lock, compares what the batch has read with what other
-- nodes have written since, and writes. It must run at READ COMMITTED: there each statement of a volatile function sees
-- what was committed before that statement began, so a function that has waited for the lock sees all earlier commits.
--
-- Plans are kept (force_generic_plan): each statement has only one good plan, whatever its values. For a large table
-- PostgreSQL would otherwise plan every time, which takes longer than all the rest of a claim.

-- Whether something that was read has been written since a version. Also true if the store does not have that version:
-- then a server has taken over that lacks the last commits. A range is one of an index, or one of the ids of a table: then
-- its number is that of the table, negative.
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
            RETURN true;  -- comparing them would take longer than running the batch again
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

-- The newest version, if nothing that was read has been written since a version; otherwise null.
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

-- Commit a batch. Returns its version; -1 if something that it has read has changed; -2 if the node is no longer live.
-- Raises 40001 if a job is no longer in the state in which the batch found it.
CREATE FUNCTION duly.commit_1(
    this_epoch bigint, this_batch bigint,
    since bigint,  -- null: the caller has held the lock since before it read anything
    -- For all arrays, null stands for an empty one, because it costs less to send.
    read_ids bigint[], relations integer[], lowers bytea[], uppers bytea[], reads_jobs boolean,
    -- Documents, in groups: the relation, what is done to it (i, u, d), how many.
    tables integer[], row_relations text[], row_acts text[], row_counts integer[],
    ids bigint[], documents text[],
    -- Keys, in groups: the relation, i or d, how many.
    indexes integer[], key_relations text[], key_acts text[], key_counts integer[],
    keys bytea[], key_ids bigint[],
    -- New jobs, one array per column.
    job_ids bigint[], names text[], args text[], scheduled_times double precision[], dues double precision[],
    states text[], lanes text[], parents bigint[], completed_times double precision[], retries bigint[],
    crons bigint[],
    -- Jobs that change their state, in groups: from which state to which, how many.
    old_states text[], old_epochs bigint[], new_states text[], new_lanes text[], new_dues double precision[],
    new_epochs bigint[], errors text[], ends double precision[], new_attempts integer[], move_counts integer[],
    moved_ids bigint[],
    expired_ids bigint[],  -- completed jobs to be deleted, if they are still there
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
        -- Planning a join with one row takes longer than writing the row.
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
        -- No index has `state || ''`: so the planner finds each row by its id.
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

-- The outcome of a batch whose answer was lost: its version if it is committed; otherwise null, and it never will be.
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
    -- This answer may be lost as well and asked for again: version 0 stands for no commit.
    UPDATE duly.nodes SET batch = this_batch, version = 0 WHERE epoch = this_epoch;
    RETURN NULL;
END $$;

-- End the session of a node that holds the lock and went silent in the middle of sending a statement. Between two
-- statements PostgreSQL does this by itself (idle_in_transaction_session_timeout); within one it waits forever.
CREATE FUNCTION duly.evict_1() RETURNS void LANGUAGE sql AS $$
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = $lock
        AND datname = current_database() AND usename = current_user
        AND state = 'active' AND wait_event = 'ClientRead' AND state_change < clock_timestamp() - interval '1 s'
$$;

-- Make a process a node. `wanted` is the number that it had before, if it had one.
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

-- The heartbeat of a node: it records that the node lives, and returns which other nodes live. Nodes that were not seen
-- for too long are lost from here on: their commits are refused. A locked row belongs to a node that is committing.
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
    -- A node that was away a moment ago itself, as all are while the server restarts, declares no other node lost.
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

-- The due jobs of one partition, and after them one row for each queue: its id is the version of the store that this claim
-- has seen, its `due` is the next due time. As of `since_version` no job of the partition was pending before `firsts`, nor
-- between the time of that claim and `nexts`; the log has what was added there since.
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
    since_due double precision;  -- the earliest due time of what was added since
    first_due double precision;
    next_due double precision;
    coming double precision[] := '{}';
BEGIN
    SELECT coalesce(max(log.version), 0), CASE WHEN min(log.version) = since_version  -- otherwise some of the log is gone
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
