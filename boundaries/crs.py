"""Takes geometries from any coordinate reference system to WGS 84, and says how exactly.

Promises that what comes out is right to the metres stated, or a `SourceError` that says why not and
what to do. ETRS89 is taken for WGS 84, as all publishers of boundaries here do. British National
Grid goes through OSTN15, everything else through the most accurate operation that PROJ has for that
ground.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from boundaries.errors import SourceError

Geometries = npt.NDArray[Any]
"""Shapely geometries as a numpy object array."""

_AS_IT_IS: Final = frozenset({("EPSG", "4326"), ("OGC", "CRS84"), ("EPSG", "4258")})
_NATIONAL_GRID: Final = "EPSG:27700"
_OSGB36: Final = ("EPSG", "4277")
_IRELAND: Final = ((-200_000.0, 250_000.0), (185_000.0, 603_000.0))  # on the National Grid
_HELMERT_M: Final = 10.0  # more than OSTN15 and seven parameters are apart in Great Britain: 5 m
_DEGREE_M: Final = 111_320.0
_DENSIFY_M: Final = 500.0
_BESIDE_DEGREES: Final = 3.0  # a country's map may show this much of its neighbours
_EDGE_DEGREES: Final = 0.5  # areas of use leave out islets


class Converted(NamedTuple):
    """Geometries in degrees, the operation that led there, and its accuracy in metres."""

    geometries: Geometries
    operation: str
    accuracy_m: float


def system_of(path: Path, said: Any, told: str | None) -> Any:
    """The reference system of a file: the one told, else the one that it says itself."""
    import pyproj

    if told is not None:
        try:
            return pyproj.CRS.from_user_input(told)
        except pyproj.exceptions.CRSError:
            raise SourceError(
                f"{path}: there is no reference system {told!r}; write it like EPSG:27700"
            ) from None
    if said is None:
        raise SourceError(
            f"{path} does not say its coordinate reference system; "
            "say it with --crs, or crs in the recipe, such as EPSG:27700"
        )
    return said


def named(crs: Any) -> str:
    """A reference system as a manifest names it."""
    return str(crs.to_string() if crs.to_authority() else crs.name)


def to_wgs84(
    path: Path, crs: Any, geometries: Geometries, *, labels: Sequence[str], accept_m: float
) -> Converted:
    """The geometries in WGS 84; `labels` name them. Raises `SourceError`."""
    import shapely

    if shapely.has_z(geometries).any() or shapely.has_m(geometries).any():
        geometries = shapely.force_2d(geometries)  # else no copy of a whole country is made
    crs = crs.source_crs if crs.is_bound else crs
    crs = crs.to_2d()
    authority = crs.to_authority(min_confidence=70)
    bounds = shapely.total_bounds(geometries)
    if crs.is_geographic:
        _check_degrees(path, crs, bounds)
        if authority in _AS_IT_IS:
            return Converted(geometries, "none (already WGS 84 or ETRS89)", 0.0)
    elif not crs.is_projected:
        raise SourceError(
            f"{path} is in {crs.name!r}, which is no map; reproject it to EPSG:4326, e.g. with "
            "`ogr2ogr -t_srs EPSG:4326`"
        )
    elif np.abs(bounds).max() <= 180:
        raise SourceError(
            f"{path} says it is in {crs.name!r}, but its coordinates look like degrees "
            f"({_listed(bounds)}); correct it with --crs, or crs in the recipe"
        )
    if crs.is_projected:
        # a straight line on a map is none in degrees: over 500 m they part by less than 1 cm
        unit_m = crs.axis_info[0].unit_conversion_factor
        geometries = shapely.segmentize(geometries, _DENSIFY_M / unit_m)
    if crs.geodetic_crs.to_authority(min_confidence=70) == _OSGB36:
        if authority != ("EPSG", "27700"):  # the same datum: pure mathematics
            geometries = _moved(geometries, _mathematics(crs, _NATIONAL_GRID))
        return _from_national_grid(path, geometries, labels, accept_m)
    where = _roughly(path, crs, bounds)
    operation = _most_accurate(path, crs, where, accept_m)
    moved = _moved(geometries, operation)
    finite = np.isfinite(shapely.bounds(moved)).all(axis=1)
    if not finite.all():
        raise SourceError(
            f"{path}: {labels[int(np.argmin(finite))]} lies where {crs.name!r} ends; "
            "correct it or leave it out"
        )
    name = operation.description.replace(" + axis order change (2D)", "")
    return Converted(moved, name.removeprefix("axis order change (2D) + "), operation.accuracy)


def _listed(bounds: npt.NDArray[np.float64]) -> str:
    return " ".join(f"{value:.0f}" for value in bounds)


def _check_degrees(path: Path, crs: Any, bounds: npt.NDArray[np.float64]) -> None:
    west, south, east, north = bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise SourceError(
            f"{path} says it is in degrees ({named(crs)}), but its coordinates reach "
            f"{_listed(bounds)}; correct it with --crs, or crs in the recipe"
        )


def _from_national_grid(
    path: Path, geometries: Geometries, labels: Sequence[str], accept_m: float
) -> Converted:
    """By OSTN15, the definitive transformation (OS, "Transformations and OSGM15", 2018).

    pyproj's wheel has no such grid, and is off by up to 5 m without saying so. convertbng has it;
    it gives no number outside its rectangle, but wrong ones along its edge, and plausible ones in
    Ireland, which OSTN15 was not made for.
    """
    import shapely
    from convertbng import cutil

    grid, of = shapely.get_coordinates(geometries, return_index=True)
    easting, northing = np.ascontiguousarray(grid[:, 0]), np.ascontiguousarray(grid[:, 1])
    lon, lat = cutil.convert_osgb36_to_ll(easting, northing)
    rough = np.column_stack(_mathematics(_NATIONAL_GRID, "EPSG:4326").transform(easting, northing))
    lon_m, lat_m = np.cos(np.radians(rough[:, 1])) * _DEGREE_M, _DEGREE_M
    apart_m = np.hypot((lon - rough[:, 0]) * lon_m, (lat - rough[:, 1]) * lat_m)
    outside = ~(apart_m < _HELMERT_M)
    if outside.any():
        first = int(np.argmax(outside))
        raise SourceError(
            f"{path}: {labels[of[first]]} reaches easting {easting[first]:.0f}, northing "
            f"{northing[first]:.0f}, outside the ground that OSTN15 covers (Great Britain and its "
            "waters); correct it, leave it out, or correct the CRS"
        )
    (west, south), (east, north) = _IRELAND
    irish = (west < easting) & (easting < east) & (south < northing) & (northing < north)
    if irish.any() and accept_m < _HELMERT_M:
        raise SourceError(
            f"{path}: {labels[of[int(np.argmax(irish))]]} is in Ireland, where OSTN15 is accurate "
            f"to {_HELMERT_M:g} m, not {accept_m:g} m; leave it out and take it from a file in "
            f"EPSG:4326 or 2157, or accept it with --accept-accuracy {_HELMERT_M:g}"
        )
    return Converted(
        np.asarray(shapely.set_coordinates(geometries, np.column_stack([lon, lat])), dtype=object),
        "OSGB36 to ETRS89 by OSTN15 (convertbng)",
        _HELMERT_M if irish.any() else 0.01,
    )


def _mathematics(crs: Any, target: str) -> Any:
    """Within a datum exact; between two as PROJ can, without the better grids that are missing."""
    import pyproj

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return pyproj.Transformer.from_crs(crs, target, always_xy=True)


def _moved(geometries: Geometries, operation: Any) -> Geometries:
    import shapely

    def move(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(operation.transform(xy[:, 0], xy[:, 1]))

    return np.asarray(shapely.transform(geometries, move), dtype=object)


def _roughly(path: Path, crs: Any, bounds: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Where the file is, in degrees to some 100 m; refused far from where its system is used."""
    where = _mathematics(crs, "EPSG:4326").transform_bounds(*bounds.tolist())
    used = crs.area_of_use
    near = used is None or _within(where, used.bounds, _BESIDE_DEGREES)
    if not (np.isfinite(where).all() and near):
        at = f"{used.name} ({' '.join(f'{d:.1f}' for d in used.bounds)})" if used else "no place"
        raise SourceError(
            f"{path} says it is in {crs.name!r}, which is for {at[:120]}, but its coordinates "
            f"reach {_listed(bounds)}, elsewhere; correct it with --crs, or crs in the recipe"
        )
    return tuple(float(degrees) for degrees in where)


