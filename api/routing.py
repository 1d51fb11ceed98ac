"""What decides here and now: the catalogue of categories, and the boundary dataset in force.

`LiveRouting` follows the dataset that the database calls active and swaps whole tables, so that a
request sees one dataset from beginning to end. A dataset that cannot be opened never takes the
place of one that works. It does not activate datasets; operators do.
"""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from api import db
from api.errors import NoActiveDataset, OutsideServiceArea, SwappedAxes
from api.schemas import AuthorityRef, CandidateOut, DecisionOut, Place, ReportIn
from api.store import authorities
from boundaries.dataset import Dataset, DatasetError, open_dataset
from georouter.codec import IndexFormatError
from georouter.model import Area, Category, DecisionState, Delegation, MissingLayer, RoadRule, Tier
from georouter.router import Router

SHIPPED_CATEGORIES = Path(__file__).with_name("categories.toml")
MAX_CODE = 64

log = structlog.get_logger()


class CategoriesError(Exception):
    """A categories file that cannot be used; the message names the file, the place and a remedy."""


# --- categories -----------------------------------------------------------------------------------


def load_categories(path: Path | None) -> dict[str, Category]:
    """The catalogue in `path`, or the shipped one, by code; raises `CategoriesError`."""
    path = path or SHIPPED_CATEGORIES
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CategoriesError(
            f"{path} cannot be read ({error.strerror}); correct GEOROUTER_CATEGORIES, or unset it "
            "to use the categories shipped"
        ) from None
    except ValueError as error:
        raise CategoriesError(f"{path} is no TOML: {error}; correct that line") from None
    _check_keys(path, "the file", tables, {"tiers", "categories"})
    tiers = {code: _tier(path, code, entry) for code, entry in tables["tiers"].items()}
    found = {
        code: _category(path, code, entry, tiers) for code, entry in tables["categories"].items()
    }
    if not found:
        raise CategoriesError(f"{path} has no categories; add a [categories.<code>] table")
    return found


def _tier(path: Path, name: str, entry: object) -> Tier:
    table = _check_keys(
        path, f"tier {name!r}", entry, {"layers"}, optional={"roads", "delegations"}
    )
    layers = table["layers"]
    if not isinstance(layers, list) or not layers or not all(_is_text(item) for item in layers):
        raise CategoriesError(
            f"{path}: tier {name!r}: layers must list layer names, the right one first, such as "
            '["highway", "district"]'
        )
    roads = table.get("roads", [])
    if not isinstance(roads, list):
        raise CategoriesError(
            f"{path}: tier {name!r}: roads must list tables, the first in rank first, such as "
            '[{layer = "trunk"}]'
        )
    rules = tuple(_road_rule(path, f"tier {name!r}, roads", item) for item in roads)
    handed = table.get("delegations", [])
    if not isinstance(handed, list):
        raise CategoriesError(f"{path}: tier {name!r}: delegations must list tables")
    delegations = tuple(_delegation(path, f"tier {name!r}, delegations", item) for item in handed)
    return Tier(name=name, layers=tuple(layers), roads=rules, delegations=delegations)


def _delegation(path: Path, where: str, entry: object) -> Delegation:
    table = _check_keys(path, where, entry, {"codes", "body", "name", "reason"})
    if not all(_is_text(value) for value in table.values()):
        raise CategoriesError(f"{path}: {where}: codes, body, name and reason must be texts")
    return Delegation(table["codes"], table["body"], table["name"], table["reason"])


def _road_rule(path: Path, where: str, entry: object) -> RoadRule:
    table = _check_keys(path, where, entry, {"layer"}, optional={"number"})
    number = table.get("number", "")
    if not _is_text(table["layer"]) or not isinstance(number, str):
        raise CategoriesError(f"{path}: {where}: layer and number must be texts")
    try:
        re.compile(number)
    except re.error as error:
        raise CategoriesError(
            f"{path}: {where}: number {number!r} is no regular expression: {error}; correct it"
        ) from None
    return RoadRule(layer=table["layer"], number=number)


def _category(path: Path, code: str, entry: object, tiers: Mapping[str, Tier]) -> Category:
    where = f"category {code!r}"
    table = _check_keys(path, where, entry, {"name", "description", "tier"})
    if len(code) > MAX_CODE:
        raise CategoriesError(f"{path}: {where}: a code has at most {MAX_CODE} characters")
    for field in ("name", "description", "tier"):
        if not _is_text(table[field]):
            raise CategoriesError(f"{path}: {where}: {field} must be a text that says something")
    if table["tier"] not in tiers:
        raise CategoriesError(
            f"{path}: {where}: there is no tier {table['tier']!r}; take one of "
            f"{', '.join(sorted(tiers))}, or add [tiers.{table['tier']}]"
        )
    return Category(
        code=code,
        name=table["name"],
        description=table["description"],
        tier=tiers[table["tier"]],
    )


