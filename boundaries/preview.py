"""Who would answer for what if another dataset were in force.

Answers for many questions, such as the reports of a month, which bodies would hand over to which.
It promises the answers of both routers at every single place, without asking them everywhere: where
the same areas cover a place in both datasets, and no edge of a border or road differs within the
farthest that a router looks, both must decide the same. Only the others are routed.

It compares who is responsible, not how certain that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.areas import LayerAreas, read_areas
from boundaries.bulk import BATCH_ROWS, find_place, read_numbers
from boundaries.dataset import Dataset, open_dataset
from boundaries.edges import differing, lines
from boundaries.shapes import Floats, on_plane, plane_metres
from boundaries.tables import BulkError, open_table
from georouter.model import (
    Candidate,
    InvalidCoordinate,
    NotACandidate,
    Rules,
    UnknownCategory,
)
from georouter.router import DEFAULT_ACCURACY_M, FARTHEST_DOUBT_M, GAP_M, NAMED_ROAD_M, Router

Progress = Callable[[str, float], None]

SAMPLES: Final = 3
"""How many places are shown of each handover."""

_LOOK_M: Final = max(GAP_M, NAMED_ROAD_M, DEFAULT_ACCURACY_M)
_SLACK: Final = 1.03  # distances on the plane, and the router's own, are right to 1 %


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a place; `ref` is a report's id or a row's number."""

    ref: str
    lon: float
    lat: float
    category: str
    accuracy_m: float | None = None
    road_ref: str | None = None
    chosen: str | None = None
    refused: tuple[str, ...] = ()
    open: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """Who answers, by code and name."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Handover:
    """The questions for which one body would answer in the place of another; None is nobody.

    `samples` are the first of them, `open` those about open reports.
    """

    source: Body | None
    target: Body | None
    count: int
    samples: tuple[Question, ...]
    open: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What would change: the most numerous handovers first.

    Of `asked` questions, `routed` had to be routed by both datasets to know, and `unanswerable`
    cannot be: their category is none of the rules'.
    """

    old: str
    new: str
    asked: int
    routed: int
    unanswerable: int
    handovers: tuple[Handover, ...]


@dataclass(frozen=True, slots=True)
class Edition:
    """A dataset with the areas kept beside it; None of one that was built without."""

    dataset: Dataset
    areas: Sequence[LayerAreas] | None


def open_edition(folder: Path) -> Edition:
    """Open a dataset folder and the areas beside it. Raises `DatasetError`, `IndexFormatError`."""
    dataset = open_dataset(folder)
    areas = read_areas(folder) if "areas" in dataset.manifest else None
    return Edition(dataset, areas)


def preview(
    old: Edition,
    new: Edition,
    questions: Sequence[Question],
    *,
    rules: Rules,
    as_of: date,
    everywhere: bool = False,
    progress: Progress = lambda _stage, _share: None,
) -> Preview:
    """Route the questions by both datasets as of a day, and say who would hand over to whom.

    `everywhere` routes all of them in full, as is done with a dataset without its areas. Raises
    `MissingLayer`.
    """
    routers = [
        Router(one.dataset.index, rules=rules, dataset=one.dataset.version, roads=one.dataset.roads)
        for one in (old, new)
    ]
    progress("comparing borders", 0.0)
    doubtful = np.ones(len(questions), bool)
    if not everywhere and old.areas is not None and new.areas is not None:
        doubtful = _doubtful(old, new, questions, progress)
    found: dict[tuple[Body | None, Body | None], list[Question]] = {}
    unanswerable = 0
    asked = np.flatnonzero(doubtful).tolist()
    for n, at in enumerate(asked):
        if n % 1000 == 0:
            progress("routing", 0.4 + 0.6 * n / len(asked))
        question = questions[at]
        try:
            before, after = (_responsible(router, question, as_of) for router in routers)
        except (UnknownCategory, InvalidCoordinate):
            unanswerable += 1
            continue
        if (before and before.code) != (after and after.code):
            found.setdefault((before, after), []).append(question)
    handovers = [
        Handover(
            source,
            target,
            len(some),
            tuple(some[:SAMPLES]),
            tuple(one for one in some if one.open),
        )
        for (source, target), some in found.items()
    ]
    handovers.sort(key=lambda one: (-one.count, str(one.source), str(one.target)))
    return Preview(
        old=old.dataset.version,
        new=new.dataset.version,
        asked=len(questions),
        routed=len(asked),
        unanswerable=unanswerable,
        handovers=tuple(handovers),
    )


