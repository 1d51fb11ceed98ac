"""Reports that change hands: "not ours", answers, authorities that end; and their explanation."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from pydantic import TypeAdapter

from api import db, rerouting
from api.delivery import outbox, policy
from api.delivery.channels.webhook import payload
from api.explain import explain
from api.routing import LiveRouting
from api.store import authorities, reroutes
from api.webhook_schemas import Message
from boundaries.dataset import Dataset, road_as_json
from georouter.model import Road
from tests.support.app import (
    IN_SHIRE,
    IN_WEST,
    ON_BORDER,
    SHIRE,
    SQUARES,
    VALE,
    WEST,
    Api,
    Square,
    activate,
    index_of,
    serving,
    slug,
)

# 7 m west of the border, in West
BESIDE: dict[str, Any] = {"lon": 0.9999, "lat": 50.5}
HALVES = """
[[successions]]
on = 2026-01-01
reason = "the order"
ends = ["X10000001", "X07000001"]

[[successions.successors]]
code = "NEW-SHIRE"
name = "New Shire"
"""
BEFORE = datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
AFTER = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


async def reroute(api: Api) -> int:
    return await rerouting.reroute_all(api.pool, api.app.state.wiring.live)


async def shown(api: Api, report_id: str) -> dict[str, Any]:
    response = await api.get(f"/v1/reports/{report_id}")
    assert response.status_code == 200
    return dict(response.json())


async def update(
    api: Api, code: str, report_id: str, *, key: str = "operator", **body: Any
) -> httpx.Response:
    return await api.client.post(
        f"/v1/authorities/{api.authorities[code]}/reports/{report_id}/updates",
        json={"update_id": "1", **body},
        headers=api.headers(key),
    )


async def not_ours(api: Api, code: str, report_id: str, **body: Any) -> httpx.Response:
    given = {"state": "closed", "reason": "not_responsible", **body}
    return await update(api, code, report_id, **given)


async def post(api: Api, path: str, body: dict[str, Any], *, key: str = "app") -> httpx.Response:
    return await api.client.post(path, json=body, headers=api.headers(key))


async def send(api: Api, outcome: policy.Outcome) -> None:
    """Claim the one delivery that is due and settle it with an outcome."""
    async with db.acquire(api.pool) as conn:
        [claimed] = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
    async with db.acquire(api.pool) as conn, conn.transaction():
        following = policy.after(outcome, attempt=1, age_s=0, jitter=0)
        assert await outbox.settle(conn, claimed, outcome, following)


def story(report: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(event["kind"], event["authority"]) for event in report["events"]]


async def test_a_refusal_in_the_answer_sends_it_to_the_other_side(api: Api) -> None:
    await api.register(WEST)
    await api.register(SHIRE)
    posted = (await api.post_report(**BESIDE)).json()
    assert posted["decision"]["authority"]["name"] == "West"

    body = b'{"not_ours": true}'
    await send(api, policy.outcome_of(200, {}, body, now=0.0))
    waiting = await shown(api, posted["id"])
    assert (waiting["state"], waiting["deliveries"][0]["state"]) == ("queued", "cancelled")
    assert await reroute(api) == 1
    assert await reroute(api) == 0

    report = await shown(api, posted["id"])
    assert report["state"] == "queued"
    assert report["current"]["authority"]["name"] == "Shire"
    assert report["current"]["rule"] == "not-ours"
    # what the receipt said stays
    assert report["decision"] == posted["decision"]
    assert story(report) == [("received", "West"), ("not_ours", "West"), ("rerouted", "Shire")]
    await send(api, policy.Delivered(status=200))
    assert (await shown(api, posted["id"]))["state"] == "forwarded"


async def test_a_retry_still_gets_the_answer_of_the_receipt(api: Api) -> None:
    posted = await api.post_report(idempotency_key="k", **BESIDE)
    await not_ours(api, WEST, posted.json()["id"])
    await reroute(api)
    assert (await api.post_report(idempotency_key="k", **BESIDE)).json() == posted.json()


async def test_a_council_names_who_it_is(api: Api) -> None:
    posted = (await api.post_report(**IN_SHIRE)).json()
    told = await not_ours(api, SHIRE, posted["id"], responsible=WEST, note="It is a private road.")
    assert (told.status_code, told.json()["kind"]) == (201, "not_ours")
    assert told.json()["note"] == "It is a private road."

    await reroute(api)

    report = await shown(api, posted["id"])
    assert report["current"]["authority"]["name"] == "West"
    assert report["current"]["rule"] == "named"
    assert report["state"] == "held"  # West has no endpoint
    async with db.acquire(api.pool) as conn:
        assert await conn.fetchval("SELECT authority_id FROM held") == api.authorities[WEST]


async def test_nobody_is_asked_twice_and_then_an_operator_is(api: Api) -> None:
    posted = (await api.post_report(**BESIDE)).json()
    for code in (WEST, SHIRE, VALE):  # each time naming the first, who has refused already
        assert (await not_ours(api, code, posted["id"], responsible=WEST)).status_code == 201
        assert await reroute(api) == 1

    report = await shown(api, posted["id"])
    assert report["state"] == "with_operator"
    assert story(report) == [
        ("received", "West"),
        ("not_ours", "West"),
        ("rerouted", "Shire"),
        ("not_ours", "Shire"),
        ("rerouted", "Vale"),
        ("not_ours", "Vale"),
        ("with_operator", None),
    ]
    queue = (await api.get("/v1/triage", key="operator")).json()["items"]
    assert [(item["report_id"], item["last"]) for item in queue] == [(posted["id"], "Vale")]
    assert slug(await api.get("/v1/triage", key="council")) == "forbidden"

    path = f"/v1/triage/{posted['id']}/assign"
    unknown = await post(api, path, {"authority": "X99"}, key="operator")
    assert slug(unknown) == "validation-failed"
    assert (await post(api, path, {"authority": SHIRE}, key="operator")).status_code == 204
    report = await shown(api, posted["id"])
    assert (report["state"], report["current"]["rule"]) == ("held", "operator")
    assert (await api.get("/v1/triage", key="operator")).json()["items"] == []


async def test_who_is_given_it_again_may_refuse_it_again(api: Api) -> None:
    await api.register(WEST)
    posted = (await api.post_report(**BESIDE)).json()
    refusal = policy.outcome_of(200, {}, b'{"not_ours": true}', now=0.0)
    await send(api, refusal)
    path = f"/v1/triage/{posted['id']}/assign"
    assert (await post(api, path, {"authority": WEST}, key="operator")).status_code == 204
    await send(api, refusal)
    assert await reroute(api) == 1
    assert (await shown(api, posted["id"]))["current"]["authority"]["name"] == "Shire"


async def test_after_three_hops_an_operator_decides() -> None:
    refusals = reroutes.Refusals(["a", "b", "c", "d"], 4)
    with pytest.raises(rerouting.NobodyLeft, match="4 bodies have said"):
        rerouting.again({}, refusals, None, as_of=date(2026, 1, 1))  # type: ignore[arg-type]


async def test_the_same_update_again_changes_nothing(api: Api) -> None:
    posted = (await api.post_report(**BESIDE)).json()
    first = await update(api, WEST, posted["id"], key="council", state="planned", note="Soon.")
    again = await update(api, WEST, posted["id"], key="council", state="fixed")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    refused = await not_ours(api, WEST, posted["id"], update_id="2")
    await reroute(api)
    repeated = await not_ours(api, WEST, posted["id"], update_id="2")
    assert (refused.status_code, repeated.status_code) == (201, 200)
    assert refused.json() == repeated.json()
    assert await reroute(api) == 0
    report = await shown(api, posted["id"])
    assert len(report["events"]) == 4
    assert report["status"] is None  # who said "planned" has it no more
    await update(api, SHIRE, posted["id"], state="investigating")
    assert (await shown(api, posted["id"]))["status"] == "investigating"


async def test_who_had_it_before_says_nothing_of_the_work_by_now(api: Api) -> None:
    posted = (await api.post_report(**BESIDE)).json()
    await not_ours(api, WEST, posted["id"])
    await reroute(api)
    await update(api, SHIRE, posted["id"], state="investigating")
    async with db.acquire(api.pool) as conn, conn.transaction():
        # their server goes on telling of the service request that the report once opened there
        assert await reroutes.tell(
            conn,
            UUID(posted["id"]),
            authority_id=api.authorities[WEST],
            detail={"state": "fixed"},
            key="open311:1",
        )
    report = await shown(api, posted["id"])
    assert report["status"] == "investigating"
    assert report["events"][-1]["authority"] == "West"


async def test_who_may_say_what(api: Api) -> None:
    posted = (await api.post_report(**BESIDE)).json()
    asked = {"state": "fixed"}
    assert slug(await update(api, WEST, posted["id"], key="app", **asked)) == "forbidden"
    assert slug(await update(api, WEST, posted["id"], key="other council", **asked)) == "forbidden"
    assert slug(await update(api, SHIRE, posted["id"], **asked)) == "not-found"
    assert slug(await update(api, WEST, str(UUID(int=1)), **asked)) == "not-found"
    await not_ours(api, WEST, posted["id"])
    await reroute(api)
    late = await update(api, WEST, posted["id"], update_id="9", **asked)
    assert slug(late) == "report-elsewhere"


@pytest.mark.parametrize(
    "body",
    [
        {"state": "closed"},
        {"state": "fixed", "reason": "duplicate"},
        {"state": "closed", "reason": "duplicate", "responsible": "X06000001"},
        {"state": "mended"},
        {"state": "fixed", "note": ""},
    ],
)
async def test_updates_that_make_no_sense(api: Api, body: dict[str, Any]) -> None:
    posted = (await api.post_report(**BESIDE)).json()
    assert slug(await update(api, WEST, posted["id"], **body)) == "validation-failed"


async def test_the_reporter_s_answer_moves_it(api: Api) -> None:
    await api.register(WEST)
    posted = (await api.post_report(**ON_BORDER)).json()
    assert posted["decision"]["question"] == "Is it in West or in Shire?"
    path = f"/v1/reports/{posted['id']}/answer"

    kept = (await post(api, path, {"chosen": WEST})).json()
    assert (kept["current"]["rule"], kept["state"]) == ("chosen", "queued")
    moved = (await post(api, path, {"chosen": SHIRE})).json()
    assert (moved["current"]["authority"]["name"], moved["state"]) == ("Shire", "held")
    assert [one["state"] for one in moved["deliveries"]] == ["cancelled"]
    again = (await post(api, path, {"chosen": SHIRE})).json()
    assert again == moved
    assert story(again) == [
        ("received", "West"),
        ("answered", None),
        ("answered", None),
        ("rerouted", "Shire"),
    ]
    back = (await post(api, path, {"chosen": WEST})).json()
    assert (back["state"], back["deliveries"][0]["state"]) == ("queued", "pending")

    assert slug(await post(api, path, {"chosen": VALE})) == "not-a-candidate"
    assert slug(await post(api, path, {})) == "validation-failed"
    assert slug(await post(api, path, {"chosen": WEST}, key="other app")) == "not-found"
    assert slug(await post(api, path, {"chosen": WEST}, key="operator")) == "forbidden"


async def messages(api: Api) -> list[tuple[str, Any]]:
    """What is due, as the webhooks get it: where, and what, held against the schema."""
    async with db.acquire(api.pool) as conn:
        claimed = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
    found = []
    for one in claimed:
        message = TypeAdapter[Any](Message).validate_json(payload(one))
        found.append((one.url, message))
        async with db.acquire(api.pool) as conn, conn.transaction():
            await outbox.settle(conn, one, policy.Delivered(status=200), policy.Next("delivered"))
    return sorted(found, key=lambda one: one[0])


async def test_who_has_the_report_is_told_of_the_answer(api: Api) -> None:
    await api.register(WEST, url="http://127.0.0.1:9/west")
    await api.register(SHIRE, url="http://127.0.0.1:9/shire")
    posted = (await api.post_report(**ON_BORDER)).json()
    path = f"/v1/reports/{posted['id']}/answer"
    [(url, created)] = await messages(api)
    assert (url[-5:], created.type, created.data.decision.state) == (
        "/west",
        "report.created",
        "ambiguous",
    )

    await post(api, path, {"chosen": WEST})
    [(url, updated)] = await messages(api)
    assert (url[-5:], updated.type, updated.sequence) == ("/west", "report.updated", 2)
    assert (updated.data.decision.state, updated.data.decision.rule) == ("certain", "chosen")

    await post(api, path, {"chosen": SHIRE})
    (shire, created), (west, withdrawn) = await messages(api)
    assert (shire[-6:], created.type) == ("/shire", "report.created")
    assert (west[-5:], withdrawn.type, withdrawn.sequence) == ("/west", "report.withdrawn", 3)
    assert withdrawn.data.authority.name == "Shire"

    await post(api, path, {"chosen": WEST})
    (shire, gone), (west, back) = await messages(api)
    assert (shire[-6:], gone.type) == ("/shire", "report.withdrawn")
    assert (west[-5:], back.type, back.sequence) == ("/west", "report.updated", 4)
    report = await shown(api, posted["id"])
    assert (report["state"], report["current"]["authority"]["name"]) == ("forwarded", "West")


async def test_the_same_answer_again_tells_nobody_anything(api: Api) -> None:
    await api.register(WEST)
    posted = (await api.post_report(**ON_BORDER)).json()
    path = f"/v1/reports/{posted['id']}/answer"
    await messages(api)
    for expected in (1, 0):
        assert (await post(api, path, {"chosen": WEST})).status_code == 200
        assert len(await messages(api)) == expected
    async with db.acquire(api.pool) as conn, conn.transaction():
        await reroutes.send_to_triage(conn, UUID(posted["id"]), reason="a test")
    assert (await shown(api, posted["id"]))["state"] == "with_operator"
    # said to somebody who waits for it, the same answer is one
    back = (await post(api, path, {"chosen": WEST})).json()
    assert (back["state"], back["current"]["authority"]["name"]) == ("forwarded", "West")


async def stored_answer(api: Api) -> tuple[str | None, str | None]:
    row = await api.pool.fetchrow("SELECT chosen, road_ref FROM report")
    return row["chosen"], row["road_ref"]


async def test_a_later_answer_replaces_the_one_before(api: Api) -> None:
    posted = (await api.post_report(**ON_BORDER)).json()
    path = f"/v1/reports/{posted['id']}/answer"
    await post(api, path, {"chosen": SHIRE})
    by_road = (await post(api, path, {"road_ref": "B1"})).json()
    assert by_road["current"]["authority"]["name"] == "West"
    assert await stored_answer(api) == (None, "B1")
    back = (await post(api, path, {"chosen": SHIRE})).json()
    assert back["current"]["authority"]["name"] == "Shire"
    assert await stored_answer(api) == (SHIRE, None)


async def test_an_answer_may_name_whom_only_the_named_road_has_brought_up(api: Api) -> None:
    # 35 m east of the point: out of reach, unless the reporter says that it is meant
    squares = (*SQUARES, Square("trunk", "A1-1", "A1", 0.5005, 0.51))
    index = index_of(squares)
    described = road_as_json(Road("A1", "NH", "National Highways"))
    layers = [{"name": "trunk", "roads": {"A1-1": described}}]
    dataset = Dataset("roads", {"version": "roads", "layers": layers}, index)
    api.shelf.datasets["roads"] = dataset
    async with db.acquire(api.pool) as conn:
        await activate(conn, dataset)
    await api.app.state.wiring.live.refresh(api.pool)
    posted = (await api.post_report(**IN_WEST, road_ref="A1")).json()
    assert posted["decision"]["rule"] == "road-ref"
    path = f"/v1/reports/{posted['id']}/answer"
    for _ in range(2):
        kept = (await post(api, path, {"chosen": "NH"})).json()
        assert kept["current"]["authority"]["name"] == "National Highways"
        assert await stored_answer(api) == ("NH", "A1")
    moved = (await post(api, path, {"chosen": WEST})).json()
    assert moved["current"]["authority"]["name"] == "West"
    assert await stored_answer(api) == (WEST, None)
    assert slug(await post(api, path, {"chosen": "NH"})) == "not-a-candidate"


async def test_two_processes_reroute_each_report_once(api: Api) -> None:
    ids = [(await api.post_report(**BESIDE)).json()["id"] for _ in range(12)]
    for report_id in ids:
        await not_ours(api, WEST, report_id)
    counts = await asyncio.gather(*(reroute(api) for _ in range(4)))
    assert sum(counts) == len(ids)
    for report_id in ids:
        assert (await shown(api, report_id))["current"]["authority"]["name"] == "Shire"
    assert await api.pool.fetchval("SELECT count(*) FROM held") == len(ids)


@pytest.mark.parametrize("by_way_of", ["the answer", "held"])
async def test_a_delivery_that_comes_back_lives_anew_and_keeps_its_doubt(
    api: Api, by_way_of: str
) -> None:
    await api.register(WEST)
    posted = (await api.post_report(**ON_BORDER)).json()["id"]
    path = f"/v1/reports/{posted}/answer"
    await send(api, policy.Deferred(status=None, why="cut", unsure=True))
    await post(api, path, {"chosen": SHIRE})
    await api.pool.execute("UPDATE delivery SET created_at = now() - interval '80 hours'")
    if by_way_of == "held":
        await api.pool.execute("UPDATE endpoint SET state = 'suspended'")
    back = (await post(api, path, {"chosen": WEST})).json()
    if by_way_of == "held":
        assert back["state"] == "held"
        await api.pool.execute("UPDATE endpoint SET state = 'active'")
        async with db.acquire(api.pool) as conn:
            assert await outbox.release_held(conn) == 1
    async with db.acquire(api.pool) as conn:
        [claimed] = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
    assert claimed.age_s < 60.0
    assert (claimed.unsure, claimed.attempt, claimed.tries) == (True, 2, 2)


async def test_one_that_cannot_be_routed_again_holds_up_no_other(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, fine = [(await api.post_report(**BESIDE)).json()["id"] for _ in range(2)]
    for report_id in (broken, fine):
        await not_ours(api, WEST, report_id)
    live = api.app.state.wiring.live
    decide = live.current.decide

    def fails_on_the_first(asked: Any, **rest: Any) -> Any:
        if asked == rerouting.Asked.of(first):
            raise KeyError("what nobody expected")
        return decide(asked, **rest)

    await api.pool.execute("UPDATE report SET accuracy_m = 7 WHERE id = $1", UUID(broken))
    first = await api.pool.fetchrow("SELECT * FROM report WHERE id = $1", UUID(broken))
    monkeypatch.setattr(live.current, "decide", fails_on_the_first)
    assert await reroute(api) == 2
    report = await shown(api, broken)
    assert report["state"] == "with_operator"
    assert report["events"][-1]["reason"] == rerouting.FAULT
    assert (await shown(api, fine))["current"]["authority"]["name"] == "Shire"
    [line] = [
        json.loads(one) for one in capsys.readouterr().err.splitlines() if "not routed again" in one
    ]
    assert (line["report"], line["exception"][0]["type"]) == (broken, "builtins.KeyError")


async def moved_to_shire(api: Api, *, delivered: bool) -> tuple[str, str]:
    """A report that West had, and Shire has now; it, and the path of Shire's endpoint."""
    await api.register(WEST, url="http://127.0.0.1:9/west")
    shire = await api.register(SHIRE, url="http://127.0.0.1:9/shire")
    posted = (await api.post_report(**ON_BORDER)).json()["id"]
    if delivered:
        await send(api, policy.Delivered(status=200))
    await post(api, f"/v1/reports/{posted}/answer", {"chosen": SHIRE})
    return posted, shire.headers["location"]


