"""What anybody may see of reports: those near a place, and the list as GeoJSON."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from math import hypot
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg
import pytest
from pyproj import Geod

from api import db
from api.store import places
from tests.support import rows
from tests.support.app import IN_SHIRE, IN_WEST, SHIRE, WEST, Api, slug

WGS84 = Geod(ellps="WGS84")
WHO = "Ring Jo on 07700 900123 or jo@example.org, by the van AB12 CDE outside 12 High Street"
MASKED = "Ring Jo on [phone] or [e-mail], by the van [number plate] outside 12 High Street"


async def say(api: Api, report_id: str, code: str, state: str, **more: Any) -> None:
    response = await api.client.post(
        f"/v1/authorities/{api.authorities[code]}/reports/{report_id}/updates",
        json={"update_id": f"{state}-{random.random()}", "state": state, **more},
        headers=api.headers("operator"),
    )
    assert response.status_code == 201


async def near(api: Api, **asked: Any) -> list[dict[str, Any]]:
    response = await api.get("/v1/nearby", **{**IN_WEST, "category": "pothole", **asked})
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def listed(api: Api, **asked: Any) -> list[str]:
    response = await api.get("/v1/reports", **asked)
    assert response.status_code == 200, response.text
    return [one["id"] for one in response.json()["features"]]


# --- nearby ---------------------------------------------------------------------------------------


async def test_nearby_are_the_nearest_within_the_radius(api: Api) -> None:
    lon, lat = IN_WEST["lon"], IN_WEST["lat"]
    posted = {}
    for metres, azimuth in ((400, 10), (249, 80), (12, 200), (251, 300), (0, 0), (180, 130)):
        x, y, _ = WGS84.fwd(lon, lat, azimuth, metres)
        posted[metres] = (await api.post_report(lon=x, lat=y)).json()["id"]
    await api.post_report(category="litter")
    found = await near(api)
    assert [one["id"] for one in found] == [posted[n] for n in (0, 12, 180, 249)]
    assert [one["distance_m"] for one in found] == pytest.approx([0, 12, 180, 249], rel=0.01)
    assert len(await near(api, radius_m=500)) == 5  # of six: five by default
    assert len(await near(api, radius_m=500, limit=6)) == 6
    assert [one["id"] for one in await near(api, radius_m=11)] == [posted[0]]


async def test_nearby_says_what_a_citizen_needs_to_know_theirs(api: Api) -> None:
    posted = (await api.post_report(description=f"{WHO}. {'And much more of it. ' * 20}")).json()
    await say(api, posted["id"], WEST, "planned")
    await api.pool.execute("UPDATE report SET received_at = now() - interval '50 hours'")
    (found,) = await near(api)
    assert (found["age_days"], found["status"], found["reports"]) == (2, "planned", 1)
    assert found["description"].startswith(MASKED)
    assert len(found["description"]) == 140
    assert found["description"].endswith("…")


async def test_what_is_closed_is_near_no_more_until_it_is_still_there(api: Api) -> None:
    await api.register(WEST)
    posted = (await api.post_report()).json()["id"]
    for state, count in (("fixed", 0), ("reopened", 1), ("fixed", 0)):
        await say(api, posted, WEST, state)
        assert len(await near(api)) == count


async def test_what_is_asked_of_nearby_is_checked(api: Api) -> None:
    assert slug(await api.client.get("/v1/nearby")) == "key-missing"
    for bad in ({"radius_m": 0}, {"radius_m": 5001}, {"limit": 51}, {"lon": 181}, {"x": 1}):
        refused = await api.get("/v1/nearby", **{**IN_WEST, "category": "pothole", **bad})
        assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    unknown = await api.get("/v1/nearby", **IN_WEST, category="dragon")
    assert (unknown.status_code, slug(unknown)) == (422, "unknown-category")


# --- the list -------------------------------------------------------------------------------------


async def test_a_report_as_the_public_sees_it(api: Api) -> None:
    posted = (
        await api.post_report(lon=0.123456789, lat=50.5, description=WHO, answers={"depth_cm": 3})
    ).json()
    await say(api, posted["id"], WEST, "investigating", note="We look at it.")
    response = await api.get("/v1/reports")
    assert response.headers["content-type"] == "application/geo+json"
    assert "link" not in response.headers
    collection = response.json()
    assert (collection["type"], collection["next_cursor"]) == ("FeatureCollection", None)
    (feature,) = collection["features"]
    assert feature["geometry"] == {"type": "Point", "coordinates": [0.12346, 50.5]}
    properties = feature["properties"]
    assert properties["updated_at"] > properties["received_at"] == posted["received_at"]
    del properties["updated_at"], properties["received_at"]
    assert properties == {
        "category": "pothole",
        "authority": "West",
        "authority_code": WEST,
        "state": "open",
        "status": "investigating",
        "description": MASKED,
        "reports": 1,
    }


async def test_each_condition_narrows_the_list(api: Api) -> None:
    west = (await api.post_report()).json()
    shire = (await api.post_report(**IN_SHIRE, category="manhole")).json()
    await say(api, shire["id"], SHIRE, "closed", reason="duplicate")
    day = timedelta(days=1)
    now = datetime.fromisoformat(west["received_at"])
    assert await listed(api) == [shire["id"], west["id"]]
    for asked, found in (
        ({"bbox": "0,50,1,51"}, west),
        ({"bbox": "1,50,2,51"}, shire),
        ({"category": "manhole"}, shire),
        ({"authority": WEST}, west),
        ({"state": "open"}, west),
        ({"state": "closed"}, shire),
        ({"received_to": shire["received_at"]}, west),
        ({"received_from": shire["received_at"]}, shire),
        ({"updated_since": shire["received_at"]}, shire),
        ({"received_from": (now - day).isoformat(), "category": "pothole"}, west),
    ):
        assert await listed(api, **asked) == [found["id"]], asked
    assert await listed(api, received_to=(now - day).isoformat()) == []
    assert await listed(api, authority="nobody") == []


async def test_pages_show_each_report_once_while_others_come_in(api: Api) -> None:
    before = {(await api.post_report()).json()["id"] for _ in range(7)}
    seen: list[str] = []
    response = await api.get("/v1/reports", limit=2, state="open")
    while True:
        seen += [one["id"] for one in response.json()["features"]]
        await api.post_report()
        cursor = response.json()["next_cursor"]
        if cursor is None:
            break
        target, _, kind = response.headers["link"].partition("; ")
        assert kind == 'rel="next"'
        asked = dict(parse_qsl(urlsplit(target.strip("<>")).query))
        assert asked == {"limit": "2", "state": "open", "cursor": cursor}
        response = await api.get("/v1/reports", **asked)
    assert len(seen) == len(set(seen))
    assert set(seen) == before
    refused = await api.get("/v1/reports", cursor="nonsense")
    assert (refused.status_code, slug(refused)) == (422, "validation-failed")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"bbox": "1,2,3"}, "four numbers"),
        ({"bbox": "a,2,3,4"}, "four numbers"),
        ({"bbox": "nan,2,3,4"}, "in degrees"),
        ({"bbox": "0,51,1,50"}, "the south first"),
        ({"bbox": "0,50,181,51"}, "in degrees"),
        ({"bbox": "170,50,-170,51"}, "antimeridian"),
        ({"state": "gone"}, "open"),
        ({"received_from": "yesterday"}, "RFC 3339"),
        ({"received_from": "1700000000"}, "RFC 3339"),
        ({"limit": 1001}, "1000"),
        ({"reporter": "jo"}, ""),
    ],
)
async def test_what_is_asked_of_the_list_is_checked(
    api: Api, asked: dict[str, Any], said: str
) -> None:
    refused = await api.get("/v1/reports", **asked)
    assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    (error,) = refused.json()["errors"]
    assert error["field"] == next(iter(asked))
    assert said in error["message"]


@pytest.mark.parametrize("key", ["app", "council", "other council", "operator"])
async def test_every_role_may_see_what_is_public(api: Api, key: str) -> None:
    await api.post_report()
    assert len((await api.get("/v1/reports", key=key)).json()["features"]) == 1
    assert slug(await api.client.get("/v1/reports")) == "key-missing"


# --- among many -----------------------------------------------------------------------------------


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database with 50,000 reports on a degree square, each received a minute after the other."""
    conn = await db.connect(database_url)
    await rows.report(conn, await rows.authority(conn))
    await conn.execute(
        """
        WITH more AS (
            INSERT INTO report (id, received_at, api_key_id, lon, lat, category, description,
                                decision, dataset_id, authority_id, held_on_receipt)
            SELECT gen_random_uuid(), now() - n * interval '1 minute', api_key_id,
                   (n * 7919 % 50000) / 50000.0, 51 + (n * 104729 % 50000) / 50000.0, category,
                   description, decision, dataset_id, authority_id, held_on_receipt
            FROM (SELECT * FROM report LIMIT 1) AS one
            CROSS JOIN generate_series(1::bigint, 50000) AS n
            RETURNING id, received_at, authority_id
        )
        INSERT INTO report_event (report_id, n, at, kind, authority_id)
        SELECT id, 1, received_at, 'received', authority_id FROM more
        """
    )
    await conn.execute("ANALYZE")
    yield conn
    await conn.close()


