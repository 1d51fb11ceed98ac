"""Councils running their own intake: endpoints, what is released to them, and what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from api import db
from api.delivery import outbox
from tests.support.app import INTAKE, SHIRE, WEST, Api, slug

EXPECTED_ROLES = {
    "app": 403,
    "other app": 403,
    "council": None,
    "other council": 403,
    "operator": None,
}


def intake(api: Api, code: str = WEST) -> str:
    return f"/v1/authorities/{api.authorities[code]}/endpoints"


async def state_of(api: Api, response: httpx.Response) -> str:
    return str((await api.get(response.json()["links"]["self"])).json()["state"])


async def test_registration_shows_the_secret_once(api: Api) -> None:
    response = await api.register(key="council", verified=False)
    assert response.status_code == 201
    endpoint = response.json()
    assert response.headers["location"] == f"{intake(api)}/{endpoint['id']}"
    assert endpoint["secret"].startswith("whsec_")
    assert response.headers["cache-control"] == "no-store"
    assert (endpoint["state"], endpoint["url"], endpoint["released"]) == ("pending", INTAKE, 0)
    listed = (await api.get(intake(api), key="council")).json()["items"]
    one = (await api.get(response.headers["location"], key="council")).json()
    assert listed == [one]
    assert one == {
        name: value for name, value in endpoint.items() if name not in {"secret", "released"}
    }


async def test_what_is_held_goes_to_an_active_endpoint_only(api: Api) -> None:
    held = [await api.post_report(description=f"hole {n}") for n in range(3)]
    other = await api.post_report(lon=1.5)
    await api.register(verified=False)
    async with db.acquire(api.pool) as conn:
        assert await outbox.release_held(conn) == 0
    assert [await state_of(api, one) for one in held] == ["held"] * 3
    await api.register(url=INTAKE + "/2")
    rows = {"report": 4, "idempotency": 4, "held": 1, "delivery": 3, "endpoint": 2}
    assert await api.rows() == rows
    assert [await state_of(api, one) for one in held] == ["queued"] * 3
    assert await state_of(api, other) == "held"


@pytest.mark.parametrize("key", EXPECTED_ROLES)
async def test_who_may_manage_an_intake(api: Api, key: str) -> None:
    path = f"{intake(api)}/{(await api.register()).json()['id']}"
    paused = f"{intake(api)}/{(await api.register(url=INTAKE + '/3')).json()['id']}"
    deliveries = f"/v1/authorities/{api.authorities[WEST]}/deliveries"
    calls: list[tuple[Callable[[], Awaitable[httpx.Response]], int]] = [
        (lambda: api.register(key=key, url=INTAKE + "/2"), 201),
        (lambda: api.get(intake(api), key=key), 200),
        (lambda: api.get(path, key=key), 200),
        (lambda: api.get(deliveries, key=key), 200),
        (lambda: api.patch(path, key=key, fallback=False), 200),
        (lambda: api.post(f"{path}/verify", key=key), 409),
        (lambda: api.post(f"{paused}/pause", key=key), 200),
        (lambda: api.post(f"{paused}/resume", key=key), 200),
        (lambda: api.post(f"{path}/rotate", key=key), 200),
        (lambda: api.post(f"{path}/test", key=key), 202),
        (lambda: api.delete(path, key=key), 204),
    ]
    for call, allowed in calls:
        response = await call()
        assert response.status_code == (EXPECTED_ROLES[key] or allowed)
        if EXPECTED_ROLES[key]:
            assert slug(response) == "forbidden"


@pytest.mark.parametrize(("key", "status"), [("council", 403), ("operator", 403), ("app", 201)])
async def test_who_may_post_reports(api: Api, key: str, status: int) -> None:
    assert (await api.post_report(key=key)).status_code == status
    assert (await api.rows())["report"] == (1 if status == 201 else 0)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "webhook", "url": "http://intake.example.org/"}, "url"),
        ({"channel": "webhook", "url": "https://10.0.0.1/"}, "url"),
        ({"channel": "webhook", "url": "https://localhost/"}, "url"),
        ({"channel": "webhook", "url": "ftp://intake.example.org/"}, "url"),
        ({"channel": "webhook", "url": "https://\u00e9.example.org/ a"}, "url"),
        ({"channel": "webhook", "url": ""}, "url"),
        ({"channel": "webhook"}, "url"),
        ({"channel": "pigeon", "url": "https://intake.example.org/"}, "channel"),
        ({"url": "https://intake.example.org/"}, "channel"),
        ({"channel": "webhook", "url": "https://intake.example.org/", "secret": "x"}, "secret"),
    ],
)
async def test_addresses_that_are_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch, body: dict[str, str], field: str
) -> None:
    wiring = api.app.state.wiring
    strict = wiring.settings.model_copy(update={"egress_allow": ()})
    monkeypatch.setattr(type(wiring), "__setattr__", object.__setattr__)
    monkeypatch.setattr(wiring, "settings", strict)
    response = await api.client.post(intake(api), json=body, headers=api.headers("council"))
    assert (response.status_code, slug(response)) == (422, "validation-failed")
    assert [one["field"] for one in response.json()["errors"]] == [field]
    assert (await api.rows())["endpoint"] == 0


async def test_an_address_is_registered_once(api: Api) -> None:
    answers = await asyncio.gather(*(api.register() for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert slug(refused) == "endpoint-exists"
    assert (await api.rows())["endpoint"] == 1
    assert (await api.register(SHIRE)).status_code == 201


async def test_an_authority_that_is_none(api: Api) -> None:
    path = f"/v1/authorities/{uuid4()}/endpoints"
    response = await api.client.post(
        path, json={"channel": "webhook", "url": INTAKE}, headers=api.headers("operator")
    )
    assert (response.status_code, slug(response)) == (404, "not-found")
    assert slug(await api.get(f"{path}/{uuid4()}", key="operator")) == "not-found"


# --- deletion -------------------------------------------------------------------------------------


async def test_deletion_holds_again_what_was_owed(api: Api) -> None:
    path = (await api.register()).headers["location"]
    report = await api.post_report()
    assert (await api.delete(path)).status_code == 204
    assert await state_of(api, report) == "held"
    shown = (await api.get(report.json()["links"]["self"])).json()
    assert [one["state"] for one in shown["deliveries"]] == ["cancelled"]
    again = await api.delete(path)
    assert (again.status_code, slug(again)) == (404, "not-found")
    assert (await api.get(intake(api), key="council")).json()["items"] == []

    # the same address again is a new endpoint, and gets what waited
    await api.register()
    assert await state_of(api, report) == "queued"


async def test_a_council_cannot_delete_through_its_own_authority(api: Api) -> None:
    theirs = (await api.register(SHIRE)).json()["id"]
    assert slug(await api.delete(f"{intake(api)}/{theirs}", key="council")) == "not-found"


async def test_deletion_moves_to_another_endpoint_only_what_that_was_not_owed(api: Api) -> None:
    old = (await api.register(url=INTAKE + "/old")).headers["location"]
    early = await api.post_report(description="before the second endpoint")
    new = (await api.register(url=INTAKE + "/new")).json()["id"]
    late = await api.post_report(description="after it")
    assert (await api.delete(old)).status_code == 204
    rows = await api.pool.fetch(
        "SELECT report_id::text, endpoint_id::text FROM delivery WHERE state = 'pending'"
    )
    owed = {(row["report_id"], row["endpoint_id"]) for row in rows}
    assert owed == {(early.json()["id"], new), (late.json()["id"], new)}
    assert (await api.rows())["held"] == 0


@pytest.mark.parametrize(
    ("state", "expected"), [("delivered", "forwarded"), ("dead", "held"), ("leased", "held")]
)
async def test_deletion_by_state_of_the_delivery(api: Api, state: str, expected: str) -> None:
    path = (await api.register()).headers["location"]
    report = await api.post_report()
    await api.pool.execute(
        """
        UPDATE delivery
        SET state = $1, settled_at = CASE WHEN $1 <> 'leased' THEN now() END,
            lease_token = CASE WHEN $1 = 'leased' THEN gen_random_uuid() END
        """,
        state,
    )
    await api.delete(path)
    assert await state_of(api, report) == expected


async def test_a_report_that_meets_a_deletion_is_held(api: Api, pool: asyncpg.Pool) -> None:
    """The deletion is held open just before its end, so that the report certainly meets it."""
    endpoint = (await api.register()).json()["id"]
    async with pool.acquire() as conn:
        deletion = conn.transaction()
        await deletion.start()
        await conn.execute("SELECT FROM endpoint WHERE id = $1 FOR UPDATE", endpoint)
        await conn.execute(
            "UPDATE endpoint SET state = 'deleted', ended_at = now() WHERE id = $1", endpoint
        )
        async with asyncio.TaskGroup() as tasks:
            report = tasks.create_task(api.post_report())
            await asyncio.sleep(0.2)
            assert not report.done()
            await deletion.commit()
    assert report.result().json()["forwarding"] == "held"
    assert (await api.rows())["delivery"] == 0


async def test_a_deletion_that_meets_a_report_holds_it(api: Api, pool: asyncpg.Pool) -> None:
    """A report in the middle of being stored has locked the endpoint; the deletion waits."""
    first = (await api.post_report()).json()["id"]
    path = (await api.register()).headers["location"]
    endpoint = path.rsplit("/", 1)[1]
    async with pool.acquire() as conn:
        storing = conn.transaction()
        await storing.start()
        await conn.execute("SELECT FROM endpoint WHERE id = $1 FOR KEY SHARE", endpoint)
        await conn.execute(
            """
            INSERT INTO report
            SELECT ($1::jsonb ->> 'new')::uuid, received_at, observed_at, api_key_id, lon, lat,
                   accuracy_m, category, description, decision, dataset_id, authority_id, false
            FROM report WHERE id = ($1::jsonb ->> 'old')::uuid
            """,
            {"old": first, "new": str(uuid4())},
        )
        async with asyncio.TaskGroup() as tasks:
            deletion = tasks.create_task(api.delete(path))
            await asyncio.sleep(0.2)
            assert not deletion.done()
            await conn.execute(
                "INSERT INTO delivery (report_id, endpoint_id) SELECT id, $1 FROM report "
                "WHERE id <> $2",
                endpoint,
                first,
            )
            await storing.commit()
    assert deletion.result().status_code == 204
    assert await api.rows() == {
        "report": 2,
        "idempotency": 1,
        "held": 2,
        "delivery": 2,
        "endpoint": 1,
    }
    assert await api.pool.fetchval("SELECT count(*) FROM delivery WHERE state = 'cancelled'") == 2


async def test_reports_registrations_and_deletions_at_once_lose_nothing(api: Api) -> None:
    async def come_and_go(n: int) -> None:
        for _ in range(5):
            path = (await api.register(url=f"{INTAKE}/{n}")).headers["location"]
            assert (await api.delete(path)).status_code == 204

    async def report() -> list[httpx.Response]:
        return [await api.post_report() for _ in range(15)]

    async with asyncio.TaskGroup() as tasks:
        reporting = [tasks.create_task(report()) for _ in range(2)]
        for n in range(2):
            tasks.create_task(come_and_go(n))
    posted = [one for task in reporting for one in task.result()]
    assert {one.status_code for one in posted} == {201}
    # Every endpoint is gone, so every report waits; none is owed to a deleted endpoint.
    rows = await api.rows()
    assert (rows["report"], rows["held"]) == (30, 30)
    states = await api.pool.fetch("SELECT DISTINCT state FROM delivery")
    assert {row["state"] for row in states} <= {"cancelled"}


# --- deliveries -----------------------------------------------------------------------------------


async def deliveries(api: Api, **query: Any) -> dict[str, Any]:
    path = f"/v1/authorities/{api.authorities[WEST]}/deliveries"
    response = await api.get(path, key="council", **query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


async def test_deliveries_with_their_attempts(api: Api) -> None:
    await api.register()
    reports = [(await api.post_report()).json()["id"] for _ in range(5)]
    await api.register(SHIRE)
    await api.post_report(lon=1.5)
    await api.pool.execute(
        """
        WITH sent AS (
            UPDATE delivery SET state = 'dead', settled_at = now(), attempts = 1
            WHERE report_id = $1 RETURNING id
        )
        INSERT INTO attempt (delivery_id, n, finished_at, outcome, status, answer, error)
        SELECT id, 1, now(), 'rejected', 400, 'no such road', 'HTTP 400' FROM sent
        """,
        reports[0],
    )
    (dead,) = (await deliveries(api, state="dead"))["items"]
    assert dead["report_id"] == reports[0]
    assert dead["next_attempt_at"] is None
    (attempt,) = dead["attempts"]
    assert attempt.pop("started_at").endswith("Z")
    assert attempt.pop("finished_at").endswith("Z")
    assert attempt == {
        "n": 1,
        "outcome": "rejected",
        "status": 400,
        "answer": "no such road",
        "error": "HTTP 400",
    }

    seen: list[str] = []
    page = await deliveries(api, limit=2)
    while True:
        seen += [one["report_id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        page = await deliveries(api, limit=2, cursor=page["next_cursor"])
    assert seen == reports[::-1]
    assert len((await deliveries(api, state="pending"))["items"]) == 4


@pytest.mark.parametrize(
    "query",
    [
        {"state": "lost"},
        {"cursor": "WyIxIiwiMiJd"},
        # ["0001-01-01T00:00:00+14:00", "3f0e6f6e-2f0c-4b7e-9d1a-5a2a86a7f0c1"]
        {
            "cursor": "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwgIjNmMGU2ZjZlLTJmMGMtNGI3ZS05ZDFhLTVh"
            "MmE4NmE3ZjBjMSJd"
        },
        {"limit": "many"},
    ],
)
async def test_deliveries_refuse_what_they_do_not_know(api: Api, query: dict[str, str]) -> None:
    path = f"/v1/authorities/{api.authorities[WEST]}/deliveries"
    assert slug(await api.get(path, key="council", **query)) == "validation-failed"