@pytest.mark.parametrize("delivered", [True, False])
async def test_an_endpoint_that_goes_leaves_what_came_from_another_authority_held(
    api: Api, *, delivered: bool
) -> None:
    posted, endpoint = await moved_to_shire(api, delivered=delivered)
    assert (await api.delete(endpoint)).status_code == 204
    report = await shown(api, posted)
    assert (report["state"], report["current"]["authority"]["name"]) == ("held", "Shire")


async def test_an_endpoint_that_goes_takes_nothing_back_that_was_refused(api: Api) -> None:
    west = (await api.register(WEST)).headers["location"]
    waiting, queued = [(await api.post_report(**IN_WEST)).json()["id"] for _ in range(2)]
    await not_ours(api, WEST, queued)
    await reroute(api)
    await not_ours(api, WEST, waiting)
    assert (await api.delete(west)).status_code == 204
    assert await api.pool.fetchval("SELECT count(*) FROM held") == 0
    assert (await shown(api, queued))["state"] == "with_operator"
    assert (await shown(api, waiting))["state"] == "queued"


# --- authorities that end -------------------------------------------------------------------------


@pytest.fixture
async def ending(database_url: str, pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Api]:
    """Shire and Vale ended at the beginning of 2026; the web process lives the second before."""
    (tmp_path / "successions.toml").write_text(HALVES, encoding="utf-8")
    async with serving(database_url, pool, rules=tmp_path, clock=lambda: BEFORE) as api:
        yield api


