"""What decides here and now: the rules, and the boundary dataset in force.

`LiveRouting` follows the dataset that the database calls active and swaps whole tables, so that a
request sees one dataset from beginning to end; the old one goes with the last request that has it.
A dataset that cannot be opened never takes the place of one that works. It does not activate
datasets; operators do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
import structlog

from api import db, london
from api.errors import FieldRefused, NoActiveDataset, OutsideServiceArea, SwappedAxes
from api.schemas import AuthorityRef, CandidateOut, DecisionOut
from api.store import authorities, datasets
from api.store.authorities import Handover
from boundaries.dataset import Dataset, DatasetError
from georouter.codec import IndexFormatError
from georouter.model import Area, DecisionState, Emergency, MissingLayer, Rules, matches
from georouter.questions import Answer, emergencies_at, is_emergency
from georouter.router import Router
from georouter.rules import FILES, SHIPPED, RulesError, parse_rules

UNUSABLE: Final = (DatasetError, IndexFormatError, MissingLayer, OSError)
"""What opening a dataset may raise."""

OpenVersion = Callable[[str, Mapping[str, Any]], Awaitable[Dataset]]
"""Opens the dataset of a version and its manifest, as `Artefacts.open` does."""

log = structlog.get_logger()


class Asking(Protocol):
    """What a question about a place says: a report does, or a request to route without one."""

    @property
    def lon(self) -> float:
        """Longitude in degrees."""

    @property
    def lat(self) -> float:
        """Latitude in degrees."""

    @property
    def category(self) -> str:
        """The category's code."""

    @property
    def accuracy_m(self) -> float | None:
        """How uncertain the position is."""

    @property
    def road_ref(self) -> str | None:
        """The road that it is said to be on."""

    @property
    def chosen(self) -> str | None:
        """The candidate that was named."""


# --- rules ----------------------------------------------------------------------------------------


def load_rules(folder: Path | None) -> Rules:
    """The rules shipped, each file replaced by the one in `folder`; raises `RulesError`.

    A folder without any of the files is a mistake, and said.
    """
    files = {name: SHIPPED / name for name in FILES}
    if folder is not None:
        own = {name: folder / name for name in FILES if (folder / name).is_file()}
        if not own:
            raise RulesError(
                str(folder),
                0,
                f"there is none of {', '.join(FILES)} here; correct GEOROUTER_RULES, or unset it "
                "to use the rules shipped",
            )
        files |= own
    texts = {}
    for name, path in files.items():
        try:
            texts[name] = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RulesError(str(path), 0, f"it cannot be read: {error}") from None
    return parse_rules(texts)


def bodies_of(dataset: Dataset, rules: Rules) -> list[Area]:
    """Who is named by the rules only: stand-ins by agreement, and successors.

    Only those that concern somebody in the dataset.
    """
    known = {area.code for area in dataset.authorities}
    numbers = {road.number for stretches in dataset.roads.values() for road in stretches.values()}
    found: dict[str, Area] = {}
    for one in rules.agreements:
        here = not one.areas or any(matches(code, one.areas) for code in known)
        if here and (not one.roads or numbers & set(one.roads)):
            found[one.body] = Area("", one.body, one.body_name)
    for succession in rules.successions:
        if known.union(found) & set(succession.ends):
            for after in succession.successors:
                found[after.code] = Area("", after.code, after.name)
    return [area for code, area in found.items() if code not in known]


def successions_of(rules: Rules) -> list[Handover]:
    """The successions of the rules, in codes and instants."""
    return [
        Handover(code, heir.code, london.begins(one.on), one.reason)
        for one in rules.successions
        for code in one.ends
        for heir in one.successors
        if not any(code in other.areas for other in one.successors) or code in heir.areas
    ]


# --- the table in force ---------------------------------------------------------------------------


