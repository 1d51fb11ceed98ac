"""Sending a delivery again, one or a span of time, while others work on it, delete or hand over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api import db
from api.delivery import outbox, policy
from api.delivery.outbox import Claimed
from api.delivery.policy import Deferred, Delivered, Next, NotOurs, Outcome, Rejected
from api.store import deliveries, endpoints, reroutes
from tests.support.app import INTAKE, SHIRE, WEST, Api, slug

SENT = Delivered(status=200, reference="W-1")
NO = Rejected(status=400, why="answered 400")
LATER = Deferred(status=503, why="answered 503")
UPDATED = {"type": "report.updated", "data": {"status": "mended"}}


async def claim(api: Api, *, lease_s: float = 60.0) -> list[Claimed]:
    async with db.acquire(api.pool) as conn:
        return await outbox.claim(conn, worker=1, limit=99, lease_s=lease_s, per_endpoint=99)


async def settle(api: Api, claimed: Claimed, outcome: Outcome, state: Any) -> bool:
    async with db.acquire(api.pool) as conn, conn.transaction():
        return await outbox.settle(conn, claimed, outcome, Next(state))


async def ended(api: Api, outcome: Outcome = NO, state: str = "dead") -> Claimed:
    """A report of West's whose delivery has come to this end."""
    await api.register(WEST)
    assert (await api.post_report()).status_code == 201
    [claimed] = await claim(api)
    assert await settle(api, claimed, outcome, state)
    return claimed


def path(api: Api, code: str = WEST) -> str:
    return f"/v1/authorities/{api.authorities[code]}/deliveries"


async def redeliver(
    api: Api, delivery_id: UUID, *, key: str = "council", code: str = WEST
) -> httpx.Response:
    return await api.client.post(
        f"{path(api, code)}/{delivery_id}/redeliver", headers=api.headers(key)
    )


async def redeliver_many(api: Api, *, key: str = "council", **body: Any) -> httpx.Response:
    hour = timedelta(hours=1)
    now = datetime.now(UTC)  # noqa: TID251 - the database's clock is the real one
    span = {"from": (now - hour).isoformat(), "to": (now + hour).isoformat()}
    return await api.client.post(
        f"{path(api)}/redeliver", json={**span, **body}, headers=api.headers(key)
    )


async def waits_for_a_lock(api: Api, task: asyncio.Future[Any]) -> None:
    """Return as soon as somebody waits for a row."""
    while not await api.pool.fetchval(
        """
        SELECT EXISTS (SELECT FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock')
        """
    ):
        assert not task.done()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("outcome", "state"), [(SENT, "delivered"), (NO, "dead"), (Deferred(why="x"), "cancelled")]
)
async def test_what_has_ended_is_sent_again_under_its_id(
    api: Api, outcome: Outcome, state: str
) -> None:
    first = await ended(api, outcome, state)
    await api.pool.execute("UPDATE delivery SET created_at = now() - interval '9 days'")
    assert await claim(api) == []
    answer = await redeliver(api, first.delivery_id)
    assert answer.status_code == 202
    shown = answer.json()
    assert (shown["id"], shown["state"]) == (str(first.delivery_id), "pending")
    assert shown["settled_at"] is None
    assert shown["redelivered_at"] is not None
    assert len(shown["attempts"]) == 1
    [again] = await claim(api)
    assert again.delivery_id == first.delivery_id
    assert (again.attempt, again.tries, again.rejections) == (2, 1, 0)
    assert 0 <= again.age_s < 60
    assert await settle(api, again, SENT, "delivered")
    [listed] = (await api.get(path(api), key="council")).json()["items"]
    assert (listed["state"], listed["reference"], len(listed["attempts"])) == (
        "delivered",
        "W-1",
        2,
    )
    [entry] = await api.pool.fetch("SELECT * FROM audit WHERE action LIKE 'deliver%'")
    assert (entry["target"], entry["detail"]) == (first.delivery_id, {"was": state})
    assert entry["authority_id"] == api.authorities[WEST]
    assert entry["api_key_id"] is not None


async def test_it_is_tried_as_often_as_a_new_one(api: Api) -> None:
    dead = await ended(api)
    await redeliver(api, dead.delivery_id)
    for rejections in range(policy.MAX_REJECTIONS):
        await api.pool.execute("UPDATE delivery SET due_at = now()")
        [one] = await claim(api)
        assert (one.tries, one.rejections) == (rejections + 1, rejections)
        following = policy.after(
            NO, attempt=one.tries, age_s=one.age_s, jitter=1, rejections=one.rejections
        )
        assert following.delay_s in {0.0, policy.SCHEDULE_S[rejections]}
        assert await settle(api, one, NO, following.state)
    assert following.state == "dead"