def later(api: Api) -> LiveRouting:
    """The routing of a process that lives after the day."""
    rules = api.app.state.wiring.live.rules
    return LiveRouting(rules=rules, clock=lambda: AFTER, open_version=api.shelf.open)


async def know(api: Api, code: str) -> None:
    """Have an authority that the rules brought with them among those that tests name."""
    [listed] = (await api.get("/v1/authorities", code=code)).json()["items"]
    api.authorities = {**api.authorities, code: UUID(listed["id"])}


async def test_on_the_day_what_was_not_delivered_goes_to_the_successor(ending: Api) -> None:
    api = ending
    await know(api, "NEW-SHIRE")
    await api.register(SHIRE, url="http://127.0.0.1:9/old")
    assert (await api.register("NEW-SHIRE", url="http://127.0.0.1:9/new")).status_code == 201
    done = (await api.post_report(**IN_SHIRE)).json()["id"]
    await send(api, policy.Delivered(status=200))
    waiting = (await api.post_report(**IN_SHIRE)).json()["id"]
    held = (await api.post_report(**IN_SHIRE, category="litter")).json()["id"]
    assert (await shown(api, waiting))["decision"]["authority"]["name"] == "Shire"

    live = later(api)
    await live.refresh(api.pool)
    async with db.acquire(api.pool) as conn, conn.transaction():
        assert await reroutes.wind_up(conn) == 2
    assert await rerouting.reroute_all(api.pool, live) == 2
    async with db.acquire(api.pool) as conn, conn.transaction():
        assert await reroutes.wind_up(conn) == 0

    for report_id in (waiting, held):
        report = await shown(api, report_id)
        assert report["state"] == "queued"
        assert report["current"]["authority"]["name"] == "New Shire"
        assert report["current"]["rule"] == "successor"
        assert [event["kind"] for event in report["events"]] == ["received", "rerouted"]
    assert (await shown(api, done))["state"] == "forwarded"
    states = await api.pool.fetch("SELECT url, state FROM endpoint ORDER BY url DESC")
    assert [tuple(row) for row in states] == [
        ("http://127.0.0.1:9/old", "deleted"),
        ("http://127.0.0.1:9/new", "active"),
    ]