def _responsible(router: Router, question: Question, as_of: date) -> Body | None:
    def route(chosen: str | None) -> Candidate | None:
        return router.route(
            lon=question.lon,
            lat=question.lat,
            category=question.category,
            accuracy_m=question.accuracy_m,
            road_ref=question.road_ref,
            chosen=chosen,
            as_of=as_of,
            refused=question.refused,
        ).responsible

    try:
        found = route(question.chosen)
    except NotACandidate:  # chosen under other circumstances
        found = route(None)
    return Body(found.code, found.name) if found else None


# --- where the datasets may decide differently ---------------------------------------------------


def _doubtful(
    old: Edition, new: Edition, questions: Sequence[Question], progress: Progress
) -> npt.NDArray[np.bool_]:
    """Which questions the two may answer differently: others cover, or edges near by differ."""
    numbers: dict[Any, int] = {}
    numbered = [_numbered(edition, numbers) for edition in (old, new)]
    doubtful = _covered_otherwise(old, new, numbered, questions)
    progress("comparing borders", 0.2)
    edges = _differing_edges(old, new, numbered)
    progress("comparing borders", 0.3)
    places = np.array([(one.lon, one.lat) for one in questions]).reshape(-1, 2)
    accuracy_m = np.array([one.accuracy_m or 0.0 for one in questions])
    for reach_m, asked in (
        (_LOOK_M, ~doubtful & (accuracy_m <= _LOOK_M)),
        (FARTHEST_DOUBT_M, ~doubtful & ~(accuracy_m <= _LOOK_M)),
    ):
        at = np.flatnonzero(asked)
        doubtful[at[_near(places[at], edges, reach_m * _SLACK)]] = True
    return doubtful


def _numbered(edition: Edition, numbers: dict[Any, int]) -> list[int]:
    """A number for each area of the index: the same where nothing that decides is different."""
    roads = edition.dataset.roads
    return [
        numbers.setdefault(
            (area.layer, area.code, roads.get(area.layer, {}).get(area.code)), len(numbers)
        )
        for area in edition.dataset.index.areas
    ]


def _covered_otherwise(
    old: Edition, new: Edition, numbered: Sequence[Sequence[int]], questions: Sequence[Question]
) -> npt.NDArray[np.bool_]:
    """Which places are covered by other areas. All that cover count: stretches of roads overlap."""
    lookups = [one.dataset.index.covering for one in (old, new)]
    # places of the same areas are many: each combination is compared once
    same: dict[tuple[tuple[int, ...], ...], bool] = {}
    found = np.zeros(len(questions), bool)
    for n, question in enumerate(questions):
        try:
            hits = tuple(lookup(lon=question.lon, lat=question.lat) for lookup in lookups)
        except InvalidCoordinate:
            found[n] = True  # the routers shall say so
            continue
        known = same.get(hits)
        if known is None:
            before, after = (
                {numbers[hit] for hit in some} for some, numbers in zip(hits, numbered, strict=True)
            )
            known = same[hits] = before == after
        found[n] = not known
    return found


def _differing_edges(old: Edition, new: Edition, numbered: Sequence[Sequence[int]]) -> list[Any]:
    """Lines along all edges that are not the same in both, layer by layer, in degrees."""
    found = []
    sides = []
    for edition, numbers in zip((old, new), numbered, strict=True):
        spans = {layer.name: layer for layer in edition.dataset.index.layers}
        sides.append(
            {
                one.layer: (one, numbers[spans[one.layer].first : spans[one.layer].stop])
                for one in edition.areas or ()
            }
        )
    for name in sides[0].keys() | sides[1].keys():
        before, after = (side.get(name) for side in sides)
        if before is not None and after is not None:
            masks = differing(before[0], after[0], old_numbers=before[1], new_numbers=after[1])
            found += [lines(before[0], masks[0]), lines(after[0], masks[1])]
            continue
        for areas, _ in (one for one in (before, after) if one):
            every = np.ones(len(areas.x), bool)
            every[areas.ring_starts[1:] - 1] = False
            found.append(lines(areas, every))
    return found