def _check_keys(
    path: Path,
    where: str,
    entry: object,
    wanted: set[str],
    *,
    optional: AbstractSet[str] = frozenset(),
) -> dict[str, Any]:
    """The entry as a table that has the wanted keys, and beyond them optional ones only."""
    if not isinstance(entry, dict):
        raise CategoriesError(f"{path}: {where} must be a table with {', '.join(sorted(wanted))}")
    for key in sorted(wanted - entry.keys()):
        raise CategoriesError(f"{path}: {where} has no {key}; add it")
    for key in sorted(entry.keys() - wanted - optional):
        raise CategoriesError(f"{path}: {where}: {key!r} means nothing here; remove or correct it")
    return entry


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def authorities_of(dataset: Dataset, categories: Mapping[str, Category]) -> list[Area]:
    """Who can be responsible by a dataset and a catalogue: areas, road bodies, and delegates."""
    found = dataset.authorities
    delegates = {
        delegation.body: Area(area.layer, delegation.body, delegation.body_name)
        for tier in dict.fromkeys(category.tier for category in categories.values())
        for delegation in tier.delegations
        for area in dataset.index.areas
        if delegation.applies_to(area.code)
    }
    return [*found, *delegates.values()]


# --- the table in force ---------------------------------------------------------------------------


class RoutingTable:
    """One dataset version with the authorities behind its codes. Immutable; share it freely."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        categories: Mapping[str, Category],
        dataset_id: int,
        refs: Iterable[AuthorityRef],
    ) -> None:
        """Raise `DatasetError` if a code stands for no authority, and `MissingLayer`."""
        self.dataset_id = dataset_id
        self.version = dataset.version
        self._router = Router(
            dataset.index, categories=categories, dataset=dataset.version, roads=dataset.roads
        )
        self._refs = {ref.code: ref for ref in refs}
        responsible = authorities_of(dataset, categories)
        missing = sorted({area.code for area in responsible} - self._refs.keys())
        if missing:
            raise DatasetError(
                f"no authority has the codes {', '.join(missing[:5])} of dataset {self.version}; "
                "activate the dataset again"
            )

    def decide(self, asked: Place | ReportIn) -> DecisionOut:
        """Who is responsible; outside the service area, nobody.

        Raises `UnknownCategory` and `NotACandidate`.
        """
        decision = self._router.route(
            lon=asked.lon,
            lat=asked.lat,
            category=asked.category,
            accuracy_m=asked.accuracy_m,
            road_ref=asked.road_ref,
            chosen=asked.chosen,
        )
        responsible = decision.responsible
        return DecisionOut(
            state=decision.state,
            rule=decision.rule,
            reason=decision.reason,
            category=decision.category,
            tier=decision.tier,
            dataset=decision.dataset,
            authority=self._refs[responsible.code] if responsible else None,
            candidates=[
                CandidateOut(
                    code=candidate.code,
                    name=candidate.name,
                    layer=candidate.layer,
                    reason=candidate.reason,
                    distance_m=candidate.distance_m,
                    road=candidate.road or None,
                )
                for candidate in decision.candidates
            ],
            question=decision.question or None,
        )

    def place(self, asked: ReportIn) -> tuple[DecisionOut, AuthorityRef]:
        """The decision and the authority that a report is forwarded to.

        Raises `OutsideServiceArea`, `SwappedAxes`, `UnknownCategory`, `NotACandidate`.
        """
        decision = self.decide(asked)
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
    """The routing table in force, kept up with the dataset that is active in the database.

    `current` is replaced as a whole. `fault` says why the active dataset is not the one in
    `current`, and is None when all is well.
    """

    def __init__(
        self,
        *,
        categories: Mapping[str, Category],
        open_folder: Callable[[Path], Dataset] = open_dataset,
    ) -> None:
        self.current: RoutingTable | None = None
        self.fault: str | None = "no dataset was looked for yet"
        self._categories = categories
        self._open = open_folder

    def require(self) -> RoutingTable:
        """The table in force; raises `NoActiveDataset`."""
        if self.current is None:
            raise NoActiveDataset(
                "reports cannot be routed until an operator activates a boundary dataset with "
                "`georouter boundaries activate`; nothing was stored, try again later"
            )
        return self.current

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Take over the active dataset if it changed; raises `DatabaseUnavailable`."""
        async with db.acquire(pool) as conn:
            active = await authorities.active_dataset(conn)
            if active is None:
                self.current, self.fault = None, "no dataset is active"
                return
            if self.current is not None and self.current.dataset_id == active["id"]:
                self.fault = None
                return
            rows = await authorities.authorities_by_code(conn)
        refs = [AuthorityRef(code=row["code"], id=row["id"], name=row["name"]) for row in rows]
        try:
            # In a thread: it maps a file and checks it, while requests go on with the old one.
            self.current = await asyncio.to_thread(self._load, active, refs)
        except (DatasetError, IndexFormatError, MissingLayer, OSError) as error:
            fault = f"dataset {active['version']} cannot be opened: {error}"
            if fault != self.fault:
                log.exception("dataset not opened", dataset=active["version"], fault=fault)
            self.fault = fault
        else:
            self.fault = None
            log.info("dataset in force", dataset=active["version"])

    def _load(self, active: Mapping[str, Any], refs: Iterable[AuthorityRef]) -> RoutingTable:
        opened = self._open(Path(active["location"]))
        if opened.version != active["version"]:
            raise DatasetError(f"{active['location']} holds {opened.version} instead")
        return RoutingTable(opened, categories=self._categories, dataset_id=active["id"], refs=refs)

    async def poll(self, pool: asyncpg.Pool, *, every_s: float) -> None:
        """Refresh for ever."""
        cut_off = False
        while True:
            await asyncio.sleep(every_s)
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