async def test_a_successor_speaks_of_what_its_predecessor_was_given(ending: Api) -> None:
    api = ending
    await know(api, "NEW-SHIRE")
    await api.register(SHIRE)
    posted = (await api.post_report(**IN_SHIRE)).json()["id"]
    await send(api, policy.Delivered(status=200))
    live = later(api)
    await live.refresh(api.pool)
    async with db.acquire(api.pool) as conn, conn.transaction():
        await reroutes.wind_up(conn)

    said = await update(api, "NEW-SHIRE", posted, state="investigating")
    assert (said.status_code, said.json()["authority"]) == (201, "New Shire")
    repeated = await update(api, "NEW-SHIRE", posted, state="investigating")
    assert (repeated.status_code, repeated.json()) == (200, said.json())
    report = await shown(api, posted)
    assert (report["state"], report["status"]) == ("forwarded", "investigating")
    assert report["current"]["authority"]["name"] == "Shire"
    assert slug(await update(api, WEST, posted, state="fixed")) == "not-found"

    refused = await not_ours(api, "NEW-SHIRE", posted, update_id="2", responsible=WEST)
    assert (refused.status_code, refused.json()["authority"]) == (201, "New Shire")
    assert await rerouting.reroute_all(api.pool, live) == 1
    report = await shown(api, posted)
    assert (report["current"]["authority"]["name"], report["status"]) == ("West", None)
    late = await update(api, "NEW-SHIRE", posted, update_id="3", state="fixed")
    assert slug(late) == "not-found"