async def test_what_cannot_be_sent_again(api: Api) -> None:
    async def refused(delivery_id: UUID) -> str:
        answer = await redeliver(api, delivery_id)
        assert (answer.status_code, slug(answer)) == (409, "not-redeliverable")
        return str(answer.json()["detail"])

    dead = (await ended(api)).delivery_id
    assert (await redeliver(api, dead)).status_code == 202
    assert await refused(dead) == "it is on its way already"
    [one] = await claim(api)
    assert await refused(dead) == "it is on its way already"
    await settle(api, one, NotOurs(why="not theirs"), "cancelled")
    assert "is not with this authority any more" in await refused(dead)  # being routed again
    async with db.acquire(api.pool) as conn, conn.transaction():
        await reroutes.lock_report(conn, one.report_id)
        await reroutes.send_to_triage(conn, one.report_id, reason="nobody")
    assert "is not with this authority any more" in await refused(dead)
    given = await api.client.post(
        f"/v1/triage/{one.report_id}/assign",
        json={"authority": SHIRE},
        headers=api.headers("operator"),
    )
    assert given.status_code == 204
    assert "is not with this authority any more" in await refused(dead)
    endpoint = f"/v1/authorities/{api.authorities[WEST]}/endpoints/{one.endpoint_id}"
    assert (await api.delete(endpoint)).status_code == 204
    assert "its endpoint is deleted" in await refused(dead)
    assert await api.pool.fetchval("SELECT state FROM delivery") == "cancelled"
    assert (await redeliver_many(api, states=["cancelled", "dead"])).json()["count"] == 0


async def test_who_may_send_again(api: Api) -> None:
    dead = (await ended(api)).delivery_id
    for key in ("app", "other council"):
        assert slug(await redeliver(api, dead, key=key)) == "forbidden"
        assert slug(await redeliver_many(api, key=key)) == "forbidden"
    assert slug(await redeliver(api, dead, key="other council", code=SHIRE)) == "not-found"
    assert slug(await redeliver(api, uuid4())) == "not-found"
    assert await claim(api) == []
    assert (await redeliver(api, dead, key="operator")).status_code == 202


async def test_a_paused_endpoint_gets_it_when_it_is_back(api: Api) -> None:
    dead = (await ended(api)).delivery_id
    await api.pool.execute("UPDATE endpoint SET state = 'suspended'")
    assert (await redeliver(api, dead)).status_code == 202
    assert await claim(api) == []
    await api.pool.execute("UPDATE endpoint SET state = 'active'")
    assert [one.delivery_id for one in await claim(api)] == [dead]


# --- at the same time -----------------------------------------------------------------------------


