"""The operator's commands for reports: parse, call, print; no logic lives here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal import UsageError, stderr, with_database

app = typer.Typer(no_args_is_help=True, help="Reports, as anybody may see them.")

Moment = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="A day, or a time, both in UTC."),
]


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="File to make: .csv, or .parquet (GeoParquet).")],
    since: Moment = None,
    until: Moment = None,
    category: Annotated[str | None, typer.Option(help="Only of this category.")] = None,
    authority: Annotated[
        str | None, typer.Option(help="Only what the authority with this code has.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="open or closed.")] = None,
    bbox: Annotated[
        str | None, typer.Option(help="west,south,east,north in degrees.", metavar="BOX")
    ] = None,
) -> None:
    """Write what `GET /v1/reports` shows to a file; no personal data is in it.

    In CSV a text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    from pydantic import ValidationError

    from api.schemas import ReportFilter
    from api.store.places import Wanted
    from scripts.export_reports import export

    try:
        asked = ReportFilter.model_validate(
            {"bbox": bbox, "category": category, "authority": authority, "state": state}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
    wanted = Wanted(
        box=asked.box,
        category=asked.category,
        authority=asked.authority,
        closed=asked.closed,
        received_from=since.replace(tzinfo=UTC) if since else None,
        received_to=until.replace(tzinfo=UTC) if until else None,
    )
    count = with_database(lambda conn: export(conn, out, wanted))
    stderr.print(f"{out}: {count:,} reports", markup=False)