async def test_a_successor_to_be_has_no_say_yet(api: Api) -> None:
    posted = (await api.post_report(**IN_SHIRE)).json()["id"]
    async with db.acquire(api.pool) as conn:
        tomorrow = await conn.fetchval("SELECT now() + interval '1 day'")
        handover = authorities.Handover(SHIRE, WEST, tomorrow, "the order")
        await authorities.establish(conn, [], [handover])
    assert slug(await update(api, WEST, posted, state="fixed")) == "not-found"
    await api.pool.execute("UPDATE authority SET valid_to = now() WHERE name = 'Shire'")
    assert (await update(api, WEST, posted, state="fixed")).status_code == 201


async def test_dates_are_midnights_in_london(ending: Api) -> None:
    rows = await ending.pool.fetch("SELECT name, valid_from, valid_to FROM authority ORDER BY name")
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    assert [tuple(row) for row in rows] == [
        ("New Shire", midnight, None),
        ("Shire", None, midnight),
        ("Vale", None, midnight),
        ("West", None, None),
    ]


async def test_a_corrected_date_replaces_the_one_before(ending: Api) -> None:
    handover = authorities.Handover(
        SHIRE, "NEW-SHIRE", datetime(2027, 3, 31, 23, tzinfo=UTC), "the order, corrected"
    )
    async with db.acquire(ending.pool) as conn:
        for _ in range(2):
            assert await authorities.establish(conn, [], [handover]) == 0
        ends = await conn.fetchval("SELECT valid_to FROM authority WHERE name = 'Shire'")
        reasons = await conn.fetch("SELECT reason FROM succession ORDER BY reason")
    assert ends == handover.at
    assert [row["reason"] for row in reasons] == ["the order", "the order, corrected"]


