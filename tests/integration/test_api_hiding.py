"""What the public is not shown: hidden reports, and what looks like spam. Nothing of it is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import asyncpg
import httpx
import pytest

from api import db
from api.delivery import outbox
from api.delivery.channels.webhook import payload
from tests.support.app import IN_WEST, SHIRE, WEST, Api, serving, slug

PHONE, OTHER_PHONE = "81.2.69.160", "81.2.69.161"
SPAM = "Cheap watches at https://a.example and https://b.example"
TEXT = "The lamp outside number 12 is dark since Monday"


@pytest.fixture
async def api(database_url: str, pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The application behind a proxy that is believed."""
    networks = (ip_network("127.0.0.0/8"),)
    async with serving(database_url, pool, trusted_proxies=networks) as api:
        yield api


async def public(api: Api) -> list[str]:
    listed = [one["id"] for one in (await api.get("/v1/reports")).json()["features"]]
    near = (await api.get("/v1/nearby", **IN_WEST, category="pothole")).json()["items"]
    assert sorted(listed) == sorted(one["id"] for one in near)
    return listed


async def change(
    api: Api, report_id: str, what: str, *, key: str = "council", code: str = WEST, **body: Any
) -> httpx.Response:
    path = f"/v1/authorities/{api.authorities[code]}/reports/{report_id}/{what}"
    return await api.post(path, key=key, **body)


async def kinds(api: Api, report_id: str) -> list[str]:
    shown = (await api.get(f"/v1/reports/{report_id}")).json()
    return [event["kind"] for event in shown["events"]]


@pytest.mark.parametrize("key", ["council", "operator"])
async def test_what_is_hidden_is_public_no_more_and_its_work_goes_on(api: Api, key: str) -> None:
    await api.register()
    posted = (await api.post_report()).json()["id"]
    for _ in range(2):  # the second time changes nothing
        hidden = await change(api, posted, "hide", key=key, reason="personal_data")
        assert hidden.status_code == 204
    assert await public(api) == []
    assert await kinds(api, posted) == ["received", "hidden"]
    assert (await api.rows())["delivery"] == 1
    for _ in range(2):
        assert (await change(api, posted, "unhide", key=key)).status_code == 204
    assert await public(api) == [posted]
    assert await kinds(api, posted) == ["received", "hidden", "unhidden"]
    rows = await api.pool.fetch("SELECT action, detail FROM audit WHERE target = $1", posted)
    assert [tuple(row) for row in rows] == [
        ("report.hidden", {"reason": "personal_data"}),
        ("report.unhidden", {}),
    ]


async def test_who_may_hide(api: Api) -> None:
    posted = (await api.post_report()).json()["id"]
    for key, code, status, problem in (
        ("app", WEST, 403, "forbidden"),
        ("other council", WEST, 403, "forbidden"),
        ("other council", SHIRE, 404, "not-found"),
        ("operator", SHIRE, 404, "not-found"),
    ):
        for what, body in (("hide", {"reason": "other"}), ("unhide", {})):
            refused = await change(api, posted, what, key=key, code=code, **body)
            assert (refused.status_code, slug(refused)) == (status, problem)
    unknown = await change(api, "7c9e6679-7425-40de-944b-e07fc1f90ae7", "unhide")
    assert slug(unknown) == "not-found"
    assert slug(await change(api, posted, "hide", reason="ugly")) == "validation-failed"
    assert await public(api) == [posted]


async def test_an_authority_that_has_it_no_more_cannot_hide_it(api: Api) -> None:
    posted = (await api.post_report()).json()["id"]
    await api.post(f"/v1/triage/{posted}/assign", authority=SHIRE)
    refused = await change(api, posted, "hide", reason="other")
    assert (refused.status_code, slug(refused)) == (409, "report-elsewhere")
    assert (await change(api, posted, "hide", key="operator", reason="other")).status_code == 204


async def test_spam_is_marked_and_sent_on_and_cleared_by_who_has_looked(api: Api) -> None:
    await api.register()
    posted = await api.post_report(description=SPAM)
    assert posted.status_code == 201
    report_id = posted.json()["id"]
    assert await public(api) == []
    assert await kinds(api, report_id) == ["received", "spam"]
    async with db.acquire(api.pool) as conn:
        (claimed,) = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
    before = payload(claimed)
    assert b'"spam_suspected":["links"]' in before
    assert (await change(api, report_id, "unhide")).status_code == 204
    assert await public(api) == [report_id]
    # Every try sends the same bytes.
    await api.pool.execute("UPDATE delivery SET due_at = now() - interval '1 minute'")
    async with db.acquire(api.pool) as conn:
        (again,) = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
    assert payload(again) == before


async def test_the_same_text_again_and_again_is_counted_for_each_address(api: Api) -> None:
    async def post(phone: str, text: str = TEXT) -> Any:
        headers = {**api.headers("app"), "X-Forwarded-For": phone}
        body = {**IN_WEST, "category": "pothole", "description": text}
        answer = await api.client.post("/v1/reports", json=body, headers=headers)
        assert answer.status_code == 201
        return await api.pool.fetchval(
            "SELECT spam -> 'reasons' FROM report WHERE id = $1", answer.json()["id"]
        )

    assert [await post(PHONE) for _ in range(3)] == [None] * 3
    assert await post(PHONE, f"  {TEXT.upper()}!") == ["repeated_by_address"]
    assert await post(OTHER_PHONE) is None
    assert await post(PHONE, "Another lamp is dark, that of number 14") is None
    await api.pool.execute("UPDATE report_trace SET at = at - interval '1 hour'")
    assert await post(PHONE) is None
    stored = await api.pool.fetch("SELECT address_hmac, text_hmac FROM report_trace")
    assert not any(PHONE in row["address_hmac"] or "lamp" in row["text_hmac"] for row in stored)


async def test_a_retry_is_no_repetition(api: Api) -> None:
    for _ in range(5):
        posted = await api.post_report(idempotency_key="one", description=TEXT)
        assert posted.status_code == 201
    assert await api.pool.fetchval("SELECT count(*) FROM report_trace") == 1


async def test_photos_of_what_is_hidden_are_not_public(api: Api) -> None:
    posted = (await api.post_report()).json()["id"]
    await api.pool.execute("UPDATE report SET photos_public = true")
    await api.pool.execute(
        """
        INSERT INTO photo (id, api_key_id, length, stored_at, width, height, report_id, attached_at)
        SELECT gen_random_uuid(), api_key_id, 1, now(), 1, 1, id, now() FROM report
        """
    )
    count = "SELECT count(*) FROM public_photo"
    assert await api.pool.fetchval(count) == 1
    await change(api, posted, "hide", reason="personal_data")
    assert await api.pool.fetchval(count) == 0
