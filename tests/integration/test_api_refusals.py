"""Everything that is refused, and that nothing is stored then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api import db
from tests.support import postgres
from tests.support.app import AT_SEA, IN_WEST, Api, serving, slug

GOOD = {**IN_WEST, "category": "pothole", "description": "a hole"}


@pytest.fixture(scope="module")
async def api(cluster_url: str, template: str) -> AsyncIterator[Api]:
    """One application for all: what stores nothing leaves nothing to the next test."""
    async with (
        postgres.database(cluster_url, template=template) as dsn,
        await db.create_pool(dsn, size=2) as pool,
        serving(dsn, pool) as api,
    ):
        yield api


@pytest.fixture(autouse=True)
async def nothing_is_stored(api: Api) -> AsyncIterator[None]:
    yield
    assert set((await api.rows()).values()) == {0}


async def post(api: Api, content: Any, **headers: str) -> httpx.Response:
    return await api.client.post(
        "/v1/reports",
        content=content,
        headers={
            "Content-Type": "application/json",
            "Idempotency-Key": "k",
            **api.headers("app"),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != field}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**GOOD, "lon": float("nan")}, "lon"),
        ({**GOOD, "lat": float("inf")}, "lat"),
        ({**GOOD, "lat": float("-inf")}, "lat"),
        ({**GOOD, "lon": "0.5"}, "lon"),
        ({**GOOD, "lon": True}, "lon"),
        ({**GOOD, "lon": None}, "lon"),
        ({**GOOD, "lon": [0.5]}, "lon"),
        ({**GOOD, "lon": 180.1}, "lon"),
        ({**GOOD, "lat": -90.1}, "lat"),
        ({**GOOD, "lon": 10**400}, "lon"),
        (without("lon"), "lon"),
        (without("category"), "category"),
        (without("description"), "description"),
        ({**GOOD, "category": ""}, "category"),
        ({**GOOD, "category": 7}, "category"),
        ({**GOOD, "category": "x" * 65}, "category"),
        ({**GOOD, "category": "\ud800"}, "category"),
        ({**GOOD, "description": ""}, "description"),
        ({**GOOD, "description": " \n\t "}, "description"),
        ({**GOOD, "description": "x" * 4001}, "description"),
        ({**GOOD, "description": "nul \x00"}, "description"),
        ({**GOOD, "description": "bell \x07"}, "description"),
        ({**GOOD, "description": "c1 \x85 inside"}, "description"),
        ({**GOOD, "description": "half a pair \ud800"}, "description"),
        ({**GOOD, "description": ["a hole"]}, "description"),
        ({**GOOD, "accuracy_m": -1}, "accuracy_m"),
        ({**GOOD, "accuracy_m": 10_001}, "accuracy_m"),
        ({**GOOD, "accuracy_m": "8"}, "accuracy_m"),
        ({**GOOD, "observed_at": "2026-11-02T08:15:00"}, "observed_at"),
        ({**GOOD, "observed_at": "2026-11-02"}, "observed_at"),
        ({**GOOD, "observed_at": "yesterday"}, "observed_at"),
        ({**GOOD, "observed_at": "2026-02-30T08:15:00Z"}, "observed_at"),
        ({**GOOD, "observed_at": 1_793_600_000}, "observed_at"),
        ({**GOOD, "answers": None}, "answers"),
        ({**GOOD, "answers": ["depth_cm"]}, "answers"),
        ({**GOOD, "answers": {f"q{n}": 1 for n in range(31)}}, "answers"),
        ({**GOOD, "answers": {"depth_cm": None}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"depth_cm": [6]}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"depth_cm": "6"}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"depth_cm": float("nan")}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"depth_cm": 10**400}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"depth_cm": "x" * 501}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"depth_cm": "nul \x00"}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"depth_cm": "half a pair \ud800"}}, "answers.depth_cm"),
        ({**GOOD, "answers": {"colour": "black"}}, "answers.colour"),
        ({**GOOD, "answers": {"x" * 65: 1}}, "answers." + "x" * 65),
        ({**GOOD, "answers": {"bell \x07": 1}}, "answers.bell \x07"),
        ({**GOOD, "answers": {"\ud800": 1}}, "answers.\ufffd\ufffd\ufffd"),
        ({**GOOD, "authority": "X06000001"}, "authority"),
        ({**GOOD, "\ud800": 1}, "body"),
        ([GOOD], "body"),
        ("a hole", "body"),
        (None, "body"),
    ],
)
async def test_what_does_not_validate(api: Api, body: Any, field: str) -> None:
    response = await post(api, json.dumps(body))
    assert (response.status_code, slug(response)) == (422, "validation-failed")
    (error,) = response.json()["errors"]
    assert error["field"] == field
    assert error["message"]


async def test_every_field_at_fault_is_named(api: Api) -> None:
    response = await post(api, json.dumps({"lon": "x", "lat": 91, "category": "pothole", "a": 1}))
    errors = response.json()["errors"]
    assert [one["field"] for one in errors] == ["lon", "lat", "description", "a"]


async def test_a_flood_of_errors_is_cut(api: Api) -> None:
    response = await post(api, json.dumps(GOOD | {f"f{n}": n for n in range(1000)}))
    assert len(response.json()["errors"]) == 20
    assert len(response.content) < 4000


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"lon": 0.5,}',
        b"\xff\xfe",
        b'{"lon": "\xff"}',
        b"[" * 60_000,
        b"1" * 5000,
    ],
)
async def test_what_is_no_json(api: Api, content: bytes) -> None:
    response = await post(api, content)
    assert response.status_code == 400
    assert slug(response) in {"malformed-json", "bad-request"}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
async def test_what_is_not_declared_as_json(api: Api, kind: str) -> None:
    response = await post(api, json.dumps(GOOD), Content_Type=kind)
    assert (response.status_code, slug(response)) == (415, "unsupported-media-type")


async def pieces(length: int) -> AsyncIterator[bytes]:
    for _ in range(0, length, 1000):
        yield b" " * 1000


async def test_a_body_that_is_too_large(api: Api) -> None:
    announced = await post(api, b" " * 65_537)
    chunked = await post(api, pieces(66_000))
    assert "content-length" not in chunked.request.headers
    for response in (announced, chunked):
        assert (response.status_code, slug(response)) == (413, "body-too-large")
    unreadable = await post(api, b"", Content_Length="9" * 5000)
    assert unreadable.status_code == 413


async def test_an_unknown_category_is_answered_with_the_known(api: Api) -> None:
    response = await api.post_report(category="ufo")
    assert (response.status_code, slug(response)) == (422, "unknown-category")
    assert "pothole" in response.json()["known"]
    assert response.json()["errors"][0]["field"] == "category"
    odd = await post(api, json.dumps({**GOOD, "category": "\x00\u202e"}))
    assert slug(odd) == "unknown-category"


async def test_outside_and_swapped(api: Api) -> None:
    outside = await api.post_report(**AT_SEA)
    assert (outside.status_code, slug(outside)) == (422, "outside-service-area")
    swapped = await api.post_report(lon=50.5, lat=0.5)
    assert (swapped.status_code, slug(swapped)) == (422, "swapped-axes")
    assert [one["field"] for one in swapped.json()["errors"]] == ["lon", "lat"]


@pytest.mark.parametrize("key", ["", "x" * 256, "t\u00e9l", "a\tb"])
async def test_an_idempotency_key_that_is_none(api: Api, key: str) -> None:
    response = await api.client.post(
        "/v1/reports",
        json=GOOD,
        headers=[
            (b"idempotency-key", key.encode("latin-1")),
            (b"authorization", api.headers("app")["Authorization"].encode()),
        ],
    )
    assert (response.status_code, slug(response)) == (400, "invalid-idempotency-key")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "key-missing"),
        ("", "key-unknown"),
        ("Bearer", "key-unknown"),
        ("Basic dXNlcjpwYXNz", "key-unknown"),
        ("Bearer grk_short", "key-unknown"),
        ("Bearer grk_" + "A" * 43, "key-unknown"),
    ],
)
async def test_keys_that_are_none(api: Api, header: str | None, expected: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = await api.client.post("/v1/reports", json=GOOD, headers=headers)
    assert (response.status_code, slug(response)) == (401, expected)
    assert response.headers["www-authenticate"].startswith('Bearer realm="georouter"')


async def test_who_is_asking_comes_before_what_is_asked(api: Api) -> None:
    response = await api.client.post("/v1/reports", json={"lon": "x"})
    assert response.status_code == 401


async def test_the_framework_s_own_refusals_look_the_same(api: Api) -> None:
    missing = await api.get("/v1/nothing")
    assert (missing.status_code, slug(missing)) == (404, "not-found")
    slash = await api.get("/v1/reports/")
    assert slash.status_code in {404, 422}
    method = await api.delete("/v1/reports")
    assert (method.status_code, slug(method)) == (405, "method-not-allowed")
    assert method.headers["allow"] == "GET, POST"
