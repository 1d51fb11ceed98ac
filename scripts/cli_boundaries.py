"""The operator's commands for boundary data: parse, call, print; no logic lives here.

Heavy libraries are imported by the commands that need them.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from boundaries.findings import Finding
from scripts import cli_compare, cli_datasets, cli_sources
from scripts.terminal import (
    Json,
    NotFoundError,
    Rules,
    UsageError,
    progress_bar,
    read_settings,
    stderr,
)

Corrections = Annotated[
    Path | None, typer.Option(help="Corrections, see boundaries/corrections.example.toml.")
]
Against = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The previous dataset, to compare with.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings count as errors do.")]

app = typer.Typer(no_args_is_help=True, help="Build and activate boundary datasets.")
cli_compare.join(app)
app.add_typer(cli_datasets.app)
app.add_typer(cli_sources.app)


@app.command("build")
def build(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="A recipe, see boundaries/recipe.example.toml; ./recipe.toml without --layer."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE; repeat it, the layer that ranks first comes first."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make, if not that of the recipe.")
    ] = None,
    roads: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE of special roads: trunk=..., red_route=...; repeatable."),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option(help="NAME=CODE:BODY: the body that mends all roads of a roads layer."),
    ] = None,
    buffer_m: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=200, help="Ground each side of a road's centre line.", show_default="15"
        ),
    ] = None,
    roads_table: Annotated[
        Path | None,
        typer.Option(help="Special roads as a table, see boundaries/roads.example.toml."),
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Put successors in the place of those who have ended by this day.",
        ),
    ] = None,
    rules: Rules = None,
    code_field: Annotated[str | None, typer.Option(help="Field with the areas' codes.")] = None,
    name_field: Annotated[str | None, typer.Option(help="Field with the areas' names.")] = None,
    crs: Annotated[
        list[str] | None,
        typer.Option(help="NAME=EPSG:27700: what a layer's file is in, whatever it says."),
    ] = None,
    layer_in_file: Annotated[
        list[str] | None, typer.Option(help="NAME=LAYER: which of several in its file.")
    ] = None,
    encoding: Annotated[
        list[str] | None, typer.Option(help="NAME=ENCODING of the text in its file.")
    ] = None,
    accept_accuracy: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Metres that coming to WGS 84 may be wrong by.",
            show_default="0.1",
        ),
    ] = None,
    proof_points: Annotated[
        int | None,
        typer.Option(
            min=1000, help="Points per layer compared with the oracle.", show_default="105000"
        ),
    ] = None,
    leaf_edges: Annotated[
        str | None,
        typer.Option(
            help="Edges in a cell before it is divided, from the largest cells down: fewer make "
            "the index faster and larger.",
            show_default="1,6,10,14",
        ),
    ] = None,
    corrections: Corrections = None,
    against: Against = None,
    *,
    strict: Strict = False,
) -> None:
    """Build a dataset: read, repair, validate, compile, prove. Prints the manifest."""
    from boundaries.recipe import PROOF_POINTS, RECIPE

    given = {
        "--layer": layer,
        "--roads": roads,
        "--operator": operator,
        "--buffer-m": buffer_m,
        "--roads-table": roads_table,
        "--as-of": as_of,
        "--rules": rules,
        "--code-field": code_field,
        "--name-field": name_field,
        "--crs": crs,
        "--layer-in-file": layer_in_file,
        "--encoding": encoding,
        "--accept-accuracy": accept_accuracy,
        "--proof-points": proof_points,
        "--leaf-edges": leaf_edges,
        "--corrections": corrections,
    }
    if recipe is None and not layer and Path(RECIPE).is_file():
        recipe = Path(RECIPE)
    if recipe is not None:
        if also := [option for option, value in given.items() if value]:
            raise UsageError(
                f"{recipe} says it all: put {', '.join(also)} into it, or leave it out"
            )
        _print_built(*_build_recipe(recipe, out, against=against, strict=strict))
        return
    if not (layer and out):
        raise UsageError(f"give a recipe, or --layer and --out; there is no {RECIPE} here")
    reading = _Readings(accept_accuracy, crs=crs, layer_in_file=layer_in_file, encoding=encoding)
    layers = _pairs("--layer", layer)
    special = _special_roads(roads, operator, buffer_m, roads_table, reading)
    if twice := layers.keys() & special.keys():
        raise UsageError(f"each name stands for one layer; see to {', '.join(sorted(twice))}")
    if rules and not as_of:
        raise UsageError("--rules has the successions for --as-of; give that day too")
    from api.routing import load_rules
    from boundaries.build import LayerSource, build_dataset

    sources = {
        name: LayerSource(Path(path), code_field, name_field, reading(name))
        for name, path in layers.items()
    }
    reading.nothing_else()
    most = _leaf_edges(leaf_edges)
    successions = load_rules(rules or read_settings().rules).successions if as_of else ()
    how = _validation(corrections, against, strict=strict)
    with _telling_findings():
        manifest = _with_progress(
            build_dataset,
            sources,
            out,
            roads=special,
            successions=successions,
            as_of=as_of.date() if as_of else None,
            built_at=datetime.now(UTC),  # noqa: TID251 - the edge
            proof_points=proof_points or PROOF_POINTS,
            leaf_edges=most,
            validation=how,
        )
    _print_built(out, manifest)


def _build_recipe(
    path: Path, out: Path | None, *, against: Path | None, strict: bool
) -> tuple[Path, dict[str, Any]]:
    from api.routing import load_rules
    from boundaries.cache import Cache
    from boundaries.previous import read_previous
    from boundaries.recipe import build_recipe, read_recipe

    recipe = read_recipe(path, Cache(read_settings().data_dir / "cache"))
    out = out or recipe.out
    if out is None:
        raise UsageError(f"{path} does not say where to; add out, or give --out")
    how = dataclasses.replace(
        recipe.validation,
        against=read_previous(against) if against else None,
        strict=recipe.validation.strict or strict,
    )
    successions = load_rules(recipe.rules).successions if recipe.as_of else ()
    with _telling_findings():
        manifest = _with_progress(
            build_recipe,
            dataclasses.replace(recipe, validation=how),
            out,
            built_at=datetime.now(UTC),  # noqa: TID251 - the edge
            successions=successions,
        )
    return out, manifest


@contextmanager
def _telling_findings() -> Iterator[None]:
    """Print the findings that stop a build."""
    from boundaries.findings import FindingsError

    try:
        yield
    except FindingsError as error:
        _print_findings(error.findings, stderr)
        raise


def _print_built(out: Path, manifest: dict[str, Any]) -> None:
    from boundaries.findings import from_json, standing, summary

    findings = from_json(manifest["findings"])
    if grave := standing(findings, strict=True):
        _print_findings(grave, stderr)
    for described in manifest["layers"]:
        for source in described.get("sources", [described.get("source", {})]):
            for warning in source.get("warnings", []):
                stderr.print(f"{described['name']}, {source['file']}: {warning}", markup=False)
    for described in manifest["layers"]:
        for one in described.get("replaced", []):
            stderr.print(
                f"{described['name']}: {', '.join(one['successors'])} in place of "
                f"{len(one['ended'])} areas, {one['gained_m2']:.0f} m² gained, "
                f"{one['lost_m2']:.0f} m² lost ({one['reason']})",
                markup=False,
            )
    repaired = sum(len(described["repairs"]) for described in manifest["layers"])
    points = sum(manifest["proof"]["points"].values())
    stderr.print(
        f"{out}: version {manifest['version']}, {manifest['index']['bytes'] / 1e6:.1f} MB, "
        f"{repaired} polygons repaired, {summary(findings)}, {points} points compared with GEOS, "
        "0 mismatches",
        markup=False,
    )
    typer.echo(json.dumps(manifest, indent=2))


@app.command("validate")
def validate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|SOURCE|FOLDER",
            help="A boundary file, a source that was fetched, or a dataset folder.",
        ),
    ],
    layer: Annotated[
        str | None, typer.Option(help="The layer that the file is; by default its name.")
    ] = None,
    against: Against = None,
    corrections: Corrections = None,
    authorities: Annotated[
        Path | None, typer.Option(help="CSV of authorities (gss or code): others are reported.")
    ] = None,
    code_field: Annotated[str | None, typer.Option(help="Field with the areas' codes.")] = None,
    name_field: Annotated[str | None, typer.Option(help="Field with the areas' names.")] = None,
    sliver_m2: Annotated[
        float | None, typer.Option(min=0, help="Overlaps and gaps smaller are slivers. [1000]")
    ] = None,
    sliver_width_m: Annotated[
        float | None, typer.Option(min=0, help="So are those that are nowhere wider. [30]")
    ] = None,
    change_percent: Annotated[
        float | None, typer.Option(min=0, help="Areas that change more are reported. [5]")
    ] = None,
    *,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Report what is wrong with boundaries; exits with 3 on errors. Nothing is changed."""
    from boundaries.findings import as_json as described
    from boundaries.findings import standing, summary
    from boundaries.validate import validate_dataset, validate_file

    how = _validation(corrections, against, strict=strict, authorities=authorities)
    limits = how.limits.with_slivers(m2=sliver_m2, width_m=sliver_width_m)
    if change_percent is not None:
        limits = dataclasses.replace(limits, change_percent=change_percent)
    how = dataclasses.replace(how, limits=limits)
    path = _file_of(what)
    name = layer or Path(what).name.split(".")[0]
    if others := len(how.corrections.entries) - len(how.corrections.of(name)):
        stderr.print(f"{others} corrections are for other layers than {name!r}", markup=False)
    if path.is_dir():
        if corrections or authorities or layer or code_field or name_field:
            raise UsageError(
                "a dataset is as it was built: --layer, --corrections, --authorities and fields "
                "are for files"
            )
        report = validate_dataset(path, how)
    else:
        report = _with_progress(
            validate_file,
            path,
            name,
            how,
            code_field=code_field,
            name_field=name_field,
        )
    if as_json:
        told = {"findings": described(report.findings), "layers": report.layers}
        typer.echo(json.dumps(told, indent=2))
    elif report.findings:
        wide = None if sys.stdout.isatty() else 200  # into a file or pipe, a line is a finding
        _print_findings(report.findings, Console(highlight=False, width=wide))
    for one in report.layers:
        moved = sum(repair["moved_m2"] for repair in one["repairs"])
        stderr.print(
            f"{one['name']}: {one['areas']} areas, {len(one['repairs'])} repaired "
            f"({moved:,.2f} m² moved), {len(one.get('corrections', ()))} corrected",
            markup=False,
        )
    stderr.print(f"{what}: {summary(report.findings)}", markup=False)
    if standing(report.findings, strict=strict):
        raise typer.Exit(3)


