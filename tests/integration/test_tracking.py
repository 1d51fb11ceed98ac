"""The private link: who has it sees the report, and may say that it is still there."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from api import db
from api.delivery import outbox, policy
from api.delivery.channels.webhook import payload
from api.store import events, evidence
from api.webhook_schemas import ReportUpdated
from tests.support import rows
from tests.support.app import IN_SHIRE, SHIRE, WEST, Api, serving, slug

PAGE = {"Accept": "text/html,application/xhtml+xml"}


async def follow(api: Api, report_id: str, **fields: Any) -> str:
    async with db.acquire(api.pool) as conn:
        return await rows.follower(conn, report_id, **fields)


async def reported(api: Api, **fields: Any) -> tuple[str, str]:
    """The id of a new report and its reporter's token."""
    report_id = (await api.post_report(**fields)).json()["id"]
    return report_id, await follow(api, report_id)


async def tracked(api: Api, token: str) -> dict[str, Any]:
    answer = await api.client.get(f"/v1/track/{token}")
    assert answer.status_code == 200
    return dict(answer.json())


async def tell(api: Api, report_id: str, state: str, *, code: str = WEST, **more: Any) -> None:
    path = f"/v1/authorities/{api.authorities[code]}/reports/{report_id}/updates"
    body = {"update_id": f"{state}-{len(more)}", "state": state, **more}
    assert (await api.post(path, **body)).status_code == 201


async def deliver(api: Api, outcome: policy.Outcome | None = None) -> list[dict[str, Any]]:
    """Send what is due, note it, and return the messages."""
    async with db.acquire(api.pool) as conn:
        claimed = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
        for one in claimed:
            said = outcome or policy.Delivered(status=200, reference="W-7")
            following = policy.after(said, attempt=1, age_s=0, jitter=0)
            async with conn.transaction():
                assert await outbox.settle(conn, one, said, following)
        await evidence.log_attempts(conn)
    return [json.loads(payload(one)) for one in claimed]


async def still_there(api: Api, token: str, **headers: str) -> httpx.Response:
    return await api.client.post(f"/v1/track/{token}/still-there", headers=headers)


async def test_the_timeline_tells_what_became_of_a_report(api: Api) -> None:
    await api.register(WEST)
    report_id, token = await reported(api, description="ring me: 020 7946 0000")

    waiting = await tracked(api, token)
    assert waiting["state"] == "queued"
    assert waiting["headline"].startswith("Waiting for the system of West since ")
    assert "7946" not in waiting["description"]
    assert [one["sentence"] for one in waiting["events"]] == [
        "We received the report. West is responsible."
    ]

    await deliver(api)
    there = await tracked(api, token)
    assert there["headline"] == "West has it, and has not said yet what will be done."
    assert there["reference"] == "W-7"
    assert there["events"][-1]["sentence"] == (
        "The system of West has taken it. Their number for it is W-7."
    )

    await tell(api, report_id, "planned", expected_on="2027-02-03", note="<b>Soon</b>")
    planned = await tracked(api, token)
    assert planned["headline"] == (
        "West has planned the work. It should be done by 3 February 2027."
    )
    assert (planned["expected_on"], planned["events"][-1]["note"]) == (
        "2027-02-03",
        "<b>Soon</b>",
    )

    await tell(api, report_id, "closed", reason="no_further_action")
    closed = await tracked(api, token)
    assert closed["status"] == "closed"
    assert closed["headline"] == (
        "West has closed it and will do nothing more. That does not mean that it is fixed."
    )
    assert closed["can_say_still_there"]
    assert closed["expected_on"] is None
    assert closed["mail"] == "not_wanted"


async def test_what_is_held_and_moved_is_told_as_it_is(api: Api) -> None:
    report_id, token = await reported(api)
    held = await tracked(api, token)
    assert "has not told us yet where it takes such reports" in held["headline"]
    await api.post(
        f"/v1/authorities/{api.authorities[WEST]}/reports/{report_id}/updates",
        update_id="1",
        state="closed",
        reason="not_responsible",
    )
    moving = await tracked(api, token)
    assert moving["headline"].startswith("We are finding out who is responsible, since ")
    assert moving["events"][-1]["sentence"] == "West says that it is not theirs."
    assert moving["status"] is None


async def test_a_rehearsal_says_so(database_url: str, pool: Any) -> None:
    async with serving(database_url, pool, delivery_mode="dry_run") as api:
        await api.register(WEST)
        _, token = await reported(api)
        shown = await tracked(api, token)
        assert shown["dry_run"]
        assert shown["headline"] == "A rehearsal: nothing is sent to West."
        await deliver(api, policy.Delivered(nothing_sent=True))
        after = await tracked(api, token)
        assert after["headline"] == "A rehearsal: nothing is sent to West."
        assert after["events"][-1]["sentence"] == "A rehearsal: nothing was sent to West."


async def test_the_page_says_the_same_and_runs_nothing(api: Api) -> None:
    await api.register(WEST)
    report_id, token = await reported(api, description="<script>alert(1)</script>")
    await tell(api, report_id, "fixed", note="<img src=x onerror=alert(1)>")
    page = await api.client.get(f"/v1/track/{token}", headers=PAGE)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "West says that it is fixed." in page.text
    assert "<script" not in page.text
    assert "<img" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "http" not in page.text.replace("&lt;", "")
    assert f"action='{token}/still-there'" in page.text
    policy_of = page.headers["content-security-policy"]
    assert policy_of.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy_of

    done = await still_there(api, token, **PAGE)
    assert (done.status_code, done.headers["location"]) == (303, f"../{token}")
    page = await api.client.get(f"/v1/track/{token}", headers=PAGE)
    assert "Open again" in page.text
    assert "still-there'" not in page.text