async def successions(pool: asyncpg.Pool) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """From when to when each authority is that has a day, and who follows whom, by their names."""
    days = await pool.fetch(
        "SELECT name, valid_from, valid_to FROM authority "
        "WHERE valid_from IS NOT NULL OR valid_to IS NOT NULL"
    )
    pairs = await pool.fetch(
        """
        SELECT before.name, after.name
        FROM succession
        JOIN authority AS before ON before.id = predecessor_id
        JOIN authority AS after ON after.id = successor_id
        """
    )
    return {name: (begins, ends) for name, begins, ends in days}, {tuple(row) for row in pairs}


async def test_a_succession_to_come_that_is_taken_back_is_undone(api: Api) -> None:
    day = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)  # noqa: TID251
    later_day = day + timedelta(days=30)
    to_west = authorities.Handover(SHIRE, WEST, day, "one order")
    onward = authorities.Handover(WEST, VALE, later_day, "another")
    async with db.acquire(api.pool) as conn:
        await authorities.establish(conn, [], [to_west, onward])
        assert await successions(api.pool) == (
            {"Shire": (None, day), "West": (day, later_day), "Vale": (later_day, None)},
            {("Shire", "West"), ("West", "Vale")},
        )
        await authorities.establish(conn, [], None)  # who knows no rules changes nothing
        await authorities.establish(conn, [], [replace(to_west, successor=VALE, at=later_day)])
        assert await successions(api.pool) == (
            {"Shire": (None, later_day), "Vale": (later_day, None)},
            {("Shire", "Vale")},
        )
        await authorities.establish(conn, [], [])
    assert await successions(api.pool) == ({}, set())