def _near(places: Floats, edges: Iterable[Any], within_m: float) -> npt.NDArray[np.int64]:
    """The places that one of the edges may come so near to, by position."""
    tree = shapely.STRtree(shapely.points(on_plane(places)))
    near = [np.empty(0, np.int64)]
    for vertices, line in edges:
        if len(places) and len(vertices):
            drawn = shapely.linestrings(on_plane(vertices), indices=line)
            # as far as it is at the vertex farthest from the equator
            farthest = np.zeros(len(drawn))
            np.maximum.at(farthest, line, np.abs(vertices[:, 1]))
            reach = within_m * plane_metres(farthest)
            near.append(np.unique(tree.query(drawn, predicate="dwithin", distance=reach)[1]))
    return np.unique(np.concatenate(near))


# --- questions from reports, or a file ------------------------------------------------------------


def question_of(row: Mapping[str, Any]) -> Question:
    """What a stored report asks."""
    return Question(
        ref=str(row["id"]),
        lon=row["lon"],
        lat=row["lat"],
        category=row["category"],
        accuracy_m=row["accuracy_m"],
        road_ref=row["road_ref"],
        chosen=row["chosen"],
        refused=tuple(row["refused"]),
        open=row["open"],
    )


def read_questions(path: Path, *, category: str) -> tuple[list[Question], int]:
    """The points of a file, and how many rows name no place. Raises `BulkError`.

    A column `category` says what is asked about each, else `category` does; `accuracy_m` and
    `road_ref` are read too if they are there.
    """
    table = open_table(path, batch_rows=BATCH_ROWS)
    place = find_place(table, None)
    names = table.schema.names
    found: list[Question] = []
    bad = 0
    for batch in table.batches():
        rows = batch.rows
        lon, lat = place.degrees(*(read_numbers(rows.column(one)) for one in (place.x, place.y)))
        good = (np.abs(lon) <= 180.0) & (np.abs(lat) <= 90.0)  # NaN is not
        count = rows.num_rows
        texts = {
            name: [_text(value) for value in rows.column(name).to_pylist()]
            for name in ("category", "road_ref")
            if name in names
        }
        accuracy = read_numbers(rows.column("accuracy_m")) if "accuracy_m" in names else None
        if accuracy is not None and (accuracy < 0).any():
            raise BulkError(f"{path}: accuracy_m must not be negative; correct it")
        categories = texts.get("category") or [None] * count
        road_refs = texts.get("road_ref") or [None] * count
        accuracies = [None] * count if accuracy is None else accuracy.tolist()
        for n in np.flatnonzero(good).tolist():
            accuracy_m = accuracies[n]
            found.append(
                Question(
                    ref=str(batch.numbers[n]),
                    lon=float(lon[n]),
                    lat=float(lat[n]),
                    category=categories[n] or category,
                    accuracy_m=None if accuracy_m is None or np.isnan(accuracy_m) else accuracy_m,
                    road_ref=road_refs[n],
                )
            )
        bad += len(batch.bad) + int(np.count_nonzero(~good))
    return found, bad


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode()
    return str(value).strip() or None if value is not None else None


# --- words ----------------------------------------------------------------------------------------


def sentence(handover: Handover) -> str:
    """A handover in one line."""
    source, target = (
        f"{one.name} ({one.code})" if one else "nobody"
        for one in (handover.source, handover.target)
    )
    places = "; ".join(f"{one.lat:.5f}, {one.lon:.5f}" for one in handover.samples)
    pending = f", {len(handover.open):,} of them open reports" if handover.open else ""
    return f"{handover.count:>9,}  {source} → {target}{pending}, as at {places}"


def as_json(found: Preview) -> dict[str, Any]:
    """The preview as an operator's programs read it."""

    def body(one: Body | None) -> dict[str, str] | None:
        return {"code": one.code, "name": one.name} if one else None

    return {
        "old": found.old,
        "new": found.new,
        "asked": found.asked,
        "routed": found.routed,
        "unanswerable": found.unanswerable,
        "change": sum(one.count for one in found.handovers),
        "handovers": [
            {
                "from": body(one.source),
                "to": body(one.target),
                "count": one.count,
                "samples": [
                    {"ref": at.ref, "lon": at.lon, "lat": at.lat, "category": at.category}
                    for at in one.samples
                ],
                "open": [at.ref for at in one.open],
            }
            for one in found.handovers
        ],
    }
