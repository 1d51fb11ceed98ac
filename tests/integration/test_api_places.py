"""Asking who is responsible, and the authorities there are."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.support.app import (
    AT_SEA,
    IN_SHIRE,
    IN_WEST,
    ON_BORDER,
    SHIRE,
    VALE,
    WEST,
    Api,
    slug,
)

KEYS = ["app", "council", "other council", "operator"]


@pytest.mark.parametrize("key", KEYS)
async def test_every_role_may_ask(api: Api, key: str) -> None:
    response = await api.get("/v1/locate", key=key, **IN_SHIRE, category="litter")
    assert response.status_code == 200
    decision = response.json()
    assert decision["authority"] == {"id": str(api.authorities[VALE]), "code": VALE, "name": "Vale"}
    assert (decision["state"], decision["tier"]) == ("certain", "cleaning")
    assert (await api.get("/v1/authorities", key=key)).status_code == 200


async def test_a_key_is_needed(api: Api) -> None:
    for path in ("/v1/locate", "/v1/authorities", f"/v1/reports/{uuid4()}"):
        assert slug(await api.client.get(path)) == "key-missing"


async def test_an_answer_may_be_kept_while_its_tag_is_confirmed(api: Api) -> None:
    asked = {**IN_SHIRE, "category": "litter"}
    response = await api.get("/v1/locate", **asked)
    etag = response.headers["etag"]
    assert response.headers["cache-control"] == "private, max-age=60"
    for day, status in (({}, 304), ({"as_of": "2031-01-01"}, 200)):
        again = await api.client.get(
            "/v1/locate",
            params={**asked, **day},
            headers={**api.headers("app"), "If-None-Match": f'"x", W/{etag}'},
        )
        assert again.status_code == status
        assert bool(again.content) is (status == 200)
        assert (again.headers["etag"] == etag) is (status == 304)


async def test_outside_is_an_answer(api: Api) -> None:
    response = await api.get("/v1/locate", **AT_SEA, category="pothole")
    assert response.status_code == 200
    decision = response.json()
    assert (decision["state"], decision["rule"]) == ("outside", "outside")
    assert decision["authority"] is None
    assert decision["candidates"] == []
    swapped = (await api.get("/v1/locate", lon=50.5, lat=0.5, category="pothole")).json()
    assert (swapped["state"], swapped["rule"]) == ("outside", "swapped-axes")


async def test_a_border_names_both(api: Api) -> None:
    decision = (await api.get("/v1/locate", **ON_BORDER, category="pothole")).json()
    assert [one["code"] for one in decision["candidates"]] == [WEST, SHIRE]


async def test_near_a_border_the_citizen_is_asked_and_answers(api: Api) -> None:
    near = {**ON_BORDER, "lon": 0.9998, "category": "pothole"}  # 14 m inside West
    assert (await api.get("/v1/locate", **near)).json()["state"] == "certain"
    decision = (await api.get("/v1/locate", **near, accuracy_m=20)).json()
    assert (decision["state"], decision["rule"]) == ("ambiguous", "near-border")
    assert decision["question"] == "Is it in West or in Shire?"
    assert decision["candidates"][1]["distance_m"] == pytest.approx(14.2, abs=0.2)
    settled = (await api.get("/v1/locate", **near, accuracy_m=20, chosen=SHIRE)).json()
    assert (settled["state"], settled["rule"]) == ("certain", "chosen")
    assert settled["authority"]["code"] == SHIRE
    refused = await api.get("/v1/locate", **near, accuracy_m=20, chosen=VALE)
    assert (refused.status_code, slug(refused)) == (422, "not-a-candidate")
    assert refused.json()["candidates"] == [WEST, SHIRE]
    for query in ({"accuracy_m": -1}, {"accuracy_m": 10_001}, {"chosen": "a b"}):
        response = await api.get("/v1/locate", **near, **query)
        assert (response.status_code, slug(response)) == (422, "validation-failed")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"lat": 1, "category": "pothole"}, "lon"),
        ({"lon": "nan", "lat": 1, "category": "pothole"}, "lon"),
        ({"lon": 1, "lat": "inf", "category": "pothole"}, "lat"),
        ({"lon": 181, "lat": 1, "category": "pothole"}, "lon"),
        ({"lon": "east", "lat": 1, "category": "pothole"}, "lon"),
        ({"lon": 1, "lat": 1, "category": "pothole", "accuracy": 3}, "accuracy"),
        ({"lon": 1, "lat": 1}, "category"),
    ],
)
async def test_what_does_not_validate(api: Api, query: dict[str, Any], field: str) -> None:
    response = await api.get("/v1/locate", **query)
    assert (response.status_code, slug(response)) == (422, "validation-failed")
    assert [one["field"] for one in response.json()["errors"]] == [field]


async def test_an_unknown_category(api: Api) -> None:
    assert slug(await api.get("/v1/locate", **IN_WEST, category="ufo")) == "unknown-category"


async def test_authorities_page_by_page(api: Api) -> None:
    names: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        query: dict[str, Any] = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/v1/authorities", **query)).json()
        names += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert names == ["Shire", "Vale", "West"]
    assert cursor is None


async def test_an_authority_by_its_code(api: Api) -> None:
    (west,) = (await api.get("/v1/authorities", code=WEST)).json()["items"]
    assert west == {
        "id": str(api.authorities[WEST]),
        "name": "West",
        "codes": [{"scheme": "gss", "code": WEST}],
        "has_active_endpoint": False,
    }
    assert (await api.get("/v1/authorities", code="nobody")).json()["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "made up"},
        {"cursor": "WyJhIl0="},  # ["a"]
        {"cursor": "WyJcdTAwMDAiLCAiM2YwZTZmNmUtMmYwYy00YjdlLTlkMWEtNWEyYTg2YTdmMGMxIl0="},  # NUL
        {"cursor": "\u00e9"},
        {"limit": 0},
        {"limit": 201},
        {"code": "\x00"},
        {"sort": "name"},
    ],
)
async def test_lists_refuse_what_they_do_not_know(api: Api, query: dict[str, Any]) -> None:
    assert slug(await api.get("/v1/authorities", **query)) == "validation-failed"


async def test_how_many_reports_are_held_is_told_to_those_it_concerns(api: Api) -> None:
    await api.post_report()
    path = f"/v1/authorities/{api.authorities[WEST]}"
    seen = {key: (await api.get(path, key=key)).json()["held"] for key in KEYS}
    assert seen == {"app": None, "council": 1, "other council": None, "operator": 1}
    await api.register(WEST)
    assert (await api.get(path)).json()["has_active_endpoint"] is True
    assert (await api.get(path, key="council")).json()["held"] == 0
    assert slug(await api.get(f"/v1/authorities/{uuid4()}")) == "not-found"


async def test_distances_of_nearly_nothing_are_distances(api: Api) -> None:
    meridian = {"lon": 1e-200, "lat": 50.5, "category": "pothole"}
    posted = await api.post_report(**meridian)
    assert posted.status_code == 201, posted.text
    for lon in (0.0, 1e-200, 5e-324):
        found = await api.get("/v1/nearby", **{**meridian, "lon": lon})
        assert [one["distance_m"] for one in found.json()["items"]] == [0.0]
    assert (await api.get("/v1/nearby", **meridian, radius_m=5e-324)).status_code == 422


async def test_a_day_before_all_datasets_is_no_reason_to_try_again(api: Api) -> None:
    answer = await api.get("/v1/locate", **IN_WEST, category="pothole", as_of="0675-10-17")
    assert (answer.status_code, slug(answer)) == (422, "validation-failed")
    assert [one["field"] for one in answer.json()["errors"]] == ["as_of"]