def _file_of(what: str) -> Path:
    """A file or folder by its path, else the newest file of a source."""
    from boundaries.cache import Cache
    from boundaries.catalogue import read_catalogue

    settings = read_settings()
    if Path(what).exists() or what not in read_catalogue(settings.catalogue):
        return Path(what)
    kept = Cache(settings.data_dir / "cache").newest(what)
    if kept is None:
        raise NotFoundError(f"{what} was not fetched; run `georouter boundaries fetch {what}`")
    return kept.path


def _validation(
    corrections: Path | None,
    against: Path | None,
    *,
    strict: bool,
    authorities: Path | None = None,
) -> Any:
    """How to validate, from the options."""
    from boundaries import corrections as corrected
    from boundaries.checks import read_authorities
    from boundaries.previous import read_previous
    from boundaries.validate import Validation

    return Validation(
        corrections=(
            corrected.read_corrections(corrections) if corrections else corrected.Corrections()
        ),
        against=read_previous(against) if against else None,
        known=read_authorities(authorities) if authorities else None,
        strict=strict,
    )


def _with_progress(work: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Call `work` with a progress bar, which is gone when anything is printed."""
    with progress_bar() as progress:
        return work(*given, progress=progress, **options)


def _print_findings(findings: Sequence[Finding], console: Console) -> None:
    """A table of findings."""
    from rich.table import Table

    columns = ("severity", "code", "layer", "area", "lon", "lat", "m2", "message")
    table = Table(*columns, box=None, pad_edge=False)
    for one in findings:
        place = [f"{degrees:.6f}" for degrees in (one.lon, one.lat) if degrees is not None]
        table.add_row(
            "accepted" if one.accepted else one.severity,
            one.code,
            escape(one.layer),
            escape(one.area or ""),
            *(place or ("", "")),
            "" if one.area_m2 is None else f"{one.area_m2:.2f}",
            escape(one.message + (f" (accepted: {one.accepted})" if one.accepted else "")),
        )
    console.print(table)


def _special_roads(
    roads: list[str] | None,
    operator: list[str] | None,
    buffer_m: float | None,
    table: Path | None,
    reading: _Readings,
) -> dict[str, list[Any]]:
    """The sources of each roads layer, from the options and the table."""
    from boundaries.roads import DEFAULT_BUFFER_M, RoadsSource
    from boundaries.roads_table import read_roads_table

    operators: dict[str, tuple[str, str]] = {}
    for name, body in _pairs("--operator", operator or []).items():
        code, colon, title = body.partition(":")
        if not (code and colon and title):
            raise UsageError(f"--operator takes NAME=CODE:BODY, not {name}={body}")
        operators[name] = (code, title)
    found = {
        name: [
            RoadsSource(
                Path(path),
                operators.pop(name, None),
                buffer_m or DEFAULT_BUFFER_M,
                reading=reading(name),
            )
        ]
        for name, path in _pairs("--roads", roads or []).items()
    }
    if operators:
        raise UsageError(f"--operator goes with --roads; there is none for {', '.join(operators)}")
    more = read_roads_table(table) if table else {}
    if twice := found.keys() & more.keys():
        raise UsageError(f"--roads and --roads-table both give {', '.join(sorted(twice))}")
    return found | more


def _leaf_edges(given: str | None) -> list[int]:
    from georouter.compiler import LEAF_EDGES

    try:
        return [abs(int(edges)) for edges in given.split(",")] if given else list(LEAF_EDGES)
    except ValueError:
        raise UsageError(f"--leaf-edges takes numbers such as 1,6,10,14, not {given!r}") from None


class _Readings:
    """How the file of each layer is to be read, by the options; each must be for some layer."""

    def __init__(self, accept_accuracy: float | None, **options: list[str] | None) -> None:
        self._accept_m = accept_accuracy
        self._options = {
            key: _pairs(f"--{key.replace('_', '-')}", given or []) for key, given in options.items()
        }

    def __call__(self, name: str) -> Any:
        from boundaries.readers import AS_IT_SAYS, Reading

        told = {key: pairs.pop(name, None) for key, pairs in self._options.items()}
        return Reading(**told, accept_accuracy_m=self._accept_m or AS_IT_SAYS.accept_accuracy_m)

    def nothing_else(self) -> None:
        for key, pairs in self._options.items():
            if pairs:
                option = f"--{key.replace('_', '-')}"
                raise UsageError(f"{option} is for a layer; there is none called {min(pairs)!r}")


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """NAME=VALUE options as a table."""
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} takes NAME=..., not {pair!r}")
        if name in found:
            raise UsageError(f"{option} {name} is given twice")
        found[name] = value
    return found
