from __future__ import annotations

from uuid import UUID

import pytest

from api import db
from api.delivery import liveness, outbox
from api.delivery.policy import Gone, Next
from tests.support.app import SHIRE, WEST, Api, slug


async def suspend(api: Api, code: str) -> UUID:
    """Register an endpoint, post a report to it, and have it answer 410."""
    place = {WEST: 0.5, SHIRE: 1.5}[code]
    assert (await api.register(code)).status_code == 201
    assert (await api.post_report(lon=place)).status_code == 201
    async with db.acquire(api.pool) as conn:
        [one] = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
        assert await outbox.settle(conn, one, Gone(why="answered 410", status=410), Next("dead"))
    return one.delivery_id


async def test_owners_see_theirs_and_operators_all(api: Api) -> None:
    west, shire = await suspend(api, WEST), await suspend(api, SHIRE)
    path = f"/v1/authorities/{api.authorities[WEST]}/notices"
    for key in ("council", "operator"):
        items = (await api.get(path, key=key)).json()["items"]
        assert {(item["kind"], item["delivery_id"]) for item in items} == {
            ("delivery_dead", str(west)),
            ("endpoint_suspended", str(west)),
        }
        assert items[0]["detail"] == "given up after 1 attempts; the last: answered 410"
    everybodys = (await api.get("/v1/notices", key="operator")).json()["items"]
    assert [item["delivery_id"] for item in everybodys] == [str(shire)] * 2 + [str(west)] * 2
    for key, where in (
        ("other council", path),
        ("app", path),
        ("council", "/v1/notices"),
        ("app", "/v1/notices"),
    ):
        assert slug(await api.get(where, key=key)) == "forbidden"


async def test_pages(api: Api) -> None:
    for code in (WEST, SHIRE):
        await suspend(api, code)
    seen, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/v1/notices", key="operator", **query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 4
    assert slug(await api.get("/v1/notices", key="operator", cursor="x")) == "validation-failed"


async def test_a_fallback_endpoint_gets_only_what_died(api: Api) -> None:
    second = "http://127.0.0.1:9/second"
    registered = await api.register(WEST, key="council", url=second, fallback=True)
    assert registered.status_code == 201
    assert registered.json()["fallback"] is True
    # It is no reason not to hold reports.
    assert (await api.post_report()).json()["forwarding"] == "held"
    detail = (await api.get(f"/v1/authorities/{api.authorities[WEST]}")).json()
    assert detail["has_active_endpoint"] is False
    first = await api.register(WEST)
    assert first.json()["fallback"] is False
    async with db.acquire(api.pool) as conn:
        [one] = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
        assert str(one.endpoint_id) == first.json()["id"]
        await outbox.settle(conn, one, Gone(why="answered 410", status=410), Next("dead"))
        [passed_on] = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
    assert str(passed_on.endpoint_id) == registered.json()["id"]
    report = (await api.get(f"/v1/reports/{one.report_id}")).json()
    assert report["state"] == "queued"
    assert [(each["state"], each["sequence"]) for each in report["deliveries"]] == [
        ("dead", 1),
        ("leased", 1),
    ]


async def scrape(api: Api) -> dict[str, float]:
    """The figures of the installation, without those that each process has of its dataset."""
    answer = await api.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in lines if "_dataset_" not in name}


async def test_metrics(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.metrics.KEPT_S", 0.0)
    assert await scrape(api) == {"georouter_held_reports": 0.0}
    await api.post_report()
    assert (await scrape(api))["georouter_held_reports"] == 1.0
    await api.register(WEST)
    await api.register(SHIRE)
    await api.post_report()
    await api.pool.execute(
        "UPDATE delivery SET created_at = now() - interval '1 hour', "
        "due_at = now() - interval '1 minute'"
    )
    async with db.acquire(api.pool) as conn:
        await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=9)
        await liveness.count_attempts(conn, {("webhook", "delivered"): 2, ("webhook", "gone"): 1})
        await liveness.count_attempts(conn, {("webhook", "delivered"): 3})
    figures = await scrape(api)
    assert (
        3600 <= figures.pop('georouter_delivery_oldest_waiting_seconds{channel="webhook"}') < 3700
    )
    assert 60 <= figures.pop('georouter_delivery_overdue_seconds{channel="webhook"}') < 160
    assert figures == {
        'georouter_deliveries{channel="webhook",state="waiting"}': 1.0,
        'georouter_deliveries{channel="webhook",state="leased"}': 1.0,
        'georouter_delivery_attempts_total{channel="webhook",outcome="delivered"}': 5.0,
        'georouter_delivery_attempts_total{channel="webhook",outcome="gone"}': 1.0,
        'georouter_endpoints{channel="webhook",state="active"}': 2.0,
        'georouter_breakers{channel="webhook",state="closed"}': 2.0,
        "georouter_held_reports": 0.0,
    }
    await api.pool.execute(
        "UPDATE endpoint SET failures = 5, open_until = now() + interval '1 minute'"
    )
    figures = await scrape(api)
    assert figures['georouter_breakers{channel="webhook",state="open"}'] == 2.0
    # What nobody may take is not overdue.
    assert figures['georouter_delivery_overdue_seconds{channel="webhook"}'] == 0.0


async def test_metrics_are_read_once_for_all_who_ask(api: Api) -> None:
    before = await scrape(api)
    await api.post_report()
    assert await scrape(api) == before
