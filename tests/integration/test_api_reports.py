from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from tests.support.app import AT_SEA, IN_SHIRE, IN_WEST, ON_BORDER, SHIRE, VALE, WEST, Api, slug


async def test_a_report_is_stored_with_what_it_is_owed(api: Api) -> None:
    endpoint = (await api.register(WEST)).json()
    response = await api.post_report(
        accuracy_m=8, observed_at="2026-11-02T10:15:00+02:00", description="  a\r\nhole\t "
    )
    assert response.status_code == 201
    receipt = response.json()
    assert response.headers["location"] == f"/v1/reports/{receipt['id']}"
    assert "idempotency-replayed" not in response.headers
    assert receipt["received_at"].endswith("Z")
    assert receipt["forwarding"] == "queued"
    assert receipt["message"] == "Received. It is on its way to West."
    assert receipt["links"]["self"] == f"/v1/reports/{receipt['id']}"
    decision = receipt["decision"]
    assert (decision["state"], decision["rule"]) == ("certain", "covering-area")
    assert decision["dataset"] == "squares-1"
    assert decision["authority"] == {
        "id": str(api.authorities[WEST]),
        "code": WEST,
        "name": "West",
    }
    assert [one["code"] for one in decision["candidates"]] == [WEST]

    stored = await api.pool.fetchrow("SELECT * FROM report")
    assert stored["id"] == UUID(receipt["id"])
    assert (stored["lon"], stored["lat"], stored["accuracy_m"]) == (0.5, 50.5, 8.0)
    assert stored["description"] == "a\nhole"
    assert stored["observed_at"] == datetime(2026, 11, 2, 8, 15, tzinfo=UTC)
    assert stored["decision"] == decision
    assert stored["authority_id"] == api.authorities[WEST]
    delivery = await api.pool.fetchrow("SELECT * FROM delivery")
    assert delivery["report_id"] == stored["id"]
    assert str(delivery["endpoint_id"]) == endpoint["id"]
    assert delivery["state"] == "pending"
    rows = {"report": 1, "idempotency": 1, "held": 0, "delivery": 1, "endpoint": 1}
    assert await api.rows() == rows


async def test_every_active_endpoint_is_owed_the_report(api: Api) -> None:
    await api.register(WEST, url="http://127.0.0.1:9/a")
    await api.register(WEST, url="http://127.0.0.1:9/b")
    await api.register(SHIRE, url="http://127.0.0.1:9/c")
    assert (await api.post_report()).status_code == 201
    assert (await api.rows())["delivery"] == 2


async def test_without_an_endpoint_the_report_is_held(api: Api) -> None:
    receipt = (await api.post_report()).json()
    assert receipt["forwarding"] == "held"
    assert "kept and forwarded as soon as it does" in receipt["message"]
    rows = {"report": 1, "idempotency": 1, "held": 1, "delivery": 0, "endpoint": 0}
    assert await api.rows() == rows


async def test_the_category_chooses_the_tier(api: Api) -> None:
    highway = (await api.post_report(**IN_SHIRE)).json()["decision"]
    cleaning = (await api.post_report(**IN_SHIRE, category="litter")).json()["decision"]
    assert highway["authority"]["code"] == SHIRE
    assert cleaning["authority"]["code"] == VALE


async def test_a_point_on_a_border_has_two_candidates(api: Api) -> None:
    decision = (await api.post_report(**ON_BORDER)).json()["decision"]
    assert decision["state"] == "ambiguous"
    assert [one["code"] for one in decision["candidates"]] == [WEST, SHIRE]
    assert decision["authority"]["code"] == WEST


async def test_the_citizen_s_choice_is_where_it_goes(api: Api) -> None:
    decision = (await api.post_report(**ON_BORDER, chosen=SHIRE)).json()["decision"]
    assert (decision["state"], decision["rule"]) == ("certain", "chosen")
    assert decision["authority"]["code"] == SHIRE
    before = await api.rows()
    refused = await api.post_report(**IN_WEST, chosen=SHIRE)
    assert (refused.status_code, slug(refused)) == (422, "not-a-candidate")
    assert await api.rows() == before


# --- idempotency ----------------------------------------------------------------------------------


async def test_the_same_request_again_gets_the_same_answer(api: Api) -> None:
    first = await api.post_report(idempotency_key="k-1", accuracy_m=5)
    await api.register(WEST)  # would be "queued" now; the answer stays what it was
    again = await api.post_report(idempotency_key="k-1", accuracy_m=5.0)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert (await api.rows())["report"] == 1


async def test_another_request_with_the_key_is_refused(api: Api) -> None:
    await api.post_report(idempotency_key="k-1")
    other = await api.post_report(idempotency_key="k-1", description="another hole")
    assert (other.status_code, slug(other)) == (422, "idempotency-key-reused")
    assert (await api.rows())["report"] == 1


async def test_keys_of_different_apps_do_not_meet(api: Api) -> None:
    first = await api.post_report(idempotency_key="k-1")
    other = await api.post_report(idempotency_key="k-1", key="other app")
    assert first.json()["id"] != other.json()["id"]
    assert (await api.rows())["report"] == 2


async def test_without_a_key_every_post_is_a_report(api: Api) -> None:
    assert (await api.post_report()).json()["id"] != (await api.post_report()).json()["id"]
    assert (await api.rows())["report"] == 2