async def test_both_go_through_indexes_among_many(conn: asyncpg.Connection) -> None:
    seen: list[asyncpg.LoggedQuery] = []
    category = await conn.fetchval("SELECT category FROM report LIMIT 1")
    with conn.query_logger(seen.append):
        found = await places.find_near(
            conn, lon=0.5, lat=51.5, category=category, radius_m=2000, limit=50
        )
        await places.list_reports(conn, places.Wanted(), after=None, limit=50)
        box = (0.5, 51.5, 0.51, 51.51)
        boxed = await places.list_reports(conn, places.Wanted(box=box), after=None, limit=1000)
    for query, index in zip(seen, ("report_place", "report_by_time", "report_place"), strict=True):
        await conn.execute("SET plan_cache_mode = force_custom_plan")
        plan = json.loads(
            await conn.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query.query}", *query.args)
        )[0]["Plan"]
        text = json.dumps(plan)
        assert f'"Index Name": "{index}"' in text, text
        assert (
            '"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Relation Name": "report"'
            not in text
        )

    every = await conn.fetch("SELECT id, lon, lat FROM report WHERE category = $1", category)
    _, _, distances = WGS84.inv(
        [0.5] * len(every),
        [51.5] * len(every),
        [r["lon"] for r in every],
        [r["lat"] for r in every],
    )
    inside = sorted((d, r["id"]) for d, r in zip(distances, every, strict=True) if d < 1990)
    assert len(inside) >= 50
    assert [r["distance_m"] for r in found] == pytest.approx([d for d, _ in inside[:50]], rel=0.01)
    assert {r["id"] for r in boxed} == {
        r["id"] for r in every if box[0] <= r["lon"] <= box[2] and box[1] <= r["lat"] <= box[3]
    }
    assert all(hypot(r["lon"] - 0.505, r["lat"] - 51.505) < 0.0075 for r in boxed)
