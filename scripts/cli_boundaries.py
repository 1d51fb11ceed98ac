"""The operator's commands for boundary data: parse, call, print; no logic lives here.

Heavy libraries are imported by the commands that need them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts import cli_datasets
from scripts.terminal import (
    Rules,
    UsageError,
    progress_bar,
    read_settings,
    stderr,
)

app = typer.Typer(no_args_is_help=True, help="Build and activate boundary datasets.")
app.add_typer(cli_datasets.app)


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
) -> None:
    """Build a dataset: read, make canonical, compile, prove. Prints the manifest."""
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

    successions = load_rules(rules or read_settings().rules).successions if as_of else ()
    with progress_bar() as progress:
        manifest = build_dataset(
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
            progress=progress,
        )
    for described in manifest["layers"]:
        for one in described.get("replaced", []):
            stderr.print(
                f"{described['name']}: {', '.join(one['successors'])} in place of "
                f"{len(one['ended'])} areas, {one['gained_m2']:.0f} m² gained, "
                f"{one['lost_m2']:.0f} m² lost ({one['reason']})",
                markup=False,
            )
    repaired = sum(len(described["repaired"]) for described in manifest["layers"])
    points = sum(manifest["proof"]["points"].values())
    stderr.print(
        f"{out}: version {manifest['version']}, {manifest['index']['bytes'] / 1e6:.1f} MB, "
        f"{repaired} polygons repaired, {points} points compared with GEOS, 0 mismatches",
        markup=False,
    )
    typer.echo(json.dumps(manifest, indent=2))


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
