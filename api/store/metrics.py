"""The SQL of the metrics: one statement over what waits and what was counted, not over history."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg


async def read_metrics(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """Rows of (metric, channel, label, value); a metric without the one or the other has ''.

    What it costs grows with the deliveries that wait, through their index, and with the reports
    held; not with those delivered, nor with attempts.
    """
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        WITH breaker AS (
            SELECT id, channel, state,
                   CASE WHEN open_until > now() THEN 'open'
                        WHEN open_until IS NOT NULL THEN 'probing'
                        ELSE 'closed' END AS breaker
            FROM endpoint
            WHERE state <> 'deleted'
        ), queue AS MATERIALIZED (
            SELECT breaker.channel, breaker.state AS endpoint_state, breaker.breaker,
                   coalesce(owed.waiting, 0) AS waiting, coalesce(owed.leased, 0) AS leased,
                   owed.oldest, owed.due_since
            FROM breaker
            LEFT JOIN (
                SELECT endpoint_id,
                       count(*) FILTER (WHERE state = 'pending') AS waiting,
                       count(*) FILTER (WHERE state = 'leased') AS leased,
                       min(coalesce(redelivered_at, created_at))
                           FILTER (WHERE state = 'pending') AS oldest,
                       min(due_at) AS due_since
                FROM delivery
                WHERE state IN ('pending', 'leased')
                GROUP BY endpoint_id
            ) AS owed ON owed.endpoint_id = breaker.id
        )
        SELECT 'deliveries' AS metric, channel, 'waiting' AS label, sum(waiting)::float8 AS value
        FROM queue GROUP BY channel
        UNION ALL
        SELECT 'deliveries', channel, 'leased', sum(leased)::float8 FROM queue GROUP BY channel
        UNION ALL
        SELECT 'oldest_waiting', channel, '',
               coalesce(extract(epoch FROM now() - min(oldest)), 0)::float8
        FROM queue GROUP BY channel
        UNION ALL
        -- what a worker could take and none does
        SELECT 'overdue', channel, '',
               coalesce(extract(epoch FROM now() - least(now(), min(due_since) FILTER (
                   WHERE endpoint_state = 'active' AND breaker <> 'open'))), 0)::float8
        FROM queue GROUP BY channel
        UNION ALL
        SELECT 'endpoints', channel, state, count(*)::float8 FROM breaker GROUP BY channel, state
        UNION ALL
        SELECT 'breakers', channel, breaker, count(*)::float8
        FROM breaker WHERE state = 'active' GROUP BY channel, breaker
        UNION ALL
        SELECT 'held', '', '', count(*)::float8 FROM held
        UNION ALL
        SELECT 'attempts', channel, outcome, attempts::float8 FROM attempt_count
        """
    )
    return rows