async def test_what_has_happened_stays_whatever_the_rules_say(ending: Api) -> None:
    before = await successions(ending.pool)
    assert before[1] == {("Shire", "New Shire"), ("Vale", "New Shire")}
    async with db.acquire(ending.pool) as conn:
        await authorities.establish(conn, [], [])
    assert await successions(ending.pool) == before


async def test_a_place_can_be_asked_about_another_day(ending: Api) -> None:
    asked = {**IN_SHIRE, "category": "pothole"}
    before = (await ending.get("/v1/locate", **asked)).json()
    after = (await ending.get("/v1/locate", **asked, as_of="2027-01-01")).json()
    assert (before["authority"]["name"], before["as_of"]) == ("Shire", "2025-12-31")
    assert (after["authority"]["name"], after["rule"]) == ("New Shire", "successor")
    assert after["candidates"][0]["succeeds"] == SHIRE


async def test_another_day_has_its_own_dataset(api: Api) -> None:
    moved = Square("highway", "X06000009", "North", 0.0, 2.0)
    planned = api.shelf.put("squares-2", (moved, Square("district", "D", "D", 0.0, 2.0)))
    async with db.acquire(api.pool) as conn:
        await activate(conn, planned, from_at=datetime(2027, 3, 31, 23, tzinfo=UTC))
    names = {}
    for day in ("2027-03-31", "2027-04-01", "2030-01-01"):
        asked = {**IN_WEST, "category": "pothole", "as_of": day}
        names[day] = (await api.get("/v1/locate", **asked)).json()["authority"]["name"]
    assert names == {"2027-03-31": "West", "2027-04-01": "North", "2030-01-01": "North"}
    early = await api.get("/v1/locate", **IN_WEST, category="pothole", as_of="2020-01-01")
    assert (early.status_code, slug(early)) == (422, "validation-failed")
    wrong = await api.get("/v1/locate", **IN_WEST, category="pothole", as_of="1 April")
    assert slug(wrong) == "validation-failed"


