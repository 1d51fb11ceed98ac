"""Health, the dataset changing under a running service, request ids, logs, and the docs page."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import re
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from api import db
from api.routing import LiveRouting, load_rules
from api.schemas import Place
from api.store import datasets
from boundaries.dataset import Dataset
from tests.support.app import IN_WEST, Api, Shelf, Square, activate, slug, started

NORTH = Square("highway", "X06000009", "North", 0.0, 2.0)
PLACE = Place(**IN_WEST, category="pothole")


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(250):
        if await look():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come about in time")


async def ready(client: httpx.AsyncClient) -> tuple[int, dict[str, Any]]:
    response = await client.get("/readyz")
    return response.status_code, response.json()


async def swap(api: Api, dataset: Dataset) -> None:
    async with db.acquire(api.pool) as conn:
        await activate(conn, dataset)


async def test_alive_and_ready(api: Api) -> None:
    alive = await api.client.get("/healthz")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    status, body = await ready(api.client)
    assert status == 200
    assert body == {
        "status": "ready",
        "checks": {
            "database": {"ok": True, "detail": "reachable"},
            "schema": {"ok": True, "detail": "current"},
            "dataset": {"ok": True, "detail": "squares-1"},
            "delivery": {"ok": True, "detail": "live"},
        },
    }


async def test_without_a_database(api: Api) -> None:
    await api.app.state.wiring.pool.close()
    assert (await api.client.get("/healthz")).status_code == 200
    status, body = await ready(api.client)
    assert (status, body["status"]) == (503, "not ready")
    assert body["checks"]["database"] == {"ok": False, "detail": "cannot be reached"}
    assert body["checks"]["schema"]["ok"] is False


async def test_with_a_schema_that_lacks_a_migration(api: Api) -> None:
    await api.pool.execute("DELETE FROM schema_migration")
    status, body = await ready(api.client)
    assert (status, body["status"]) == (503, "not ready")
    assert "georouter migrate" in body["checks"]["schema"]["detail"]


async def test_a_schema_that_lacks_a_migration_stops_the_start(empty_database_url: str) -> None:
    with pytest.raises(db.SchemaOutdated, match="georouter migrate"):
        async with started(empty_database_url, Shelf()):
            pass


async def test_a_service_without_a_dataset_waits_for_one(
    database_url: str, pool: asyncpg.Pool
) -> None:
    shelf = Shelf()
    async with started(database_url, shelf) as (app, client):
        status, body = await ready(client)
        assert (status, body["status"]) == (503, "not ready")
        assert body["checks"]["dataset"] == {"ok": False, "detail": "no dataset is active"}
        async with db.acquire(pool) as conn:
            await activate(conn, shelf.put("squares-1"))

        async def is_ready() -> bool:
            return (await ready(client))[0] == 200

        await eventually(is_ready)
        assert app.state.wiring.live.current.version == "squares-1"


async def test_a_new_dataset_takes_over_by_itself(api: Api) -> None:
    await swap(api, api.shelf.put("squares-2", (NORTH,)))

    async def decided_by_the_new() -> bool:
        decision = (await api.get("/v1/locate", **IN_WEST, category="pothole")).json()
        return bool(decision["dataset"] == "squares-2")

    await eventually(decided_by_the_new)
    receipt = (await api.post_report()).json()
    assert receipt["decision"]["authority"]["name"] == "North"
    used = "SELECT version FROM report JOIN dataset ON dataset.id = dataset_id"
    assert await api.pool.fetchval(used) == "squares-2"
    # authorities of the old one stay, and back again is as easy
    assert len((await api.get("/v1/authorities")).json()["items"]) == 4
    await swap(api, api.shelf.datasets["squares-1"])
    await api.app.state.wiring.live.refresh(api.pool)
    assert api.app.state.wiring.live.current.version == "squares-1"


async def test_a_dataset_that_cannot_be_opened_leaves_the_old_one(api: Api) -> None:
    broken = api.shelf.put("squares-2")
    del api.shelf.datasets["squares-2"]
    await swap(api, broken)
    await api.app.state.wiring.live.refresh(api.pool)
    status, body = await ready(api.client)
    assert (status, body["status"]) == (503, "not ready")
    assert body["checks"]["dataset"]["detail"] == (
        "dataset squares-2 cannot be opened: squares-2 is not on the shelf; "
        "squares-1 decides meanwhile"
    )
    figures = (await api.client.get("/metrics")).text
    assert 'georouter_dataset_info{version="squares-1"} 1.0' in figures
    assert "georouter_dataset_fault 1.0" in figures
    assert (await api.post_report()).json()["decision"]["dataset"] == "squares-1"
    api.shelf.put("squares-2")

    async def is_ready() -> bool:  # the polls go on trying
        return (await ready(api.client))[0] == 200

    await eventually(is_ready)
    figures = (await api.client.get("/metrics")).text
    assert 'georouter_dataset_info{version="squares-2"} 1.0' in figures
    assert "georouter_dataset_fault 0.0" in figures
    [age] = re.findall("^georouter_dataset_age_seconds (.+)$", figures, re.MULTILINE)
    assert 0 <= float(age) < 60


async def test_an_old_table_goes_with_the_last_request_that_has_it(api: Api) -> None:
    live = api.app.state.wiring.live
    held = live.require()
    gone = weakref.ref(held)
    mapped = weakref.ref(api.shelf.datasets.pop("squares-1").index)
    await swap(api, api.shelf.put("squares-2", (NORTH,)))
    await live.refresh(api.pool)
    assert held.decide(PLACE, as_of=live.today()).dataset == "squares-1"
    assert live.require().decide(PLACE, as_of=live.today()).dataset == "squares-2"
    del held
    gc.collect()
    assert gone() is None
    assert mapped() is None


async def test_a_planned_dataset_is_opened_beforehand_and_followed_at_its_instant(
    pool: asyncpg.Pool,
) -> None:
    shelf, opened = Shelf(), []

    async def open_version(version: str, manifest: Mapping[str, Any]) -> Dataset:
        opened.append(version)
        return await shelf.open(version, manifest)

    async with db.acquire(pool) as conn:
        await activate(conn, shelf.put("squares-1"))
        soon = await conn.fetchval("SELECT clock_timestamp() + interval '1 second'")
        await activate(conn, shelf.put("squares-2"), from_at=soon)
    live = LiveRouting(rules=load_rules(None), clock=time.time, open_version=open_version)
    await live.refresh(pool)
    async with asyncio.TaskGroup() as tasks:
        # polls that are far apart: the instant itself wakes it
        polls = [
            tasks.create_task(live.poll(pool, every_s=60.0)),
            tasks.create_task(live.prepare(pool, every_s=60.0)),
        ]

        async def both_opened() -> bool:
            return opened == ["squares-1", "squares-2"]

        async def taken_over() -> bool:
            return live.require().version == "squares-2"

        await eventually(both_opened)
        assert live.require().version == "squares-1"
        await eventually(taken_over)
        assert live.since == soon
        for poll in polls:
            poll.cancel()


async def test_a_dataset_whose_codes_nobody_has_is_not_opened(api: Api) -> None:
    await swap(api, api.shelf.put("squares-2"))
    api.shelf.put("squares-2", (NORTH,))
    live = api.app.state.wiring.live
    live.current = None
    await live.refresh(api.pool)
    assert "no authority has the codes X06000009" in live.fault


async def test_activating_again_changes_nothing(api: Api) -> None:
    dataset = api.shelf.datasets["squares-1"]
    async with db.acquire(api.pool) as conn:
        before = await conn.fetch("SELECT * FROM dataset")
        again = await activate(conn, dataset)
        assert (again.changed, again.new_authorities) == (False, 0)
        assert await conn.fetch("SELECT * FROM dataset") == before
        first = await activate(conn, api.shelf.put("squares-2", (NORTH,)))
        assert (first.changed, first.new_authorities) == (True, 1)
        in_force = await datasets.active_dataset(conn)
        assert in_force is not None
        assert in_force["version"] == "squares-2"


async def test_a_planned_dataset_waits_for_its_instant(api: Api) -> None:
    async with db.acquire(api.pool) as conn:
        tomorrow = await conn.fetchval("SELECT now() + interval '1 day'")
        planned = api.shelf.put("squares-2")
        for changed in (True, False):  # planned twice is planned once
            done = await activate(conn, planned, from_at=tomorrow)
            assert done.changed is changed
        assert (await datasets.active_dataset(conn))["version"] == "squares-1"
        await conn.execute("UPDATE activation SET from_at = now() WHERE from_at > now()")
        assert (await datasets.active_dataset(conn))["version"] == "squares-2"


async def test_of_a_pruned_dataset_other_days_say_so(api: Api) -> None:
    await swap(api, api.shelf.put("squares-2"))
    await api.app.state.wiring.live.refresh(api.pool)
    await api.pool.execute(
        "UPDATE activation SET from_at = from_at - interval '9 days' "
        "WHERE id = (SELECT min(id) FROM activation)"
    )
    await api.pool.execute("UPDATE dataset SET removed_at = now() WHERE version = 'squares-1'")
    day = api.app.state.wiring.live.today() - timedelta(days=5)
    refused = await api.get("/v1/locate", **IN_WEST, category="pothole", as_of=day)
    assert (refused.status_code, slug(refused)) == (503, "no-active-dataset")
    assert "squares-1, cannot be opened: its artefact was pruned on" in refused.json()["detail"]


async def test_activations_at_once_leave_one_dataset_in_force(api: Api) -> None:
    several = [api.shelf.put(f"squares-{n}", (NORTH,)) for n in range(2, 6)]
    await asyncio.gather(*(swap(api, dataset) for dataset in several))
    # in force is the one that was recorded last
    latest = "SELECT dataset_id FROM activation ORDER BY id DESC LIMIT 1"
    async with db.acquire(api.pool) as conn:
        in_force = await datasets.active_dataset(conn)
    assert in_force is not None
    assert await api.pool.fetchval(latest) == in_force["id"]
    assert await api.pool.fetchval("SELECT count(*) FROM authority") == 4


async def test_a_renamed_authority_keeps_its_identity(api: Api) -> None:
    renamed = Square("highway", "X06000001", "West and Welcome", 0.0, 1.0)
    await swap(api, api.shelf.put("squares-2", (renamed,)))
    (west,) = (await api.get("/v1/authorities", code="X06000001")).json()["items"]
    assert west["id"] == str(api.authorities["X06000001"])
    assert west["name"] == "West and Welcome"


# --- request ids and logs -------------------------------------------------------------------------


async def test_a_sane_request_id_is_kept_and_another_replaced(api: Api) -> None:
    async def sent(given: str) -> str:
        response = await api.client.get("/healthz", headers={"X-Request-Id": given})
        return response.headers["x-request-id"]

    assert await sent("app-7.a_b") == "app-7.a_b"
    for odd in ("", "x" * 65, "a b", "a\tb", '"quoted"'):
        assert re.fullmatch("[0-9a-f]{32}", await sent(odd))
    assert await sent("") != await sent("")


async def test_a_failure_of_ours_shows_nothing_but_its_id(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    secret_text = "the secret inside"

    def fail(*_: object, **__: object) -> None:
        raise ValueError(secret_text)

    monkeypatch.setattr(api.app.state.wiring.live.current, "decide", fail)
    response = await api.client.get(
        "/v1/locate",
        params={**IN_WEST, "category": "pothole"},
        headers={**api.headers("app"), "X-Request-Id": "find-me"},
    )
    assert (response.status_code, slug(response)) == (500, "internal-error")
    assert response.json()["correlation_id"] == "find-me"
    assert response.headers["x-request-id"] == "find-me"
    assert secret_text not in response.text
    failed, request = [json.loads(line) for line in log.getvalue().splitlines()]
    assert failed["event"] == "request failed"
    assert failed["correlation_id"] == request["correlation_id"] == "find-me"
    assert failed["exception"][0]["type"] == "builtins.ValueError"
    assert failed["exception"][0]["at"][-1].endswith(" fail")
    assert secret_text not in log.getvalue()
    assert (request["route"], request["status"]) == ("/v1/locate", 500)


async def test_what_a_citizen_sends_stays_out_of_the_log(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    private = "by my front door, 7 Acacia Avenue"
    await api.post_report(description=private, lon=0.123456, idempotency_key="private-key")
    await api.post_report(description=private, lon=0.123456, accuracy_m=-1)
    await api.get("/v1/locate", lon=0.123456, lat=50.5, category="pothole")
    await api.get("/v1/7-acacia-avenue")
    # a failure in the database, whose message quotes the row
    await api.pool.execute("ALTER TABLE report ADD CHECK (lat < 0) NOT VALID")
    failed = await api.post_report(description=private, lon=0.123456)
    assert (failed.status_code, slug(failed)) == (500, "internal-error")
    assert (await api.rows())["report"] == 1
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["route"] for line in lines if line["event"] == "request"] == [
        "/v1/reports",
        "/v1/reports",
        "/v1/locate",
        "(none)",
        "/v1/reports",
    ]
    (error,) = [line for line in lines if line["event"] == "request failed"]
    assert error["exception"][0]["sqlstate"] == "23514"
    for part in ("acacia", "Acacia", "0.123456", "private-key", "grk_"):
        assert part not in log.getvalue()


# --- documentation --------------------------------------------------------------------------------


async def test_the_docs_page_needs_no_network(api: Api) -> None:
    page = await api.client.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sources
    for source in sources:
        assert source.startswith("/")
        assert (await api.client.get(source)).status_code == 200
    assert (await api.client.get("/openapi.json")).json()["openapi"].startswith("3.1")