class RoutingTable:
    """One dataset version with the authorities behind its codes. Immutable; share it freely."""

    def __init__(
        self, dataset: Dataset, *, rules: Rules, dataset_id: int, refs: Iterable[AuthorityRef]
    ) -> None:
        """Raise `DatasetError` if a code stands for no authority, and `MissingLayer`."""
        self.dataset_id = dataset_id
        self.version = dataset.version
        self.manifest = dataset.manifest
        self._router = Router(
            dataset.index, rules=rules, dataset=dataset.version, roads=dataset.roads
        )
        self._index = dataset.index
        self._rules = rules.version
        responsible = [*dataset.authorities, *bodies_of(dataset, rules)]
        # Names as this dataset has them: those recorded may be of one activated since.
        names = {area.code: area.name for area in responsible}
        self._refs = {
            ref.code: ref.model_copy(update={"name": names.get(ref.code, ref.name)}) for ref in refs
        }
        missing = sorted(names.keys() - self._refs.keys())
        if missing:
            raise DatasetError(
                f"no authority has the codes {', '.join(missing[:5])} of dataset {self.version}; "
                "activate the dataset again"
            )

    def authority(self, code: str) -> AuthorityRef | None:
        """The authority with this code."""
        return self._refs.get(code)

    def codes_at(self, *, lon: float, lat: float) -> list[str]:
        """The codes of the areas that cover a point, of all layers."""
        areas = self._index.areas
        return [areas[position].code for position in self._index.covering(lon=lon, lat=lat)]

    def etag(self, as_of: date) -> str:
        """What every answer about a day's routing depends on beside the question."""
        return f'"{self.version}.{self._rules}.{as_of}"'

    def decide(self, asked: Asking, *, as_of: date, refused: Collection[str] = ()) -> DecisionOut:
        """Who is responsible; outside the service area, nobody.

        `refused` are the codes of those who have said that it is not theirs. Raises
        `UnknownCategory` and `NotACandidate`.
        """
        decision = self._router.route(
            lon=asked.lon,
            lat=asked.lat,
            category=asked.category,
            accuracy_m=asked.accuracy_m,
            road_ref=asked.road_ref,
            chosen=asked.chosen,
            as_of=as_of,
            refused=refused,
        )
        responsible = decision.responsible
        return DecisionOut(
            state=decision.state,
            rule=decision.rule,
            reason=decision.reason,
            category=decision.category,
            tier=decision.tier,
            dataset=decision.dataset,
            rules=self._rules,
            as_of=as_of,
            authority=self._refs[responsible.code] if responsible else None,
            candidates=[
                CandidateOut(
                    code=candidate.code,
                    name=candidate.name,
                    layer=candidate.layer or None,
                    reason=candidate.reason,
                    distance_m=candidate.distance_m,
                    road=candidate.road or None,
                    agreement=candidate.agreement or None,
                    succeeds=candidate.succeeds or None,
                )
                for candidate in decision.candidates
            ],
            question=decision.question or None,
        )

    def place(self, asked: Asking, *, as_of: date) -> tuple[DecisionOut, AuthorityRef]:
        """The decision and the authority that a report is forwarded to.

        Raises `OutsideServiceArea`, `SwappedAxes`, `UnknownCategory`, `NotACandidate`.
        """
        decision = self.decide(asked, as_of=as_of)
        if decision.authority is not None:
            return decision, decision.authority
        if decision.rule == "swapped-axes":
            raise SwappedAxes(
                f"{decision.reason}; send the longitude as lon and the latitude as lat",
                fields=[
                    ("lon", "looks like the latitude"),
                    ("lat", "looks like the longitude"),
                ],
            )
        assert decision.state is DecisionState.OUTSIDE  # noqa: S101 - nobody is responsible
        raise OutsideServiceArea(
            f"{decision.reason}; nobody we know of answers for it there",
            fields=[("lon", "outside the service area"), ("lat", "outside the service area")],
        )