async def test_of_several_at_once_one_does_it(api: Api) -> None:
    dead = (await ended(api)).delivery_id
    answers = await asyncio.gather(*(redeliver(api, dead) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert len(await claim(api)) == 1
    assert await api.pool.fetchval("SELECT count(*) FROM audit WHERE action LIKE 'deliver%'") == 1


async def test_a_late_worker_changes_nothing_after_a_redelivery(api: Api) -> None:
    await api.register(WEST)
    await api.post_report()
    [late] = await claim(api, lease_s=0)
    [second] = await claim(api)
    assert await settle(api, second, NO, "dead")
    assert (await redeliver(api, second.delivery_id)).status_code == 202
    assert not await settle(api, late, SENT, "delivered")
    assert not await settle(api, second, SENT, "delivered")
    [third] = await claim(api)
    assert (third.attempt, third.tries, third.unsure) == (3, 1, False)
    assert not await settle(api, late, SENT, "delivered")
    assert await api.pool.fetchval("SELECT state FROM delivery") == "leased"
    assert await settle(api, third, SENT, "delivered")
    outcomes = await api.pool.fetch("SELECT outcome FROM attempt ORDER BY n")
    assert [row["outcome"] for row in outcomes] == [None, "rejected", "delivered"]


async def test_a_settlement_and_a_redelivery_at_once(api: Api) -> None:
    await api.register(WEST)
    await api.post_report()
    [one] = await claim(api)
    async with db.acquire(api.pool) as conn, conn.transaction():
        await outbox.settle(conn, one, NO, Next("dead"))
        racing = asyncio.ensure_future(redeliver(api, one.delivery_id))
        await waits_for_a_lock(api, racing)
    # It waited, and saw how it ended.
    assert (await racing).status_code == 202


async def test_a_deletion_and_a_redelivery_at_once_lose_nothing(api: Api) -> None:
    dead = await ended(api)
    ids = {"authority_id": api.authorities[WEST], "endpoint_id": dead.endpoint_id}
    async with db.acquire(api.pool) as conn:
        undone = conn.transaction()
        await undone.start()
        await endpoints.delete_endpoint(conn, **ids)
        racing = asyncio.ensure_future(redeliver(api, dead.delivery_id))
        await waits_for_a_lock(api, racing)
        await undone.rollback()
    assert (await racing).status_code == 202

    async with db.acquire(api.pool) as conn:
        async with conn.transaction():
            await endpoints.delete_endpoint(conn, **ids)
            racing = asyncio.ensure_future(redeliver(api, dead.delivery_id))
            await waits_for_a_lock(api, racing)
        assert slug(await racing) == "not-redeliverable"
        assert await conn.fetchval("SELECT report_id FROM held") == dead.report_id


async def test_a_deletion_that_waits_for_a_redelivery_holds_the_report(api: Api) -> None:
    dead = await ended(api)
    endpoint = f"/v1/authorities/{api.authorities[WEST]}/endpoints/{dead.endpoint_id}"
    async with db.acquire(api.pool) as conn:
        async with conn.transaction():
            await deliveries.lock(
                conn, authority_id=api.authorities[WEST], delivery_ids=[dead.delivery_id]
            )
            await deliveries.restart(conn, [dead.delivery_id], patience_s=1.0)
            racing = asyncio.ensure_future(api.delete(endpoint))
            await waits_for_a_lock(api, racing)
        assert (await racing).status_code == 204
        assert await conn.fetchval("SELECT state FROM delivery") == "cancelled"
        assert await conn.fetchval("SELECT report_id FROM held") == dead.report_id


async def test_a_report_that_changes_hands_meanwhile_is_not_sent_again(api: Api) -> None:
    sent = await ended(api, SENT, "delivered")
    async with db.acquire(api.pool) as conn, conn.transaction():
        assert await reroutes.say_not_ours(
            conn,
            sent.report_id,
            authority_id=api.authorities[WEST],
            named=None,
            note=None,
            key="k",
        )
        racing = asyncio.ensure_future(redeliver(api, sent.delivery_id))
        await waits_for_a_lock(api, racing)
    assert slug(await racing) == "not-redeliverable"


async def test_everything_at_once_ends_well(api: Api) -> None:
    """Redeliveries, claims and settlements of many: no deadlock, no lost one, no second lease."""
    await api.register(WEST)
    await asyncio.gather(*(api.post_report(description=f"hole {n}") for n in range(30)))
    for one in await claim(api):
        await settle(api, one, NO, "dead")
    seen: list[Claimed] = []

    async def work() -> None:
        for _ in range(8):
            for one in await claim(api):
                seen.append(one)
                assert await settle(api, one, SENT, "delivered")

    counts = await asyncio.gather(*(redeliver_many(api) for _ in range(4)), work(), work())
    await work()
    assert sum(answer.json()["count"] for answer in counts[:4]) == 30  # type: ignore[union-attr]
    assert len(seen) == len({one.delivery_id for one in seen}) == 30


# --- order ----------------------------------------------------------------------------------------


async def test_what_follows_a_report_waits_for_it_again(api: Api) -> None:
    first = await ended(api, SENT, "delivered")
    async with db.acquire(api.pool) as conn:
        await outbox.owe_event(conn, first.report_id, UPDATED)
        await outbox.owe_event(conn, first.report_id, UPDATED)
    [second] = await claim(api)
    await settle(api, second, NO, "dead")
    # The third is due now and has not been tried: it waits for what is redelivered before it.
    answer = await redeliver_many(api, states=["dead", "delivered"])
    assert answer.json() == {"count": 2, "more": False}
    for sequence in (1, 2, 3):
        [one] = await claim(api)
        assert (one.delivery_id == first.delivery_id) == (sequence == 1)
        assert one.sequence == sequence
        assert await claim(api) == []
        await settle(api, one, SENT, "delivered")
    assert await claim(api) == []


async def test_a_later_one_alone_waits_for_the_one_on_its_way(api: Api) -> None:
    first = await ended(api, SENT, "delivered")
    async with db.acquire(api.pool) as conn:
        await outbox.owe_event(conn, first.report_id, UPDATED)
    [second] = await claim(api)
    await settle(api, second, NO, "dead")
    await redeliver(api, first.delivery_id)
    [again] = await claim(api)
    assert again.delivery_id == first.delivery_id
    await redeliver(api, second.delivery_id)
    assert await claim(api) == []
    await settle(api, again, SENT, "delivered")
    assert [one.delivery_id for one in await claim(api)] == [second.delivery_id]


# --- a span of time -------------------------------------------------------------------------------


async def several(api: Api) -> list[UUID]:
    """Five dead deliveries that ended at 10:00, 11:00, ... 14:00 of a day, the oldest first."""
    await api.register(WEST)
    for n in range(5):
        await api.post_report(description=f"hole {n}")
    claimed = await claim(api)
    for hour, one in enumerate(claimed, start=10):
        await settle(api, one, NO, "dead")
        await api.pool.execute(
            "UPDATE delivery SET settled_at = $2 WHERE id = $1",
            one.delivery_id,
            datetime(2026, 11, 2, hour, tzinfo=UTC),
        )
    return [one.delivery_id for one in claimed]


async def due(api: Api) -> set[UUID]:
    found = await api.pool.fetch("SELECT id FROM delivery WHERE state = 'pending'")
    return {row["id"] for row in found}


async def test_a_span_of_time(api: Api) -> None:
    ids = await several(api)
    span = {"from": "2026-11-02T11:00:00Z", "to": "2026-11-02T14:00:00+01:00"}
    assert (await redeliver_many(api, **span, states=["delivered"])).json()["count"] == 0
    answer = await redeliver_many(api, **span)
    assert (answer.status_code, answer.json()) == (202, {"count": 2, "more": False})
    assert await due(api) == set(ids[1:3])
    assert (await redeliver_many(api, **span)).json()["count"] == 0
    [entry] = await api.pool.fetch("SELECT detail FROM audit WHERE action LIKE 'deliver%'")
    assert entry["detail"] == {
        "from": "2026-11-02T11:00:00Z",
        "to": "2026-11-02T13:00:00Z",
        "states": ["dead"],
        "count": 2,
    }


async def test_one_request_takes_so_many(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "BATCH", 2)
    ids = await several(api)
    span = {"from": "2026-11-02T00:00:00Z", "to": "2026-11-03T00:00:00Z"}
    told = [(await redeliver_many(api, **span)).json() for _ in range(3)]
    assert [(one["count"], one["more"]) for one in told] == [(2, True), (2, True), (1, False)]
    assert await due(api) == set(ids)


async def test_only_what_may_be_sent_again_counts(api: Api) -> None:
    ids = await several(api)
    other = (await api.register(WEST, url=INTAKE + "/2")).json()["id"]
    reports = await api.pool.fetch("SELECT report_id FROM delivery ORDER BY settled_at")
    await api.pool.execute("INSERT INTO triage VALUES ($1, now(), 'x')", reports[0]["report_id"])
    await api.pool.execute("INSERT INTO reroute VALUES ($1, now())", reports[1]["report_id"])
    await api.pool.execute(
        "UPDATE report SET authority_id = $2 WHERE id = $1",
        reports[2]["report_id"],
        api.authorities[SHIRE],
    )
    span = {"from": "2026-11-02T00:00:00Z", "to": "2026-11-03T00:00:00Z"}
    assert (await redeliver_many(api, **span, endpoint_id=other)).json()["count"] == 0
    assert (await redeliver_many(api, **span)).json()["count"] == 2
    assert await due(api) == set(ids[3:])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"from": "2026-11-02"}, "from"),
        ({"to": 5}, "to"),
        ({"to": "0001-01-01T00:00:00Z"}, "body"),
        ({"states": []}, "states"),
        ({"states": ["pending"]}, "states.0"),
        ({"endpoint_id": "x"}, "endpoint_id"),
        ({"since": "2026-11-02T00:00:00Z"}, "since"),
    ],
)
async def test_spans_that_make_no_sense(api: Api, body: dict[str, Any], field: str) -> None:
    answer = await redeliver_many(api, **body)
    assert slug(answer) == "validation-failed"
    assert [one["field"] for one in answer.json()["errors"]] == [field]


# --- what is listed -------------------------------------------------------------------------------


async def test_filters(api: Api) -> None:
    first = await ended(api)
    await api.register(WEST, url=INTAKE + "/2")
    await api.post_report(description="another")
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 3),
        ({"state": "dead"}, 1),
        ({"endpoint_id": first.endpoint_id}, 2),
        ({"endpoint_id": first.endpoint_id, "state": "pending"}, 1),
        ({"report_id": first.report_id}, 1),
        ({"report_id": uuid4()}, 0),
    ]
    for asked, count in cases:
        page = (await api.get(path(api), key="council", **asked)).json()
        assert len(page["items"]) == count
    only = {"limit": 1, "endpoint_id": first.endpoint_id}
    page = (await api.get(path(api), key="council", **only)).json()
    rest = await api.get(path(api), key="council", **only, cursor=page["next_cursor"])
    assert [one["report_id"] for one in rest.json()["items"]] == [str(first.report_id)]
    assert slug(await api.get(path(api), key="council", report_id="x")) == "validation-failed"