@pytest.mark.parametrize("accept", ["application/json", PAGE["Accept"]])
async def test_the_link_is_nobodys_to_keep(api: Api, accept: str) -> None:
    _, token = await reported(api)
    answer = await api.client.get(f"/v1/track/{token}", headers={"Accept": accept})
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-robots-tag"] == "noindex"


async def test_a_wrong_token_leads_nowhere(api: Api) -> None:
    _, token = await reported(api)
    for wrong in ("x", token[:-1], token + "A", token.swapcase(), "%00", "é" * 43, "a" * 43):
        for path in ("", "/events"):
            answer = await api.client.get(f"/v1/track/{wrong}{path}")
            assert (answer.status_code, slug(answer)) == (404, "not-found")
        for path in ("still-there", "unsubscribe"):
            assert (await api.client.post(f"/v1/track/{wrong}/{path}")).status_code == 404
    async with db.acquire(api.pool) as conn:
        await conn.execute(
            "UPDATE follower SET erased_at = now(), token_sha256 = NULL, token = NULL"
        )
    assert (await api.client.get(f"/v1/track/{token}")).status_code == 404


async def test_no_log_has_the_token(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    _, token = await reported(api)
    await tracked(api, token)
    await api.client.get(f"/v1/track/{token}/events")
    await still_there(api, token)
    await api.client.get(f"/v1/track/{token}/nothing")
    said = capsys.readouterr().err
    assert "/v1/track/{token}" in said
    assert token not in said


# --- still there ----------------------------------------------------------------------------------


async def test_what_is_still_there_is_opened_again_once_for_each_closing(api: Api) -> None:
    await api.register(WEST)
    report_id, token = await reported(api)
    await deliver(api)
    early = await still_there(api, token)
    assert (early.status_code, slug(early)) == (409, "not-closed")

    await tell(api, report_id, "fixed")
    said = await still_there(api, token)
    assert said.status_code == 200
    assert said.json()["status"] == "reopened"
    assert said.json()["headline"].startswith("Open again")
    assert not said.json()["can_say_still_there"]
    assert (await api.get(f"/v1/reports/{report_id}")).json()["status"] == "reopened"

    [message] = await deliver(api)
    ReportUpdated.model_validate(message)
    assert message["type"] == "report.updated"
    assert (message["data"]["still_there"], message["data"]["reports"]) == (True, 1)

    # the same again, by the link or by the app, changes nothing
    assert (await still_there(api, token)).status_code == 200
    by_app = await api.post(f"/v1/reports/{report_id}/still-there", key="app")
    assert by_app.status_code == 200
    assert await deliver(api) == []

    # nor does it once they are at work again
    await tell(api, report_id, "in_progress")
    assert (await still_there(api, token)).status_code == 200
    assert (await tracked(api, token))["status"] == "in_progress"

    await tell(api, report_id, "closed", reason="no_further_action", note="done")
    assert (await still_there(api, token)).json()["status"] == "reopened"
    assert len(await deliver(api)) == 1


async def test_each_follower_is_heard(api: Api) -> None:
    await api.register(WEST)
    report_id, token = await reported(api)
    other = await follow(api, report_id, kind="me_too")
    await deliver(api)
    await tell(api, report_id, "fixed")
    for one in (token, other, other):
        assert (await still_there(api, one)).status_code == 200
    kinds = [event["kind"] for event in (await tracked(api, token))["events"]]
    assert kinds.count("still_there") == 2
    assert len(await deliver(api)) == 1  # in turn: the second waits for the first
    assert len(await deliver(api)) == 1


async def test_only_the_app_that_posted_it_may_say_so_by_key(api: Api) -> None:
    report_id, _ = await reported(api)
    await tell(api, report_id, "fixed")
    path = f"/v1/reports/{report_id}/still-there"
    refusals = {"other app": 404, "council": 403, "operator": 403}
    for key, status in refusals.items():
        assert (await api.post(path, key=key)).status_code == status
    assert (await api.post(path, key="app")).json()["status"] == "reopened"


async def test_what_the_one_before_closed_is_no_closing_of_who_has_it(api: Api) -> None:
    report_id, token = await reported(api, **IN_SHIRE)
    await tell(api, report_id, "fixed", code=SHIRE)
    async with db.acquire(api.pool) as conn:
        await events.add_event(
            conn,
            await conn.fetchval("SELECT id FROM report"),
            kind="rerouted",
            authority_id=api.authorities[WEST],
        )
        await conn.execute("UPDATE report SET authority_id = $1", api.authorities[WEST])
    assert (await still_there(api, token)).status_code == 409


async def test_mail_can_be_stopped_from_the_page(database_url: str, pool: Any) -> None:
    mailing = {
        "smtp_host": "127.0.0.1",
        "smtp_from": "reports@georouter.example",
        "public_url": "https://georouter.example",
    }
    async with serving(database_url, pool, **mailing) as api:
        report_id = (await api.post_report()).json()["id"]
        token = await follow(api, report_id, contact="{}", notify=True)
        assert (await tracked(api, token))["mail"] == "unconfirmed"
        page = await api.client.get(f"/v1/track/{token}", headers=PAGE)
        assert f"action='{token}/unsubscribe'" in page.text
        for _ in range(2):
            done = await api.client.post(f"/v1/track/{token}/unsubscribe")
            assert done.json()["mail"] == "unsubscribed"
    async with serving(database_url, pool) as api:
        other = await follow(api, report_id, kind="me_too", contact="{}", notify=True)
        assert (await tracked(api, other))["mail"] == "unavailable"
