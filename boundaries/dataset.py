"""A boundary dataset on disk: a folder with `manifest.json` and `index.grx`.

Answers which dataset a folder holds and opens it, or says in one sentence why it cannot. This is
the only module of `boundaries` that the running service imports; it needs no GIS library.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from georouter.index import Index
from georouter.model import Area, Road

MANIFEST = "manifest.json"
INDEX = "index.grx"


class DatasetError(Exception):
    """A dataset folder that cannot be used; the message says why and what to do."""


class DatasetNotFoundError(DatasetError):
    """A folder that is no dataset at all."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """An opened dataset: its version, its manifest as written at build time, and its index."""

    version: str
    manifest: dict[str, Any]
    index: Index

    @property
    def roads(self) -> dict[str, dict[str, Road]]:
        """What the areas of roads layers stand for, by layer and code."""
        return {
            layer["name"]: {code: _road_from_json(road) for code, road in layer["roads"].items()}
            for layer in self.manifest.get("layers", [])
            if "roads" in layer
        }

    @property
    def authorities(self) -> list[Area]:
        """Who can be responsible: an area for each code, bodies that mend roads included."""
        roads = self.roads
        found = [area for area in self.index.areas if area.layer not in roads]
        for layer, stretches in roads.items():
            bodies = {road.body: road.body_name for road in stretches.values()}
            found += [Area(layer, body, name) for body, name in bodies.items()]
        return found


def road_as_json(road: Road) -> dict[str, Any]:
    """What an area of a roads layer stands for, as a manifest has it."""
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in dataclasses.asdict(road).items()
    }


def _road_from_json(described: dict[str, Any]) -> Road:
    days = {
        name: date.fromisoformat(described[name])
        for name in ("valid_from", "valid_to")
        if described.get(name)
    }
    return Road(**{**described, **days})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a dataset folder, or `DatasetError`."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetNotFoundError(
            f"{folder} is no dataset: it has no {MANIFEST}; make one with "
            "`georouter boundaries build`"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; build the dataset again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("version"), str):
        raise DatasetError(f"{path} names no version; build the dataset again")
    return manifest


def attribution(manifest: Mapping[str, Any], layers: Sequence[str] = ()) -> str:
    """Whom to name as the source, by what the manifest knows of it: each once, in one line."""
    found: dict[str, None] = {}
    for layer in manifest.get("layers", []):
        if layers and layer["name"] not in layers:
            continue
        for source in layer.get("sources") or [layer.get("source", {})]:
            told = [source.get(key) for key in ("publisher", "title", "edition", "licence")]
            said = source.get("attribution") or ", ".join(one for one in told if one)
            found.setdefault(str(said or source.get("file", "unknown source")))
    return "; ".join(found)


def open_dataset(folder: Path) -> Dataset:
    """Open the dataset in `folder`, memory-mapped; raises `DatasetError` or `IndexFormatError`."""
    manifest = read_manifest(folder)
    path = folder / INDEX
    if not path.is_file():
        raise DatasetError(f"{folder} has no {INDEX}; build the dataset again")
    return Dataset(version=manifest["version"], manifest=manifest, index=Index.open(path))
