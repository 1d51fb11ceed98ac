"""The embedded example dataset: an invented country, "Doggerland", that the demo and tests build.

Answers where its files are. `make` (re)makes them; nothing here reads them or needs a GIS library.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
GOLDEN = FOLDER / "golden.csv"
TRUNK_ROADS = FOLDER / "trunk_roads.geojson"
RED_ROUTES = FOLDER / "red_routes.geojson"


def layer_files() -> dict[str, Path]:
    """The GeoJSON file of each polygon layer, by the layer's name, the highway layer first."""
    return {"highway": FOLDER / "highway.geojson", "district": FOLDER / "district.geojson"}
