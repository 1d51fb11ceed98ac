"""The operator's commands for boundary data: parse, call, print; no logic lives here.

Heavy libraries are imported by the commands that need them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from boundaries.findings import Finding
from scripts.terminal import (
    Commit,
    Json,
    Rules,
    UsageError,
    instant,
    progress_bar,
    read_settings,
    stderr,
    with_database,
)

Corrections = Annotated[
    Path | None, typer.Option(help="Corrections, see boundaries/corrections.example.toml.")
]
Against = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The previous dataset, to compare with.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings count as errors do.")]

app = typer.Typer(no_args_is_help=True, help="Build and activate boundary datasets.")


@app.command("build")
def build(
    layer: Annotated[
        list[str],
        typer.Option(help="NAME=FILE; repeat it, the layer that ranks first comes first."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to make; it must not exist.")],
    roads: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE of special roads: trunk=..., red_route=...; repeatable."),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option(help="NAME=CODE:BODY: the body that mends all roads of a roads layer."),
    ] = None,
    buffer_m: Annotated[
        float, typer.Option(min=0.1, max=200, help="Ground each side of a road's centre line.")
    ] = 15.0,
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
    proof_points: Annotated[
        int, typer.Option(min=1000, help="Points per layer compared with the oracle.")
    ] = 105_000,
    leaf_edges: Annotated[
        str,
        typer.Option(
            help="Edges in a cell before it is divided, from the largest cells down: fewer make "
            "the index faster and larger."
        ),
    ] = "1,6,10,14",
    corrections: Corrections = None,
    against: Against = None,
    *,
    strict: Strict = False,
) -> None:
    """Build a dataset: read, repair, validate, compile, prove. Prints the manifest."""
    layers = {name: Path(path) for name, path in _pairs("--layer", layer).items()}
    special = _special_roads(roads, operator, buffer_m, roads_table)
    if twice := layers.keys() & special.keys():
        raise UsageError(f"each name stands for one layer; see to {', '.join(sorted(twice))}")
    if rules and not as_of:
        raise UsageError("--rules has the successions for --as-of; give that day too")
    try:
        most = [abs(int(edges)) for edges in leaf_edges.split(",")]
    except ValueError:
        raise UsageError(
            f"--leaf-edges takes numbers such as 1,6,10,14, not {leaf_edges!r}"
        ) from None
    from api.routing import load_rules
    from boundaries.build import build_dataset
    from boundaries.findings import FindingsError, from_json, standing, summary

    successions = load_rules(rules or read_settings().rules).successions if as_of else ()
    how = _validation(corrections, against, strict=strict)
    try:
        manifest = _with_progress(
            build_dataset,
            layers,
            out,
            roads=special,
            successions=successions,
            as_of=as_of.date() if as_of else None,
            built_at=datetime.now(UTC),  # noqa: TID251 - the edge
            code_field=code_field,
            name_field=name_field,
            proof_points=proof_points,
            leaf_edges=most,
            validation=how,
        )
    except FindingsError as error:
        _print_findings(error.findings, stderr)
        raise
    findings = from_json(manifest["findings"])
    if grave := standing(findings, strict=True):
        _print_findings(grave, stderr)
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
        Path, typer.Argument(metavar="FILE|FOLDER", help="A boundary file, or a dataset folder.")
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
    name = layer or what.name.split(".")[0]
    if others := len(how.corrections.entries) - len(how.corrections.of(name)):
        stderr.print(f"{others} corrections are for other layers than {name!r}", markup=False)
    if what.is_dir():
        if corrections or authorities or layer or code_field or name_field:
            raise UsageError(
                "a dataset is as it was built: --layer, --corrections, --authorities and fields "
                "are for files"
            )
        report = validate_dataset(what, how)
    else:
        report = _with_progress(
            validate_file,
            what,
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
    roads: list[str] | None, operator: list[str] | None, buffer_m: float, table: Path | None
) -> dict[str, list[Any]]:
    """The sources of each roads layer, from the options and the table."""
    from boundaries.roads import RoadsSource
    from boundaries.roads_table import read_roads_table

    operators: dict[str, tuple[str, str]] = {}
    for name, body in _pairs("--operator", operator or []).items():
        code, colon, title = body.partition(":")
        if not (code and colon and title):
            raise UsageError(f"--operator takes NAME=CODE:BODY, not {name}={body}")
        operators[name] = (code, title)
    found = {
        name: [RoadsSource(Path(path), operators.pop(name, None), buffer_m)]
        for name, path in _pairs("--roads", roads or []).items()
    }
    if operators:
        raise UsageError(f"--operator goes with --roads; there is none for {', '.join(operators)}")
    more = read_roads_table(table) if table else {}
    if twice := found.keys() & more.keys():
        raise UsageError(f"--roads and --roads-table both give {', '.join(sorted(twice))}")
    return found | more


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


@app.command("activate")
def activate(
    folder: Annotated[Path, typer.Argument(help="A dataset folder made by `build`.")],
    on: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="A day to come: from its midnight in the United Kingdom, not at once.",
        ),
    ] = None,
    *,
    commit: Commit = False,
    as_json: Json = False,
) -> None:
    """Put a dataset in force, at once or on a day. Running web processes follow within seconds."""
    from api import db, london
    from api.activation import activate
    from api.routing import load_rules

    day = on.date() if on else None
    from_at = london.begins(day) if day else None
    if from_at and from_at <= datetime.now(UTC):  # noqa: TID251 - the edge
        raise UsageError(f"--on {day} has begun; leave it out to put the dataset in force at once")
    settings = read_settings()
    done = asyncio.run(
        activate(
            folder,
            rules=load_rules(settings.rules),
            data_dir=settings.data_dir,
            dsn=db.resolve_dsn(settings),
            commit=commit,
            on=day,
        )
    )
    if as_json:
        told = {**dataclasses.asdict(done), "from": instant(from_at), "committed": commit}
        typer.echo(json.dumps(told))
    else:
        before = f" in place of {done.before}" if done.before and done.changed else ""
        typer.echo(
            f"{done.version}{before}: {done.areas} areas, {done.new_authorities} new authorities"
            + (f", in force from {instant(from_at)}" if from_at else "")
        )
    if not commit:
        stderr.print("dry run: nothing was changed; add --commit to put it in force")
    elif not done.changed:
        stderr.print("it would be in force then anyway" if from_at else "it was in force already")


@app.command("list")
def list_(*, as_json: Json = False) -> None:
    """List the datasets: which was, is and will be in force from when."""
    from api.store.authorities import list_datasets

    rows = [
        {"version": row["version"], "from": instant(row["from_at"]), "state": row["state"]}
        for row in with_database(list_datasets)
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    wide = max((len(row["version"]) for row in rows), default=0)
    for row in rows:
        typer.echo(f"{row['version']:<{wide}}  {row['from'] or '-':<27}  {row['state']}")
    if not rows:
        stderr.print("there is none yet; see `georouter boundaries activate`")