async def test_an_authority_that_ends_without_successor_goes_to_an_operator(api: Api) -> None:
    posted = (await api.post_report(**IN_WEST)).json()["id"]
    await api.pool.execute("UPDATE authority SET valid_to = now() WHERE name = 'West'")
    async with db.acquire(api.pool) as conn, conn.transaction():
        assert await reroutes.wind_up(conn) == 1
    await reroute(api)
    report = await shown(api, posted)
    assert report["state"] == "with_operator"
    assert report["events"][-1]["reason"] == "West is over, and the rules name no successor"


# --- explanations ---------------------------------------------------------------------------------


async def explained(api: Api, report_id: str, live: LiveRouting) -> Any:
    async with db.acquire(api.pool) as conn:
        return await explain(
            conn,
            UUID(report_id),
            rules=live.rules,
            today=live.today(),
            open_version=api.shelf.open,
        )


async def test_a_decision_is_explained_and_replayed(ending: Api) -> None:
    posted = (await ending.post_report(**IN_SHIRE)).json()["id"]

    same = await explained(ending, posted, ending.app.state.wiring.live)
    other = await explained(ending, posted, later(ending))

    text = "\n".join(same.sentences)
    assert "pothole at 1.500000, 50.500000" in text
    assert "Shire is responsible (certain, rule covering-area, dataset squares-1" in text
    assert "Replayed by the same dataset: the same body (certain, rule covering-area)." in text
    assert same.same_today is True
    assert other.same_today is False
    assert "today's dataset, squares-1: New Shire (certain, rule successor)" in other.sentences[-1]
    assert await explained(ending, str(UUID(int=7)), later(ending)) is None


async def test_a_refusal_after_the_decision_does_not_change_its_replay(api: Api) -> None:
    posted = (await api.post_report(**BESIDE)).json()["id"]
    await not_ours(api, WEST, posted)
    live = api.app.state.wiring.live
    waiting = "\n".join((await explained(api, posted, live)).sentences)
    assert "the same dataset: the same body (ambiguous, rule near-border)" in waiting
    await reroute(api)
    moved = "\n".join((await explained(api, posted, live)).sentences)
    assert "Shire is responsible (ambiguous, rule not-ours" in moved
    assert "the same dataset: the same body (ambiguous, rule not-ours)" in moved


async def test_a_choice_that_is_none_any_more_does_not_stop_a_replay(api: Api) -> None:
    posted = (await api.post_report(**BESIDE, chosen=WEST)).json()["id"]
    await not_ours(api, WEST, posted)
    await reroute(api)
    live = api.app.state.wiring.live
    refused = "\n".join((await explained(api, posted, live)).sentences)
    assert "the same dataset: the same body (ambiguous, rule not-ours)" in refused

    await api.pool.execute("UPDATE report SET chosen = $1", VALE)
    moved = await explained(api, posted, live)
    assert "the same dataset: the same body (ambiguous, rule not-ours)" in "\n".join(
        moved.sentences
    )
    assert moved.same_today is True


async def test_an_explanation_without_the_old_dataset(api: Api) -> None:
    posted = (await api.post_report()).json()["id"]
    async with db.acquire(api.pool) as conn:
        await activate(conn, api.shelf.put("squares-2"))
    del api.shelf.datasets["squares-1"]
    found = await explained(api, posted, api.app.state.wiring.live)
    text = "\n".join(found.sentences)
    assert "Replayed by the same dataset: not possible; squares-1 is not on the shelf." in text
    assert found.same_today is True


def georouter(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.cli", *arguments],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.defpath, "GEOROUTER_DATABASE_URL": database_url, "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_the_command_explains(api: Api, database_url: str) -> None:
    posted = (await api.post_report()).json()["id"]
    done = await asyncio.to_thread(georouter, database_url, "explain", posted)
    assert (done.returncode, done.stderr) == (0, "")
    assert "West is responsible (certain, rule covering-area" in done.stdout
    # the squares are on no disk
    assert "Replayed by the same dataset: not possible; /" in done.stdout
    assert "/datasets/squares-1 is no dataset" in done.stdout
    as_json = await asyncio.to_thread(georouter, database_url, "explain", posted, "--json")
    assert json.loads(as_json.stdout)["same_today"] is None
    unknown = await asyncio.to_thread(georouter, database_url, "explain", str(UUID(int=1)))
    assert (unknown.returncode, unknown.stdout) == (4, "")
    wrong = await asyncio.to_thread(georouter, database_url, "explain", "the pothole")
    assert wrong.returncode == 2
    assert "is no report id" in wrong.stderr
