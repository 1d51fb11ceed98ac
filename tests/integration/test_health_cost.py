"""How an endpoint does: that the figures are right, and read through indexes among 50,000."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from api import db
from api.store import deliveries
from tests.support import rows
from tests.support.app import SHIRE, WEST, Api, slug

BUSY, QUIET = 50_000, 500


async def owe(conn: asyncpg.Connection, endpoint_id: UUID, count: int) -> None:
    """Deliveries over 50 days: of 100, 90 delivered, 2 dead, 2 cancelled and 6 waiting.

    Each has an attempt; one in ten had a deferred one before, and of the waiting only half any.
    """
    await conn.execute(
        """
        WITH more AS (
            INSERT INTO report (id, api_key_id, lon, lat, category, description, decision,
                                dataset_id, authority_id, held_on_receipt)
            SELECT gen_random_uuid(), api_key_id, lon, lat, category, description, decision,
                   dataset_id, authority_id, held_on_receipt
            FROM (SELECT * FROM report LIMIT 1) AS one CROSS JOIN generate_series(1, $2)
            RETURNING id
        ), numbered AS (
            SELECT id, row_number() OVER () AS n FROM more
        ), owed AS (
            INSERT INTO delivery (report_id, endpoint_id, state, created_at, settled_at, attempts)
            SELECT id, $1, state, at, CASE WHEN state <> 'pending' THEN at END,
                   CASE WHEN state = 'pending' THEN n % 2 WHEN n % 10 = 0 THEN 2 ELSE 1 END
            FROM numbered
            CROSS JOIN LATERAL (
                SELECT CASE WHEN n % 100 < 90 THEN 'delivered' WHEN n % 100 < 92 THEN 'dead'
                            WHEN n % 100 < 94 THEN 'cancelled' ELSE 'pending' END AS state,
                       now() - n * interval '50 days' / $2 AS at
            ) AS made
            RETURNING id, state, created_at, attempts
        )
        INSERT INTO attempt (delivery_id, n, started_at, finished_at, outcome)
        SELECT id, n, created_at, created_at,
               CASE WHEN n < attempts OR state = 'pending' THEN 'deferred'
                    WHEN state = 'delivered' THEN 'delivered' ELSE 'rejected' END
        FROM owed CROSS JOIN generate_series(1, attempts) AS n
        """,
        endpoint_id,
        count,
    )


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await db.connect(database_url)
    yield conn
    await conn.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


async def explained(conn: asyncpg.Connection, *ids: UUID) -> dict[str, Any]:
    # As a session that has asked many times: planned without knowing the parameters
    await conn.execute(
        f"SET plan_cache_mode = force_generic_plan; PREPARE health AS {deliveries.HEALTH}"
    )
    asked = ", ".join(f"'{one}'" for one in ids)
    found = await conn.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE health ({asked})")
    await conn.execute("DEALLOCATE health")
    plan: dict[str, Any] = json.loads(found)[0]["Plan"]
    return plan


async def test_health_is_read_through_indexes(conn: asyncpg.Connection) -> None:
    authority_id = await rows.authority(conn)
    await rows.report(conn, authority_id)
    busy, quiet = [await rows.endpoint(conn, authority_id) for _ in range(2)]
    await owe(conn, busy, BUSY)
    await owe(conn, quiet, QUIET)
    await conn.execute("ANALYZE")
    read = []
    for endpoint_id, count in ((busy, BUSY), (quiet, QUIET)):
        plan = await explained(conn, endpoint_id, authority_id)
        scans = {
            (node["Relation Name"], node["Node Type"])
            for node in nodes(plan)
            if node.get("Relation Name") in {"delivery", "attempt"}
        }
        assert scans
        assert "Seq Scan" not in {kind for _, kind in scans}
        read.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        row = await deliveries.read_health(conn, authority_id=authority_id, endpoint_id=endpoint_id)
        assert row is not None
        assert row["waiting"] == count * 6 // 100
        assert row["dead"] == count * 2 // 100
    # The little that the quiet one has costs little, whatever the other has.
    assert read[1] * 20 < read[0]


def path(api: Api, endpoint_id: str) -> str:
    return f"/v1/authorities/{api.authorities[WEST]}/endpoints/{endpoint_id}/health"


async def test_the_figures(api: Api) -> None:
    endpoint = (await api.register(WEST)).json()["id"]
    shown = (await api.get(path(api, endpoint), key="council")).json()
    assert shown == {
        "waiting": 0,
        "oldest_waiting_at": None,
        "delivered_24h": 0,
        "failed_attempts_24h": 0,
        "success_rate_24h": None,
        "dead": 0,
        "breaker": "closed",
        "open_until": None,
        "last_delivered_at": None,
    }
    await api.post_report()
    async with db.acquire(api.pool) as conn:
        await owe(conn, UUID(endpoint), 1000)  # 20 of each day
    await api.pool.execute("UPDATE endpoint SET failures = 5, open_until = '2126-11-02T09:31:00Z'")
    shown = (await api.get(path(api, endpoint), key="operator")).json()
    day = await api.pool.fetchrow(
        """
        SELECT count(*) FILTER (WHERE outcome = 'delivered') AS delivered,
               count(*) FILTER (WHERE outcome <> 'delivered') AS failed
        FROM attempt WHERE finished_at > now() - interval '1 day'
        """
    )
    oldest, newest = await api.pool.fetchrow(
        """
        SELECT min(created_at) FILTER (WHERE state = 'pending'),
               max(settled_at) FILTER (WHERE state = 'delivered') FROM delivery
        """
    )
    assert day["delivered"] > 0
    assert day["failed"] > 0
    assert (shown["waiting"], shown["dead"]) == (61, 20)
    assert shown["delivered_24h"] == day["delivered"]
    assert shown["failed_attempts_24h"] == day["failed"]
    assert shown["success_rate_24h"] == day["delivered"] / (day["delivered"] + day["failed"])
    assert (shown["breaker"], shown["open_until"]) == ("open", "2126-11-02T09:31:00Z")
    assert datetime.fromisoformat(shown["oldest_waiting_at"]) == oldest
    assert datetime.fromisoformat(shown["last_delivered_at"]) == newest


async def test_whose_health_it_is(api: Api) -> None:
    mine = (await api.register(WEST)).json()["id"]
    theirs = (await api.register(SHIRE)).json()["id"]
    for key in ("app", "other council"):
        assert slug(await api.get(path(api, mine), key=key)) == "forbidden"
    assert slug(await api.get(path(api, theirs), key="council")) == "not-found"
    assert slug(await api.get(path(api, str(uuid4())), key="council")) == "not-found"
    await api.delete(path(api, mine).removesuffix("/health"))
    assert slug(await api.get(path(api, mine), key="council")) == "not-found"
