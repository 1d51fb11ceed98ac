"""A preview says what both routers say at every place, and routes few of them to know it."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely

from api.routing import load_rules
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.preview import (
    Edition,
    Preview,
    Question,
    as_json,
    open_edition,
    preview,
    read_questions,
    sentence,
)
from boundaries.roads import RoadsSource
from boundaries.tables import BulkError
from georouter.model import NotACandidate
from georouter.router import Router
from tests.support.realdata import real_data

DAY = date(2026, 11, 23)
RULES = load_rules(None)
CATEGORIES = ("pothole", "litter")


def build(out: Path, layers: dict[str, Path], trunk: dict[str, Any] | None = None) -> Edition:
    roads = {"red_route": [RoadsSource(sample.RED_ROUTES)]}
    if trunk:
        file = out.with_suffix(".trunk.geojson")
        file.write_text(json.dumps(trunk))
        roads["trunk"] = [RoadsSource(file)]
    build_dataset(
        layers,
        out,
        built_at=datetime(2027, 1, 15, tzinfo=UTC),
        proof_points=700,
        roads=roads,
    )
    return open_edition(out)


@pytest.fixture(scope="module")
def editions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Edition]:
    """Doggerland, and as it might become.

    A strip goes from one district to another, an area gets another code, the D1 ends a bit earlier
    and another body mends the D2.
    """
    place = tmp_path_factory.mktemp("editions")
    files = sample.layer_files()
    trunk = json.loads(sample.TRUNK_ROADS.read_text())
    whole = build(place / "before", files, trunk)
    for name, path in files.items():
        told = json.loads(path.read_text())
        shapes = {
            one["properties"]["code"]: shapely.geometry.shape(one["geometry"])
            for one in told["features"]
        }
        first, second = _neighbours(shapes)
        strip = shapely.intersection(shapes[first], shapely.buffer(shapes[second], 0.004))
        shapes[first] = shapely.difference(shapes[first], strip)
        shapes[second] = shapely.union(shapes[second], strip)
        for one in told["features"]:
            code = one["properties"]["code"]
            one["geometry"] = shapely.geometry.mapping(shapes[code])
            if code == max(shapes):
                one["properties"]["code"] = f"{code}X"
        (place / f"{name}.geojson").write_text(json.dumps(told))
    changed = json.loads(sample.TRUNK_ROADS.read_text())
    line = changed["features"][0]["geometry"]["coordinates"]
    changed["features"][0]["geometry"]["coordinates"] = line[: len(line) * 3 // 4]
    changed["features"][1]["properties"] |= {"code": "OTHER", "name": "Other Roads"}
    after = build(place / "after", {name: place / f"{name}.geojson" for name in files}, changed)
    return {"before": whole, "after": after, "roadless": build(place / "roadless", files)}


def _neighbours(shapes: dict[str, Any]) -> tuple[str, str]:
    """Two areas that share the longest border."""
    pairs = [(one, other) for one in shapes for other in shapes if one < other]
    return max(pairs, key=lambda pair: shapes[pair[0]].intersection(shapes[pair[1]]).length)


def questions(edition: Edition, count: int, *, seed: int) -> list[Question]:
    """Anywhere, but half of them beside a border or road."""
    chance = random.Random(seed)
    west, south, east, north = edition.dataset.manifest["bounds"]
    found = []
    for n in range(count):
        lon, lat = chance.uniform(west, east), chance.uniform(south, north)
        if n % 2:
            areas = chance.choice(list(edition.areas or ()))
            at = chance.randrange(len(areas.x))
            spread = chance.choice((1e-5, 1e-4, 2e-3))
            lon = float(areas.x[at]) / 1e7 + chance.gauss(0, spread)
            lat = float(areas.y[at]) / 1e7 + chance.gauss(0, spread)
        found.append(
            Question(
                ref=str(n),
                lon=lon,
                lat=lat,
                category=chance.choice(sorted(RULES.categories)),
                accuracy_m=chance.choice((None, 0.0, 5.0, 60.0, 150.0, 800.0, 5_000.0)),
                road_ref=chance.choice((None, None, None, "D1", "D2")),
                chosen=chance.choice((None, None, "OTHER", "D06000001")),
                refused=chance.choice(((), (), ("D06000001",))),
                open=n % 3 == 0,
            )
        )
    return found


def by_brute_force(old: Edition, new: Edition, asked: list[Question]) -> Counter[Any]:
    routers = [
        Router(one.dataset.index, rules=RULES, dataset="any", roads=one.dataset.roads)
        for one in (old, new)
    ]
    found: Counter[Any] = Counter()
    for one in asked:
        codes = []
        for router in routers:
            fields = dataclasses.asdict(one)
            for name in ("ref", "open"):
                del fields[name]
            try:
                decision = router.route(**fields, as_of=DAY)
            except NotACandidate:
                decision = router.route(**{**fields, "chosen": None}, as_of=DAY)
            codes.append(decision.responsible.code if decision.responsible else None)
        if codes[0] != codes[1]:
            found[tuple(codes)] += 1
    return found


def told(found: Preview) -> Counter[Any]:
    return Counter(
        {
            (one.source and one.source.code, one.target and one.target.code): one.count
            for one in found.handovers
        }
    )


@pytest.mark.parametrize(
    ("old", "new"), [("before", "after"), ("after", "before"), ("before", "roadless")]
)
def test_a_preview_says_what_both_routers_say(
    editions: dict[str, Edition], old: str, new: str
) -> None:
    asked = questions(editions[old], 6_000, seed=1)
    found = preview(editions[old], editions[new], asked, rules=RULES, as_of=DAY)
    want = by_brute_force(editions[old], editions[new], asked)
    assert told(found) == want
    assert len(want) >= 2
    assert 0 < found.routed < len(asked)
    assert found.unanswerable == 0


def test_the_same_dataset_changes_nothing_and_routes_nothing(editions: dict[str, Edition]) -> None:
    one = editions["before"]
    found = preview(one, one, questions(one, 500, seed=2), rules=RULES, as_of=DAY)
    assert (found.asked, found.routed, found.handovers) == (500, 0, ())


def test_without_areas_everything_is_routed(editions: dict[str, Edition]) -> None:
    old, new = editions["before"], editions["after"]
    asked = questions(old, 300, seed=3)
    bare = dataclasses.replace(new, areas=None)
    found = preview(old, bare, asked, rules=RULES, as_of=DAY)
    assert found.routed == 300
    assert found.handovers == preview(old, new, asked, rules=RULES, as_of=DAY).handovers


def test_samples_open_reports_and_words(editions: dict[str, Edition]) -> None:
    old, new = editions["before"], editions["after"]
    asked = [*questions(old, 3_000, seed=4), Question("lost", 2.5, 54.7, "no_such_category")]
    found = preview(old, new, asked, rules=RULES, as_of=DAY, everywhere=True)
    assert found.unanswerable == 1
    first = found.handovers[0]
    assert [one.count for one in found.handovers] == sorted(
        (one.count for one in found.handovers), reverse=True
    )
    assert len(first.samples) == 3
    assert 0 < len(first.open) < first.count
    assert all(one.open for one in first.open)
    line = sentence(first)
    assert f"{len(first.open)} of them open reports" in line
    assert f"{first.samples[0].lat:.5f}, {first.samples[0].lon:.5f}" in line
    whole = json.loads(json.dumps(as_json(found)))
    assert whole["change"] == sum(one.count for one in found.handovers)
    assert whole["handovers"][0]["open"] == [one.ref for one in first.open]


def test_points_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(
        "lon,lat,category,accuracy_m,road_ref\n2.1,54.7,litter,30,\nx,54.7,,,\n2.2,54.8,,,D1\n"
    )
    found, bad = read_questions(path, category="pothole")
    assert bad == 1
    assert found == [
        Question("1", 2.1, 54.7, "litter", 30.0),
        Question("3", 2.2, 54.8, "pothole", None, "D1"),
    ]
    path.write_text("lon,lat,accuracy_m\n2.1,54.7,-1\n")
    with pytest.raises(BulkError, match="accuracy_m must not be negative"):
        read_questions(path, category="pothole")


@pytest.mark.realdata
def test_a_preview_of_the_real_country_is_what_both_routers_say(tmp_path: Path) -> None:
    data = real_data()
    editions = []
    for name, file in (("old", "lad_2024_buc.geojson"), ("new", "lad_2025_bgc.parquet")):
        build_dataset(
            {"district": data / file},
            tmp_path / name,
            built_at=datetime(2027, 1, 15, tzinfo=UTC),
            proof_points=1_000,
        )
        editions.append(open_edition(tmp_path / name))
    places, _ = read_questions(data / "points_140k.csv.gz", category="pothole")
    chosen = random.Random(5).sample(places, 2_000)
    asked = [dataclasses.replace(one, category=CATEGORIES[n % 2]) for n, one in enumerate(chosen)]
    found = preview(*editions, asked, rules=RULES, as_of=DAY)
    assert told(found) == by_brute_force(*editions, asked)
    assert found.handovers
    assert found.routed < 2_000
