"""The statements of ledger.py. `{ledger}` stands for the ledger's schema.

Positions with a negative partition belong to files (file_positions.py), and no statement about Kafka reads them.
"""

POSITIONS = """
    SELECT stream, kafka_partition AS partition, kafka_incarnation AS incarnation, topic, cluster_id, topic_id,
           first_offset, next_offset, leader_epoch, "rows", dead_letters, skipped, absent, lost, updated_at, run_id
    FROM {ledger}.position WHERE stream = ANY(:streams) AND kafka_partition >= 0 ORDER BY stream, kafka_partition"""
STATE = """
    SELECT stream, paused, reason, paused_by, since, letters_allowed, acknowledged_at, acted_at, ticked_at,
           awaited_since IS NOT NULL AS awaited, failed_at, failure, failure_stops, waiting, now() AS now
    FROM {ledger}.stream_state WHERE stream = ANY(:streams)"""
PAUSE = """
    INSERT INTO {ledger}.stream_state AS s (stream, paused, reason, paused_by, since)
    VALUES (:stream, true, :reason, :by, now())
    ON CONFLICT (stream) DO UPDATE SET paused = true, reason = :reason, paused_by = :by, since = now()"""
RESUME = """
    UPDATE {ledger}.stream_state
    SET paused = false, reason = NULL, paused_by = NULL, since = now(), acted_at = now()
    WHERE stream = :stream AND paused"""
ALLOW = """
    INSERT INTO {ledger}.stream_state (stream, letters_allowed, acted_at) VALUES (:stream, :count, now())
    ON CONFLICT (stream) DO UPDATE SET letters_allowed = :count, acted_at = now()"""
ACKNOWLEDGE = """
    INSERT INTO {ledger}.stream_state (stream, acknowledged_at) VALUES (:stream, now())
    ON CONFLICT (stream) DO UPDATE SET acknowledged_at = now()"""
TICK = """
    INSERT INTO {ledger}.stream_state (stream, ticked_at) VALUES (:stream, now())
    ON CONFLICT (stream) DO UPDATE SET ticked_at = now()"""
FAILED = """
    INSERT INTO {ledger}.stream_state (stream, failed_at, failure, failure_stops) VALUES (:stream, now(), :why, :stops)
    ON CONFLICT (stream) DO UPDATE SET failed_at = now(), failure = :why, failure_stops = :stops"""
WAITING = """
    INSERT INTO {ledger}.stream_state (stream, waiting) VALUES (:stream, CAST(:waiting AS jsonb))
    ON CONFLICT (stream) DO UPDATE SET waiting = excluded.waiting"""
BEGIN = """
    INSERT INTO {ledger}.position (stream, topic, kafka_partition, kafka_incarnation, cluster_id, topic_id,
        first_offset, next_offset, leader_epoch)
    VALUES (:stream, :topic, :partition, :incarnation, :cluster_id, :topic_id, :offset, :offset, :leader_epoch)
    ON CONFLICT (stream, kafka_partition) DO NOTHING"""
PAST_INCARNATIONS = """
    SELECT kafka_partition AS partition, max(kafka_incarnation) AS incarnation
    FROM {ledger}.accounting WHERE stream = :stream AND NOT current GROUP BY kafka_partition"""
ADOPT = """
    UPDATE {ledger}.position
    SET cluster_id = coalesce(cluster_id, :cluster_id), topic_id = coalesce(topic_id, :topic_id)
    WHERE stream = :stream AND kafka_partition >= 0 AND (cluster_id IS NULL OR topic_id IS NULL)"""
ACCOUNTING = """
    SELECT stream, kafka_partition AS partition, kafka_incarnation AS incarnation, first_offset, next_offset, "rows",
           dead_letters, skipped, absent, lost, letters_kept, gaps_kept
    FROM {ledger}.accounting WHERE stream = ANY(:streams) AND kafka_partition >= 0
    ORDER BY stream, kafka_partition, kafka_incarnation"""
ROW_COUNT = """
    SELECT (SELECT coalesce(sum("rows"), 0) FROM {ledger}.accounting WHERE stream = :stream)
         + (SELECT coalesce(sum(redriven), 0) FROM {ledger}.settled_letters WHERE stream = :stream)"""
OPEN_LETTERS = """
    SELECT stream, kafka_partition AS partition, stage, coalesce(left(sqlstate, 2), '') AS sqlstate_class,
           count(*) AS letters
    FROM {ledger}.dead_letter WHERE stream = ANY(:streams) AND status = 'open'
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
AWAIT = """
    INSERT INTO {ledger}.stream_state (stream, awaited_since) VALUES (:stream, now())
    ON CONFLICT (stream) DO UPDATE SET awaited_since = coalesce(stream_state.awaited_since, now())"""
LOSSES = """
    SELECT l.stream, l.cause, l.kafka_partition AS partition, l.kafka_incarnation AS incarnation,
           l.next_offset AS expected, l.low, l.high, l.found_at
    FROM {ledger}.loss l JOIN {ledger}.position p USING (stream, kafka_partition, kafka_incarnation, next_offset)
    WHERE stream = ANY(:streams) ORDER BY l.stream, l.kafka_partition"""
FORGET_LOSSES = """
    WITH forgotten AS (
        DELETE FROM {ledger}.loss
        WHERE stream = :stream AND kafka_partition = coalesce(CAST(:partition AS integer), kafka_partition)
        RETURNING stream, kafka_partition, kafka_incarnation, next_offset)
    UPDATE {ledger}.position p SET leader_epoch = NULL FROM forgotten f
    WHERE (p.stream, p.kafka_partition, p.kafka_incarnation, p.next_offset)
        = (f.stream, f.kafka_partition, f.kafka_incarnation, f.next_offset)"""
NOTE_LOSS = """
    INSERT INTO {ledger}.loss AS l (stream, kafka_partition, kafka_incarnation, next_offset, low, high, cause)
    VALUES (:stream, :partition, :incarnation, :next_offset, :low, :high, :cause)
    ON CONFLICT (stream, kafka_partition) DO UPDATE
    SET kafka_incarnation = excluded.kafka_incarnation, next_offset = excluded.next_offset, low = excluded.low,
        high = excluded.high, cause = excluded.cause, found_at = now()
    WHERE (l.kafka_incarnation, l.next_offset) <> (excluded.kafka_incarnation, excluded.next_offset)"""
