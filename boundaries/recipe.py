"""Reads `recipe.toml`: all that a build needs to know, so that it can be done again.

`recipe.example.toml` says what may be in it. Promises a recipe whose files are there and pinned by
their sha256, or a `SourceError` that names the file, the line, the entry and the remedy. It reads
none of the files that it names but the tables: special roads, and corrections.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

from boundaries.build import LayerSource, Progress, build_dataset
from boundaries.cache import Cache
from boundaries.checks import Limits
from boundaries.corrections import Corrections, read_corrections
from boundaries.formats import Reading, digest
from boundaries.readers import Choice
from boundaries.roads import AreaOperator, RoadsSource
from boundaries.roads_table import Found, read_roads_table, reading_of, roads_of
from boundaries.tomlfile import MissingFileFault, faults_with_lines, read_text
from boundaries.validate import Validation
from georouter.compiler import LEAF_EDGES
from georouter.entries import At, Fault, Table
from georouter.model import Succession

RECIPE: Final = "recipe.toml"
PROOF_POINTS: Final = 105_000
_LIMITS: Final = (
    "sliver_m2",
    "sliver_width_m",
    "tiny_m2",
    "far_km",
    "vertices_per_km",
    "change_percent",
)
_TOLD: Final = ("title", "publisher", "edition", "licence", "attribution")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe with its files found. `resolved` is what the manifest keeps of it.

    That is the recipe's content, with the edition and sha256 of each layer, and the sha256 of every
    other file by its path as written.
    """

    path: Path
    out: Path | None
    layers: Mapping[str, LayerSource]
    roads: Mapping[str, Sequence[RoadsSource]]
    as_of: date | None
    rules: Path | None
    proof_points: int
    leaf_edges: tuple[int, ...]
    validation: Validation
    resolved: Mapping[str, Any]


def read_recipe(path: Path, cache: Cache) -> Recipe:
    """Read a recipe; `source` entries are taken from the cache. Raises `SourceError`."""
    text = read_text(path)
    with faults_with_lines(path, text):
        content = tomllib.loads(text)
        return _recipe(Table((), content, "the recipe"), _Files(path, content, cache))


def build_recipe(
    recipe: Recipe,
    out: Path,
    *,
    built_at: datetime,
    successions: Sequence[Succession] = (),
    progress: Progress = lambda _stage, _share: None,
) -> dict[str, Any]:
    """Build the dataset of a recipe; see `build_dataset`."""
    return build_dataset(
        dict(recipe.layers),
        out,
        built_at=built_at,
        roads=recipe.roads,
        successions=successions,
        as_of=recipe.as_of,
        proof_points=recipe.proof_points,
        leaf_edges=recipe.leaf_edges,
        validation=recipe.validation,
        recipe=recipe.resolved,
        progress=progress,
    )


class _Files:
    """The files of a recipe: found from its folder or in the cache, and known by their sha256."""

    def __init__(self, path: Path, content: dict[str, Any], cache: Cache) -> None:
        self.path = path
        self.content = content
        self.cache = cache
        self.sha256: dict[str, str] = {}

    def of(self, entry: Table) -> Found:
        """The file of an entry, by its path or of a source. Raises `Fault`."""
        file, source = entry.text("file", default=""), entry.text("source", default="")
        if bool(file) == bool(source):
            raise Fault(entry.at, f"{entry.what} needs either a file, or a source that is fetched")
        told = {key: entry.text(key, default="") for key in _TOLD}
        if file:
            found = self.beside(file, (*entry.at, "file"), entry.what)
            return found, {key: value for key, value in told.items() if value}
        for key, value in told.items():
            if value and key != "edition":
                entry.fault(key, f"{key} of a source is that of its catalogue; remove it")
        return self._fetched(source, told["edition"], entry)

    def _fetched(self, source: str, edition: str, entry: Table) -> Found:
        found = self.cache.find(source, edition) if edition else self.cache.newest(source)
        if found is None:
            which = f"edition {edition!r} of {source!r}" if edition else f"source {source!r}"
            raise MissingFileFault(
                (*entry.at, "source"),
                f"{entry.what}: {which} was not fetched; run `georouter boundaries fetch {source}`",
            )
        return found.path, {"source": source, **found.origin, "edition": found.edition}

    def beside(self, written: str, at: At, what: str) -> Path:
        """The file of a path as written. Raises `Fault`."""
        path = self.path.parent / written
        if not path.is_file():
            raise MissingFileFault(
                at, f"{what}: there is no file {written!r} beside the recipe; correct the path"
            )
        self.sha256[written] = digest(path)
        return path

    def pinned(self, path: Path, reading: Reading, at: At, what: str) -> Reading:
        """The reading of that very file; a pin of another is a `Fault`."""
        sha256 = digest(path)
        if reading.sha256 not in {None, sha256}:
            raise Fault(
                (*at, "sha256"),
                f"{what}: the sha256 of {path.name} is {sha256}; get the file that is pinned, or "
                "correct sha256",
            )
        return replace(reading, sha256=sha256)


