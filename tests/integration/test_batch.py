"""A device's queue of reports in one request: each is answered by itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from api import db
from api.routes import batch
from tests.support.app import AT_SEA, IN_SHIRE, IN_WEST, Api, slug

REPORT: dict[str, Any] = {**IN_WEST, "category": "pothole", "description": "a hole"}


def draft(key: str, **fields: Any) -> dict[str, Any]:
    return {"idempotency_key": key, "report": {**REPORT, **fields}}


async def send(api: Api, *items: Any, key: str = "app") -> httpx.Response:
    return await api.client.post(
        batch.PATH,
        content=json.dumps({"items": items}),
        headers={**api.headers(key), "Content-Type": "application/json"},
    )


async def answers(api: Api, *items: Any) -> list[dict[str, Any]]:
    response = await send(api, *items)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    assert len(found) == len(items)
    return found


def problem(item: dict[str, Any]) -> str:
    """The slug of an item that was refused as a report of its own would be."""
    assert item["receipt"] is None
    assert item["problem"]["status"] == item["status"]
    assert item["problem"]["detail"]
    return str(item["problem"]["type"].removeprefix("urn:georouter:problem:"))


async def test_each_is_answered_as_if_it_had_come_by_itself(api: Api) -> None:
    found = await answers(
        api,
        draft("a"),
        draft("b", **AT_SEA),
        "no draft",
        {"idempotency_key": "c"},
        draft("d", lon="east"),
        draft("e", category="meteor"),
        draft("é"),
        draft("a"),
        draft("a", description="another hole"),
        draft("f", **IN_SHIRE, observed_at="1970-01-01T00:00:00+02:00"),
        None,
        draft("g", answers={"depth_cm": "deep"}),
        draft("h", category="half a pair \ud800"),
        draft("half a pair \ud800"),
        {**draft("i"), "colour": "\ud800"},
    )
    assert [one["status"] for one in found] == [
        *(201, 422, 422, 422, 422, 422, 400, 201, 422, 201, 422, 422, 422, 400, 422)
    ]
    refused = [problem(one) for one in found if one["status"] != 201]
    assert refused == [
        "outside-service-area",
        "validation-failed",
        "validation-failed",
        "validation-failed",
        "unknown-category",
        "invalid-idempotency-key",
        "idempotency-key-reused",
        "validation-failed",
        "validation-failed",
        "validation-failed",
        "invalid-idempotency-key",
        "validation-failed",
    ]
    assert found[3]["problem"]["errors"] == [{"field": "report", "message": "is required"}]
    assert [one["field"] for one in found[4]["problem"]["errors"]] == ["lon"]
    assert "known" in found[5]["problem"]
    assert [one["replayed"] for one in found if one["receipt"]] == [False, True, False]
    assert found[7]["receipt"] == found[0]["receipt"]
    single = await api.post_report(idempotency_key="a")
    assert single.json() == found[0]["receipt"]
    assert (await api.rows())["report"] == 2


async def test_a_retry_of_the_batch_replays(api: Api) -> None:
    items = [draft(f"k-{n}", contact={"email": f"jo{n}@example.org"}) for n in range(50)]
    cut = await answers(api, *items[:20])
    whole = await answers(api, *items)
    assert [one["replayed"] for one in whole] == [True] * 20 + [False] * 30
    assert [one["receipt"] for one in whole[:20]] == [one["receipt"] for one in cut]
    again = await answers(api, *items)
    assert [one["receipt"] for one in again] == [one["receipt"] for one in whole]
    assert all(one["replayed"] for one in again)
    assert (await api.rows())["report"] == 50


async def test_batches_and_single_posts_at_once_are_one_report_a_key(api: Api) -> None:
    await api.register()
    items = [draft(f"k-{n}") for n in range(5)]
    batches, singles = await asyncio.gather(
        asyncio.gather(*(answers(api, *items) for _ in range(10))),
        asyncio.gather(*(api.post_report(idempotency_key=f"k-{n % 5}") for n in range(50))),
    )
    for n in range(5):
        receipts = [one[n]["receipt"] for one in batches]
        receipts += [one.json() for one in singles[n::5]]
        assert len(receipts) == 20
        assert all(one == receipts[0] for one in receipts)
        fresh = sum(not one[n]["replayed"] for one in batches)
        fresh += sum("idempotency-replayed" not in one.headers for one in singles[n::5])
        assert fresh == 1
    rows = await api.rows()
    assert (rows["report"], rows["delivery"]) == (5, 5)


async def test_a_duplicate_in_a_batch(api: Api) -> None:
    (first,) = await answers(api, draft("a"))
    original = first["receipt"]["id"]
    joined, lone = await answers(api, draft("b", duplicate_of=original), draft("c"))
    assert (joined["receipt"]["forwarding"], joined["receipt"]["reports"]) == ("joined", 2)
    assert lone["receipt"]["id"] != original


async def test_what_is_no_batch(api: Api) -> None:
    for body in ({}, {"items": []}, {"items": [draft("a")] * 51}, {"items": 7}, [draft("a")]):
        refused = await api.client.post(batch.PATH, json=body, headers=api.headers("app"))
        assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    assert slug(await send(api, draft("a"), key="council")) == "forbidden"
    assert slug(await api.client.post(batch.PATH, json={})) == "key-missing"
    assert (await api.rows())["report"] == 0


async def test_a_batch_may_be_larger_than_a_report(api: Api) -> None:
    items = [draft(f"k-{n}", description="é" * 4000) for n in range(40)]
    assert len(json.dumps({"items": items})) > 65_536
    assert {one["status"] for one in await answers(api, *items)} == {201}
    huge = await api.client.post(
        batch.PATH,
        content=json.dumps({"items": items}).ljust(1_048_577),
        headers={**api.headers("app"), "Content-Type": "application/json"},
    )
    assert (huge.status_code, slug(huge)) == (413, "body-too-large")


async def test_an_outage_in_the_middle_is_said_of_each_that_it_met(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered 201 is stored; the rest may be sent again."""
    take = batch.take
    met = []

    async def failing(body: Any, key: str | None, *more: Any, **named: Any) -> Any:
        met.append(key)
        if len(met) == 2:
            raise db.DatabaseUnavailable("gone")
        if len(met) == 3:
            raise RuntimeError(body.description)
        return await take(body, key, *more, **named)

    monkeypatch.setattr(batch, "take", failing)
    items = [draft(f"k-{n}") for n in range(4)]
    found = await answers(api, *items)
    assert [one["status"] for one in found] == [201, 503, 500, 201]
    assert problem(found[1]) == "database-unavailable"
    assert problem(found[2]) == "internal-error"
    assert found[2]["problem"]["correlation_id"]
    assert "a hole" not in json.dumps(found[2])
    again = await answers(api, *items)
    assert [one["replayed"] for one in again] == [True, False, False, True]