async def test_twenty_posts_at_once_with_one_key_are_one_report(api: Api) -> None:
    await api.register(WEST)
    answers = await asyncio.gather(*(api.post_report(idempotency_key="k") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert sorted(replayed, key=str) == [None, *["true"] * 19]
    rows = {"report": 1, "idempotency": 1, "held": 0, "delivery": 1, "endpoint": 1}
    assert await api.rows() == rows


async def test_the_loser_of_a_race_waits_for_the_winner(api: Api) -> None:
    """The winner is held open in the middle, so that the loser certainly meets it."""
    key_id = await api.pool.fetchval("SELECT id FROM api_key WHERE label = 'app'")
    async with api.pool.acquire() as conn:
        winner = conn.transaction()
        await winner.start()
        await conn.execute(
            "INSERT INTO idempotency (api_key_id, key, request_sha256, report_id) "
            "VALUES ($1, 'k', sha256(''), $2)",
            key_id,
            uuid4(),
        )
        async with asyncio.TaskGroup() as tasks:
            loser = tasks.create_task(api.post_report(idempotency_key="k"))
            await asyncio.sleep(0.2)
            assert not loser.done()
            await winner.rollback()
    assert loser.result().status_code == 201
    assert "idempotency-replayed" not in loser.result().headers


async def test_a_retry_is_answered_under_a_catalogue_that_would_refuse_it(api: Api) -> None:
    first = await api.post_report(idempotency_key="k")
    await api.pool.execute("DELETE FROM activation")
    await api.app.state.wiring.live.refresh(api.pool)
    refused = await api.post_report()
    assert slug(refused) == "no-active-dataset"
    again = await api.post_report(idempotency_key="k")
    assert again.json() == first.json()


# --- reading --------------------------------------------------------------------------------------


async def test_who_may_see_a_report(api: Api) -> None:
    path = (await api.post_report()).json()["links"]["self"]
    expected = {
        "app": 200,
        "other app": 404,
        "council": 200,
        "other council": 404,
        "operator": 200,
    }
    seen = {key: (await api.get(path, key=key)).status_code for key in expected}
    assert seen == expected
    assert slug(await api.get(path, key="other app")) == "not-found"
    assert slug(await api.get(f"/v1/reports/{uuid4()}")) == "not-found"
    assert slug(await api.get("/v1/reports/7")) == "validation-failed"


async def test_the_state_is_derived(api: Api) -> None:
    receipt = (await api.post_report()).json()
    path = receipt["links"]["self"]

    async def shown() -> dict[str, Any]:
        report: dict[str, Any] = (await api.get(path)).json()
        # The private link is the reporter's alone.
        told = {**receipt, "links": {**receipt["links"], "track": None}}
        assert {**report, "emergencies": []}.items() >= told.items()
        return report

    report = await shown()
    assert (report["state"], report["deliveries"]) == ("held", [])

    await api.register(WEST)
    report = await shown()
    assert report["state"] == "queued"
    (delivery,) = report["deliveries"]
    assert (delivery["state"], delivery["attempts"]) == ("pending", 0)
    assert delivery["next_attempt_at"].endswith("Z")
    assert delivery["delivered_at"] is None

    await api.pool.execute(
        """
        WITH sent AS (
            UPDATE delivery SET state = 'delivered', settled_at = now(), attempts = 2,
                                reference = 'W-7' RETURNING id
        )
        INSERT INTO attempt (delivery_id, n, finished_at, outcome, status)
        SELECT id, n, now(), outcome, status
        FROM sent, (VALUES (1, 'deferred', 503), (2, 'delivered', 200)) AS try (n, outcome, status)
        """
    )
    report = await shown()
    assert report["state"] == "forwarded"
    (delivery,) = report["deliveries"]
    assert (delivery["state"], delivery["attempts"]) == ("delivered", 2)
    assert (delivery["last_outcome"], delivery["last_status"]) == ("delivered", 200)
    assert delivery["reference"] == "W-7"
    assert delivery["delivered_at"].endswith("Z")
    assert delivery["next_attempt_at"] is None

    await api.pool.execute("UPDATE delivery SET state = 'dead'")
    assert (await shown())["state"] == "undeliverable"


async def test_outside_is_refused_when_posted(api: Api) -> None:
    refused = await api.post_report(**AT_SEA)
    assert (refused.status_code, slug(refused)) == (422, "outside-service-area")
    assert (await api.rows())["idempotency"] == 0


# --- what is just acceptable ----------------------------------------------------------------------


async def test_json_by_other_names_is_taken(api: Api) -> None:
    for kind in ("application/json; charset=utf-8", "application/geo+json"):
        response = await api.client.post(
            "/v1/reports",
            content=json.dumps({**IN_WEST, "category": "pothole", "description": "a hole"}),
            headers={**api.headers("app"), "Content-Type": kind},
        )
        assert response.status_code == 201


async def test_a_body_of_just_the_size(api: Api) -> None:
    body = json.dumps({**IN_WEST, "category": "pothole", "description": "a hole"})
    response = await api.client.post(
        "/v1/reports",
        content=body.ljust(65_536),
        headers={**api.headers("app"), "Content-Type": "application/json"},
    )
    assert response.status_code == 201


async def test_texts_at_their_longest(api: Api) -> None:
    response = await api.post_report(idempotency_key="~ " * 127 + "!", description="é" * 4000)
    assert response.status_code == 201
    assert (await api.pool.fetchval("SELECT description FROM report")) == "é" * 4000


async def test_of_the_devices_numbers_the_extremes(api: Api) -> None:
    response = await api.post_report(
        accuracy_m=10_000, lon=-0.0, lat=51, observed_at="9999-12-31T23:59:59.999999999Z"
    )
    assert response.status_code == 201