def _recipe(top: Table, files: _Files) -> Recipe:
    folder = files.path.parent
    out = top.text("out", default="")
    as_of, rules = top.day("as_of"), top.text("rules", default="")
    if rules and as_of is None:
        top.fault("rules", "rules has the successions for as_of; add that day, or remove it")
    layers: dict[str, LayerSource] = {}
    for entry in top.each("layers", "layer"):
        name = entry.text("name")
        if name in layers:
            entry.fault("name", f"there is a layer {name!r} already; each name stands for one")
        layers[name] = _layer(entry, files)
    if not layers:
        top.fault("layers", "there is no layer; add [[layers]] with a name and a file or a source")
    roads = _roads(top, files)
    for name in roads:
        if name in layers:
            top.fault("roads", f"layers has {name!r} already; each name stands for one layer")
    corrections = top.text("corrections", default="")
    if corrections:
        files.beside(corrections, ("corrections",), "corrections")
    if rules:
        _find_rules(rules, files, top)
    recipe = Recipe(
        path=files.path,
        out=folder / out if out else None,
        layers=layers,
        roads=roads,
        as_of=as_of,
        rules=folder / rules if rules else None,
        proof_points=top.whole("proof_points", default=PROOF_POINTS, least=1000),
        leaf_edges=top.wholes("leaf_edges", default=tuple(LEAF_EDGES)),
        validation=Validation(
            limits=_limits(top),
            corrections=read_corrections(folder / corrections) if corrections else Corrections(),
            strict=top.flag("strict"),
        ),
        resolved={},
    )
    top.nothing_else()
    return replace(recipe, resolved=_resolved(recipe, files))


def _limits(top: Table) -> Limits:
    given = top.numbers("validation")
    for name in given:
        if name not in _LIMITS:
            raise Fault(
                ("validation", name),
                f"validation: {name!r} is no threshold; take one of {', '.join(_LIMITS)}",
            )
    of_slivers = {name.removeprefix("sliver_"): value for name, value in given.items()}
    limits = Limits().with_slivers(m2=of_slivers.get("m2"), width_m=of_slivers.get("width_m"))
    others = {name: value for name, value in given.items() if not name.startswith("sliver_")}
    return replace(limits, **others)  # type: ignore[arg-type]  # all of them are numbers


def _resolved(recipe: Recipe, files: _Files) -> dict[str, Any]:
    content = _as_json(files.content)
    pairs: list[tuple[dict[str, Any], LayerSource | RoadsSource]] = [
        *zip(content["layers"], recipe.layers.values(), strict=True)
    ]
    for layer, entries in content.get("roads", {}).items():
        pairs += zip(entries, recipe.roads[layer], strict=True)
    for entry, source in pairs:
        entry["sha256"] = source.reading.sha256
        if "source" in entry:
            entry["edition"] = source.known["edition"]
    return {
        "file": files.path.name,
        "sha256": digest(files.path),
        "content": content,
        "files": dict(sorted(files.sha256.items())),
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value


def _find_rules(rules: str, files: _Files, top: Table) -> None:
    found = sorted((files.path.parent / rules).glob("*.toml"))
    if not found:
        top.fault("rules", f"there is no folder {rules!r} with rules; correct the path")
    for file in found:
        files.beside(f"{rules.rstrip('/')}/{file.name}", ("rules",), "rules")


# --- layers ---------------------------------------------------------------------------------------


def _layer(entry: Table, files: _Files) -> LayerSource:
    path, known = files.of(entry)
    found = LayerSource(
        path=path,
        code_field=entry.text("code_field", default="") or None,
        name_field=entry.text("name_field", default="") or None,
        reading=files.pinned(path, reading_of(entry), entry.at, entry.what),
        choice=Choice(
            keep=entry.texts("keep", default=(), hint='patterns of codes, such as "E*"'),
            drop=entry.texts("drop", default=(), hint='patterns of codes, such as "N*"'),
        ),
        known=known,
    )
    entry.nothing_else()
    return found


# --- special roads --------------------------------------------------------------------------------


def _roads(top: Table, files: _Files) -> dict[str, list[RoadsSource]]:
    """Those in the recipe and those of the table that it names, pinned."""
    found: dict[str, list[RoadsSource]] = {}
    table = top.text("roads_table", default="")
    if table:
        at = ("roads_table",)
        for layer, sources in read_roads_table(files.beside(table, at, "roads_table")).items():
            found[layer] = [_pinned(one, at, f"{table}, {layer}", files) for one in sources]
    embedded = top.inner("roads")
    given = roads_of(embedded, files.path.parent, files.of) if embedded else {}
    for layer, sources in given.items():
        if layer in found:
            top.fault("roads", f"roads and roads_table both give {layer!r}; remove one")
        found[layer] = [
            _pinned(one, ("roads", layer, n), f"{layer} source {n + 1}", files)
            for n, one in enumerate(sources)
        ]
    return found


def _pinned(source: RoadsSource, at: At, what: str, files: _Files) -> RoadsSource:
    def pin(path: Path, reading: Reading) -> Reading:
        if not path.is_relative_to(files.cache.folder):
            files.beside(_written(path, files), at, what)
        return files.pinned(path, reading, at, what)

    def pin_operator(one: AreaOperator) -> AreaOperator:
        return replace(one, reading=pin(one.file, one.reading)) if one.file else one

    return replace(
        source,
        reading=pin(source.path, source.reading),
        operators=tuple(pin_operator(one) for one in source.operators),
    )


def _written(path: Path, files: _Files) -> str:
    """A path as it counts from the recipe's folder, where it can."""
    folder = files.path.parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path.absolute())
