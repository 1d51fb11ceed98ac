"""What can be reported, and reports that answer the questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from api.delivery import outbox
from api.delivery.channels.webhook import payload
from api.routing import load_rules
from tests.support.app import AT_SEA, IN_SHIRE, IN_WEST, WEST, Api, serving, slug

ANSWERS: dict[str, Any] = {"depth_cm": 6, "width_cm": 40.5, "cycle_route": True}
OWN = """\
[tiers.highway]
layers = ["highway"]
[categories.pothole]
name = "Pothole"
description = "A hole."
tier = "highway"
[categories.pothole.questions.note]
ask = "What else?"
type = "text"
[categories.pothole.questions.lane]
ask = "In which lane?"
type = "choice"
required = true
choices = { left = "The left one", right = "The right one" }
"""
PLACES = """\
[tiers.highway]
layers = ["highway"]
[categories.pothole]
name = "Pothole"
description = "A hole."
tier = "highway"
[categories.pothole.questions.deep]
ask = "Is it deep?"
type = "yes_no"
[categories.wall]
name = "Wall"
description = "A wall."
tier = "highway"
areas = ["X10*"]
[emergencies.all]
text = "Call."
phone = "999"
when = { pothole = { deep = true } }
[emergencies.west]
text = "Call."
phone = "111"
areas = ["X06*"]
categories = ["pothole"]
"""


@pytest.mark.parametrize("key", ["app", "council", "operator"])
async def test_the_categories_with_their_questions(api: Api, key: str) -> None:
    response = await api.get("/v1/categories", key=key)
    assert response.status_code == 200
    listed = response.json()
    rules = load_rules(None)
    assert listed["version"] == rules.version
    assert response.headers["etag"] == f'"{rules.version}"'
    assert [one["code"] for one in listed["items"]] == list(rules.categories)
    shown = {one["code"]: one for one in listed["items"]}
    assert (shown["litter"]["tier"], shown["litter"]["questions"]) == ("cleaning", [])
    pothole = shown["pothole"]
    assert pothole["description"] == rules.categories["pothole"].description
    assert [one["code"] for one in pothole["questions"]] == list(ANSWERS)
    assert pothole["answers_schema"]["properties"]["cycle_route"]["type"] == "boolean"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ('"other", {}', 304),
        ("*", 304),
        ('"other"', 200),
        ("", 200),
    ],
)
async def test_an_unchanged_list_is_not_sent_again(api: Api, asked: str, status: int) -> None:
    etag = (await api.get("/v1/categories")).headers["etag"]
    response = await api.client.get(
        "/v1/categories",
        headers={**api.headers("app"), "If-None-Match": asked.format(etag)},
    )
    assert (response.status_code, response.headers["etag"]) == (status, etag)
    assert bool(response.content) is (status == 200)


async def test_at_a_place_only_what_is_offered_and_answered_there(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    (tmp_path / "categories.toml").write_text(PLACES, encoding="utf-8")
    (tmp_path / "agreements.toml").write_text("", encoding="utf-8")
    async with serving(database_url, pool, rules=tmp_path) as api:

        async def listed(**place: float) -> dict[str, list[tuple[str, Any]]]:
            items = (await api.get("/v1/categories", **place)).json()["items"]
            return {
                one["code"]: [(each["phone"], each["when"]) for each in one["emergencies"]]
                for one in items
            }

        said = {"anyOf": [{"properties": {"deep": {"enum": [True]}}, "required": ["deep"]}]}
        anywhere = [("999", said)]
        assert await listed() == {"pothole": anywhere, "wall": []}
        assert await listed(**IN_WEST) == {"pothole": [*anywhere, ("111", True)]}
        assert await listed(**IN_SHIRE) == {"pothole": anywhere, "wall": []}
        assert await listed(**AT_SEA) == {"pothole": anywhere}

        async def told(**said: Any) -> list[str]:
            response = await api.post_report(**said)
            return [one["phone"] for one in response.json()["emergencies"]]

        assert await told(**IN_WEST, answers={"deep": True}) == ["999", "111"]
        assert await told(**IN_SHIRE, answers={"deep": True}) == ["999"]
        assert await told(**IN_SHIRE, answers={"deep": False}) == []


async def test_a_list_for_a_place_is_another_when_the_dataset_is(api: Api) -> None:
    everywhere = (await api.get("/v1/categories")).headers["etag"]
    response = await api.get("/v1/categories", **IN_WEST)
    etag = response.headers["etag"]
    assert etag != everywhere
    for tag, status in ((etag, 304), (everywhere, 200)):
        again = await api.client.get(
            "/v1/categories",
            params=IN_WEST,
            headers={**api.headers("app"), "If-None-Match": tag},
        )
        assert again.status_code == status
    half = await api.get("/v1/categories", lon=2.0)
    assert (half.status_code, slug(half)) == (422, "validation-failed")


async def test_who_may_not_ask_and_what_is_not_asked(api: Api) -> None:
    assert slug(await api.client.get("/v1/categories")) == "key-missing"
    refused = await api.get("/v1/categories", tier="highway")
    assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    assert [one["field"] for one in refused.json()["errors"]] == ["tier"]


async def test_answers_are_stored_shown_and_forwarded(api: Api) -> None:
    await api.register(WEST)
    receipt = (await api.post_report(answers=ANSWERS)).json()
    assert (await api.pool.fetchval("SELECT answers FROM report")) == ANSWERS
    assert (await api.get(receipt["links"]["self"])).json()["answers"] == ANSWERS
    async with api.pool.acquire() as conn:
        (claimed,) = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
    assert b'"answers":{"depth_cm":6.0,"width_cm":40.5,"cycle_route":true}' in payload(claimed)


async def test_none_are_an_empty_object(api: Api) -> None:
    await api.register(WEST)
    first = await api.post_report(idempotency_key="k")
    again = await api.post_report(idempotency_key="k", answers={})  # says the same
    assert again.json() == first.json()
    assert (await api.get(first.json()["links"]["self"])).json()["answers"] == {}
    async with api.pool.acquire() as conn:
        (claimed,) = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
    assert b'"answers":{}' in payload(claimed)


async def test_other_answers_are_another_report(api: Api) -> None:
    first = await api.post_report(idempotency_key="k", answers=ANSWERS)
    assert (await api.post_report(idempotency_key="k", answers=ANSWERS)).json() == first.json()
    for other in ({}, {**ANSWERS, "depth_cm": 7}):
        refused = await api.post_report(idempotency_key="k", answers=other)
        assert slug(refused) == "idempotency-key-reused"


async def test_every_answer_that_does_not_fit_is_named(api: Api) -> None:
    refused = await api.post_report(
        answers={"depth_cm": 201, "cycle_route": "yes", "colour": "black"}
    )
    assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    assert refused.json()["errors"] == [
        {"field": "answers.depth_cm", "message": "must be a number of cm from 0 to 200"},
        {"field": "answers.cycle_route", "message": "must be true or false"},
        {
            "field": "answers.colour",
            "message": "is no question of 'pothole'; known are: depth_cm, width_cm, cycle_route",
        },
    ]
    assert refused.json()["detail"].startswith("answers.depth_cm: must be a number of cm")
    assert (await api.rows())["idempotency"] == 0
    many = await api.post_report(answers={f"q{n}": True for n in range(30)})
    assert len(many.json()["errors"]) == 20
    assert many.json()["detail"].endswith("; and 27 more")


async def test_an_operator_s_questions(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    (tmp_path / "categories.toml").write_text(OWN, encoding="utf-8")
    (tmp_path / "agreements.toml").write_text("", encoding="utf-8")
    async with serving(database_url, pool, rules=tmp_path) as api:
        (category,) = (await api.get("/v1/categories")).json()["items"]
        assert category["answers_schema"]["required"] == ["lane"]
        refused = await api.post_report()
        assert refused.json()["errors"] == [
            {"field": "answers.lane", "message": "is required: In which lane?"}
        ]
        blank = await api.post_report(answers={"lane": "left", "note": " \n "})
        assert [one["field"] for one in blank.json()["errors"]] == ["answers.note"]
        taken = await api.post_report(answers={"lane": "left", "note": " a\r\nb "})
        assert taken.status_code == 201
        stored = await pool.fetchval("SELECT answers FROM report")
        assert stored == {"lane": "left", "note": "a\nb"}


async def test_a_retry_outlives_a_question_that_became_required(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    async with serving(database_url, pool) as api:
        first = await api.post_report(idempotency_key="k")
        (tmp_path / "categories.toml").write_text(OWN, encoding="utf-8")
        (tmp_path / "agreements.toml").write_text("", encoding="utf-8")
        api.app.state.wiring.live.rules = load_rules(tmp_path)
        assert (await api.post_report()).status_code == 422
        assert (await api.post_report(idempotency_key="k")).json() == first.json()
