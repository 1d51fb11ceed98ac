"""What a claim costs does not grow with what waits: it reads the heads of the endpoints' queues."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from api import db
from api.delivery import outbox
from tests.support import rows

ENDPOINTS = 50
LIMIT = 50
PER_ENDPOINT = 8


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with an authority that has many endpoints, and a report."""
    conn = await db.connect(database_url)
    authority_id = await rows.authority(conn)
    await rows.report(conn, authority_id)
    for _ in range(ENDPOINTS):
        await rows.endpoint(conn, authority_id)
    yield conn
    await conn.close()


async def owe(conn: asyncpg.Connection, *, reports: int) -> None:
    """So many more reports, each owed to every endpoint, all due."""
    await conn.execute(
        """
        WITH more AS (
            INSERT INTO report (id, api_key_id, lon, lat, category, description, decision,
                                dataset_id, authority_id, held_on_receipt)
            SELECT gen_random_uuid(), api_key_id, lon, lat, category, description, decision,
                   dataset_id, authority_id, held_on_receipt
            FROM (SELECT * FROM report LIMIT 1) AS one CROSS JOIN generate_series(1, $1)
            RETURNING id
        )
        INSERT INTO delivery (report_id, endpoint_id, due_at)
        SELECT more.id, endpoint.id, now() - random() * interval '1 day'
        FROM more CROSS JOIN endpoint
        """,
        reports,
    )
    await conn.execute("ANALYZE")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


async def explained(conn: asyncpg.Connection) -> dict[str, Any]:
    """How a claim is done, without its being done."""
    transaction = conn.transaction()
    await transaction.start()
    # As a session that has made many: planned once, without knowing the parameters
    await conn.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE claim AS {outbox.CLAIM}")
    found = await conn.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE claim ({LIMIT}, 60, {PER_ENDPOINT}, 1)"
    )
    await conn.execute("DEALLOCATE claim")
    await transaction.rollback()
    plan: dict[str, Any] = json.loads(found)[0]["Plan"]
    return plan


async def test_a_claim_reads_as_much_of_50_000_as_of_5_000(conn: asyncpg.Connection) -> None:
    read = []
    for reports in (100, 900):
        await owe(conn, reports=reports)
        plan = await explained(conn)
        assert plan["Actual Rows"] == LIMIT
        on_delivery = [
            node
            for node in nodes(plan)
            if node.get("Relation Name") == "delivery" and node["Node Type"] != "ModifyTable"
        ]
        assert "Seq Scan" not in {node["Node Type"] for node in on_delivery}
        assert "delivery_due" in {node.get("Index Name") for node in on_delivery}
        # Of each endpoint no more than it may have in flight, and of those what is claimed
        assert max(node["Actual Rows"] * node["Actual Loops"] for node in on_delivery) <= (
            ENDPOINTS * PER_ENDPOINT
        )
        read.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    few, many = read
    assert many < 1.5 * few
    assert many < 60 * LIMIT