class LiveRouting:
    """The routing table in force, kept up with the activations that the database records.

    `current` is replaced as a whole; `since` is when it came into force. `fault` says why the
    dataset that should be in force is not the one in `current`, and is None when all is well.
    `clock` gives Unix seconds.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        clock: Callable[[], float],
        open_version: OpenVersion,
    ) -> None:
        self.rules = rules
        self.current: RoutingTable | None = None
        self.since: datetime | None = None
        self.fault: str | None = "no dataset was looked for yet"
        self._clock = clock
        self._open = open_version
        self._next_in: timedelta | None = None
        self._looked_at: float | None = None
        # Of other days, the last one asked about: who asks about a day asks about it often.
        self._other: RoutingTable | None = None

    def today(self) -> date:
        """The day it is in the United Kingdom."""
        return london.day_of(self._clock())

    def require(self) -> RoutingTable:
        """The table in force; raises `NoActiveDataset`."""
        if self.current is None:
            raise NoActiveDataset(
                "reports cannot be routed until an operator activates a boundary dataset with "
                "`georouter boundaries activate`; nothing was stored, try again later"
            )
        return self.current

    def emergencies(
        self, *, lon: float, lat: float, category: str, answers: Mapping[str, Answer]
    ) -> list[Emergency]:
        """What a report of these answers says must be done at once, by numbers answered there."""
        codes = self.current.codes_at(lon=lon, lat=lat) if self.current else []
        return [
            one
            for one in emergencies_at(self.rules.emergencies, codes)
            if is_emergency(one, category, answers)
        ]

    async def on(self, pool: asyncpg.Pool, day: date) -> RoutingTable:
        """The table of a day, past or to come.

        Of a past day the one in force when it ended; of one to come, what is planned by now. Raises
        `FieldRefused` for a day before the first, `NoActiveDataset`, `DatabaseUnavailable`.
        """
        current = self.require()
        if day == self.today():
            return current
        async with db.acquire(pool) as conn:
            row = await datasets.active_dataset(conn, at=london.ends(day))
        if row is None:
            # Not "try again later": that day is over.
            raise FieldRefused("as_of", f"no dataset was in force on {day}; ask about a later day")
        for table in (current, self._other):
            if table is not None and table.dataset_id == row["id"]:
                return table
        try:
            self._other = await self._load(pool, row)
        except UNUSABLE as error:
            raise NoActiveDataset(
                f"the dataset of {day}, {row['version']}, cannot be opened: {error}"
            ) from None
        return self._other

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Take over the dataset in force if it changed; raises `DatabaseUnavailable`."""
        async with db.acquire(pool) as conn:
            active = await datasets.active_dataset(conn)
        self._looked_at = self._clock()
        if active is None:
            self.current, self.since, self.fault = None, None, "no dataset is active"
            return
        self._next_in = active["next_in"]
        if self.current is not None and self.current.dataset_id == active["id"]:
            self.since, self.fault = active["since"], None
            return
        try:
            self.current, self.since = await self._load(pool, active), active["since"]
        except UNUSABLE as error:
            fault = f"dataset {active['version']} cannot be opened: {error}"
            if fault != self.fault:
                log.exception("dataset not opened", dataset=active["version"], fault=fault)
            self.fault = fault
        else:
            self.fault = None
            log.info("dataset in force", dataset=active["version"])

    async def _load(self, pool: asyncpg.Pool, row: Mapping[str, Any]) -> RoutingTable:
        if row["removed_at"] is not None:
            raise DatasetError(f"its artefact was pruned on {row['removed_at']:%Y-%m-%d}")
        async with db.acquire(pool) as conn:
            manifest = await datasets.read_manifest(conn, row["id"])
        opened = await self._open(row["version"], manifest)
        async with db.acquire(pool) as conn:
            # The rules may have changed since the dataset was activated.
            await authorities.establish(
                conn, bodies_of(opened, self.rules), successions_of(self.rules)
            )
            rows = await authorities.authorities_by_code(conn)
        refs = [AuthorityRef(code=one["code"], id=one["id"], name=one["name"]) for one in rows]
        return await asyncio.to_thread(
            RoutingTable, opened, rules=self.rules, dataset_id=row["id"], refs=refs
        )

    async def poll(self, pool: asyncpg.Pool, *, every_s: float) -> None:
        """Refresh for ever, and at the instant of a planned activation."""
        cut_off = False
        while True:
            # Once: without an answer from the database it would be the same again.
            next_in, self._next_in = self._next_in, None
            await asyncio.sleep(min(every_s, next_in.total_seconds() if next_in else every_s))
            try:
                await self.refresh(pool)
                cut_off = False
            except db.DatabaseUnavailable:
                # What is loaded stays in force. Said once: every request and /readyz tell it too.
                if not cut_off:
                    log.warning("dataset not looked for", reason="database unavailable")
                cut_off = True
            except Exception:
                # A poll that ended would leave this process on an old dataset without a sign.
                log.exception("dataset poll failed")

    async def prepare(self, pool: asyncpg.Pool, *, every_s: float) -> None:
        """Open datasets that are staged or planned, for ever, so that they are at hand in time.

        From an object store that takes as long as the way is wide. What cannot be opened is tried
        again, and is no fault yet.
        """
        opened: dict[int, bool] = {}
        while True:
            try:
                async with db.acquire(pool) as conn:
                    rows = await datasets.datasets_to_come(conn)
                for row in rows:
                    if not opened.get(row["id"]):
                        tell = row["id"] not in opened
                        opened[row["id"]] = await self._opens(pool, row, tell=tell)
            except db.DatabaseUnavailable:
                pass  # the poll tells
            except Exception:
                log.exception("preparing datasets failed")
            await asyncio.sleep(every_s)

    async def _opens(self, pool: asyncpg.Pool, row: Mapping[str, Any], *, tell: bool) -> bool:
        async with db.acquire(pool) as conn:
            manifest = await datasets.read_manifest(conn, row["id"])
        try:
            await self._open(row["version"], manifest)
        except UNUSABLE:
            if tell:
                log.exception("dataset to come not opened", dataset=row["version"])
            return False
        return True

    def figures(self) -> tuple[str | None, bool, float]:
        """For metrics: the version that decides, whether there is a fault, and its age in seconds.

        The age of that knowledge: how long ago this process last heard what is in force.
        """
        age = float("inf") if self._looked_at is None else self._clock() - self._looked_at
        return self.current.version if self.current else None, self.fault is not None, age
