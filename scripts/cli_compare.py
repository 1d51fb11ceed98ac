"""The operator's commands that compare, draw and export datasets; they join `boundaries`.

Heavy libraries are imported by the commands that need them.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.terminal import (
    Json,
    NotFoundError,
    Rules,
    UsageError,
    dataset_folder,
    progress_bar,
    read_settings,
    stderr,
    with_database,
)

Name = Annotated[
    str, typer.Argument(metavar="FOLDER|VERSION", help="A dataset folder, or a version.")
]
Layers = Annotated[
    list[str] | None, typer.Option("--layer", help="A layer; repeat it. All by default.")
]


def join(app: typer.Typer) -> None:
    """Add the commands to those of `boundaries`."""
    for command in (diff, preview, picture, export):
        app.command(command.__name__)(command)


def diff(
    old: Name,
    new: Name,
    layer: Layers = None,
    min_m2: Annotated[
        float, typer.Option(min=0, help="Leave out pieces of ground smaller than this.")
    ] = 1.0,
    picture: Annotated[
        Path | None, typer.Option(help="PNG to make of all changes; of several layers, one each.")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder for a PNG of each change.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Say what is different between two datasets."""
    from boundaries.diff import as_json as in_json
    from boundaries.diff import diff_datasets, left_out, sentence

    before, after = dataset_folder(old), dataset_folder(new)
    with progress_bar() as progress:
        found = diff_datasets(before, after, layers=layer or (), min_m2=min_m2, progress=progress)
    if picture or pictures:
        from boundaries.pictures import draw_diff

        with progress_bar() as progress:
            drawn = draw_diff(found, before, after, picture, pictures, progress=progress)
        stderr.print(f"{len(drawn)} pictures: {', '.join(map(str, drawn[:3]))}", markup=False)
    if as_json:
        typer.echo(json.dumps(in_json(found)))
        return
    for name in found.only_old:
        typer.echo(f"layer {name} is gone")
    for name in found.only_new:
        typer.echo(f"layer {name} is new")
    for one in found.layers:
        typer.echo(f"{one.layer}: {one.old_areas} areas before, {one.new_areas} now")
        for n, change in enumerate(one.changes, start=1):
            typer.echo(f"{n:>4}  {sentence(change)}")
        if not one.changes:
            typer.echo("      nothing has changed")
        typer.echo(f"      {left_out(one.slivers)}")


def preview(
    new: Name,
    old: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|VERSION", help="Compare with this dataset, not with what is in force."
        ),
    ] = None,
    reports: Annotated[
        str | None, typer.Option(help="The reports of how many days, such as 30d (the default).")
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="A file of points (.csv, .csv.gz, .parquet) in place of reports."),
    ] = None,
    category: Annotated[
        str, typer.Option(help="What is asked about points without a column `category`.")
    ] = "pothole",
    as_of: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Decide as on this day.")
    ] = None,
    rules: Rules = None,
    *,
    as_json: Json = False,
) -> None:
    """Say which bodies would hand over to which if a dataset were in force."""
    if reports and points:
        raise UsageError("--reports and --points exclude each other")
    days = re.fullmatch(r"(\d{1,5})d", reports or "30d")
    if days is None:
        raise UsageError(f"--reports takes a number of days such as 30d, not {reports!r}")
    from api import london
    from api.routing import load_rules
    from api.store import datasets
    from api.store.reports import list_questions
    from boundaries import preview as previewing

    settings = read_settings()
    if old is None:
        active = with_database(datasets.active_dataset)
        if active is None:
            raise NotFoundError("no dataset is in force; name one with --old")
        old = str(active["version"])
    bad = 0
    if points:
        questions, bad = previewing.read_questions(points, category=category)
    else:
        now = datetime.now(UTC)  # noqa: TID251 - the edge
        since = now - timedelta(days=int(days[1]))
        rows = with_database(lambda conn: list_questions(conn, since=since))
        questions = [previewing.question_of(row) for row in rows]
    before, after = (
        previewing.open_edition(folder) for folder in (dataset_folder(old), dataset_folder(new))
    )
    for one in (before, after):
        if one.areas is None:
            stderr.print(
                f"{one.dataset.version} has no areas beside it, so every place is routed in full",
                markup=False,
            )
    began = time.perf_counter()
    with progress_bar() as progress:
        found = previewing.preview(
            before,
            after,
            questions,
            rules=load_rules(rules or settings.rules),
            as_of=as_of.date() if as_of else london.day_of(time.time()),
            progress=progress,
        )
    took_s = time.perf_counter() - began
    if as_json:
        typer.echo(json.dumps(previewing.as_json(found)))
    else:
        for handover in found.handovers:
            typer.echo(previewing.sentence(handover))
    change = sum(one.count for one in found.handovers)
    pending = sum(len(one.open) for one in found.handovers)
    stderr.print(
        f"{found.old} → {found.new}: {change:,} of {found.asked:,} "
        f"{'points' if points else f'reports, {pending:,} of them open,'} would change hands"
        + (f"; {bad:,} rows name no place" if bad else "")
        + (f"; {found.unanswerable:,} of no known category" if found.unanswerable else "")
        + f" ({found.routed:,} routed in full; {took_s:.1f} s, {found.asked / took_s:,.0f}/s)",
        markup=False,
    )


def picture(
    dataset: Name,
    out: Annotated[Path, typer.Option(help="PNG to make; of several layers, one each.")],
    layer: Layers = None,
) -> None:
    """Draw the areas of a dataset."""
    from boundaries.pictures import draw_dataset

    for path in draw_dataset(dataset_folder(dataset), out, layers=layer or ()):
        typer.echo(path)


def export(
    dataset: Name,
    out: Annotated[Path, typer.Option(help="File to make: .parquet, .gpkg or .geojson.")],
    layer: Layers = None,
    *,
    as_json: Json = False,
) -> None:
    """Write the areas of a dataset to a file: layer, code, name and polygon of each."""
    from boundaries.areas import read_areas
    from boundaries.dataset import attribution, read_manifest
    from boundaries.export import export_areas

    folder = dataset_folder(dataset)
    manifest = read_manifest(folder)
    credit = attribution(manifest, layer or ())
    areas = read_areas(folder, layers=layer or ())
    count = export_areas(areas, out, version=manifest["version"], attribution=credit)
    told: dict[str, Any] = {"file": str(out), "areas": count, "attribution": credit}
    typer.echo(json.dumps(told) if as_json else f"{out}: {count} areas; {credit}")