def _covers(area_of_use: Any, where: Sequence[float]) -> bool:
    return area_of_use is None or _within(where, area_of_use.bounds, _EDGE_DEGREES)


def _within(where: Sequence[float], area: Sequence[float], margin: float) -> bool:
    west, south, east, north = area
    if west > east:  # over the antimeridian
        west, east = -180.0, 180.0
    return (
        where[0] >= west - margin
        and where[1] >= south - margin
        and where[2] <= east + margin
        and where[3] <= north + margin
    )


def _most_accurate(path: Path, crs: Any, where: Sequence[float], accept_m: float) -> Any:
    """The operation of the best stated accuracy for this ground, if that is good enough."""
    from pyproj.transformer import TransformerGroup

    usable: list[Any] = []
    missing: list[Any] = []
    # systems on WGS 84 lead to it alone by mathematics, those on ETRS89 to that
    for target in ("EPSG:4258", "EPSG:4326"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            group = TransformerGroup(crs, target, always_xy=True, allow_ballpark=False)
        usable += [
            one
            for one in group.transformers
            if one.accuracy >= 0 and _covers(one.area_of_use, where)
        ]
        missing += [one for one in group.unavailable_operations if one.accuracy >= 0]
    remedy = "reproject it to EPSG:4326 with a program that has a better one"
    if not usable:
        raise SourceError(
            f"{path} is in {crs.name!r}, from which PROJ has no operation of known accuracy to "
            f"WGS 84 where it lies (lon {where[0]:.1f} to {where[2]:.1f}, lat {where[1]:.1f} to "
            f"{where[3]:.1f}); {remedy}, or correct its CRS"
        )
    best = min(usable, key=lambda one: one.accuracy)
    if best.accuracy > accept_m:
        better = min(missing, key=lambda one: one.accuracy, default=best)
        hint = ""
        if better.accuracy < best.accuracy:
            grids = ", ".join(grid.short_name for grid in better.grids)
            hint = f" (one of {better.accuracy:g} m needs the grid {grids})"
        raise SourceError(
            f"{path} is in {crs.name!r}, and the best operation here is accurate to "
            f"{best.accuracy:g} m{hint}, not {accept_m:g} m; {remedy}, or accept it with "
            f"--accept-accuracy {best.accuracy:g}"
        )
    return best
