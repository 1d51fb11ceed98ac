"""The privacy commands: hand out, erase and purge what is kept of people.

Like the rest of the command line it parses, calls and prints. Data is on stdout or in a file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.terminal import Commit, Json, read_settings, stderr, with_database

app = typer.Typer(no_args_is_help=True, help="What is kept of people, and for how long.")

Who = Annotated[
    str,
    typer.Argument(
        metavar="REPORTER", help="An e-mail address, a private link or its token, or a report's id."
    ),
]


@app.command()
def purge(*, commit: Commit = False, as_json: Json = False) -> None:
    """Erase what is kept longer than the settings say. Workers do so every hour."""
    from api import privacy
    from api.store import privacy as store

    retention = privacy.retention_of(read_settings())
    if commit:
        counts = with_database(lambda conn: privacy.purge(conn, retention))
    else:
        counts = with_database(lambda conn: store.count_due(conn, retention))
    if as_json:
        typer.echo(json.dumps(dict(counts)))
    else:
        for what, count in counts.items():
            typer.echo(f"{what}: {count}")
    if not commit:
        stderr.print("a dry run: nothing was erased; --commit does")


@app.command()
def export(
    reporter: Who,
    out: Annotated[
        Path | None,
        typer.Option(help="A file to make: .json, or .zip, which has the photos too."),
    ] = None,
) -> None:
    """Hand out all that is stored of a person, as JSON. It is noted in the audit trail."""
    import asyncio

    from api import privacy
    from api.vault import open_vault

    settings = read_settings()
    vault = open_vault(settings)

    async def work(conn: Any) -> dict[str, Any]:
        return await privacy.export(
            conn, await privacy.find(conn, reporter, vault=vault), vault=vault
        )

    found = with_database(work)
    text = json.dumps(found, indent=2, ensure_ascii=False, default=_plain)
    if out is None:
        typer.echo(text)
        return
    out.touch(mode=0o600)
    out.chmod(0o600)
    if out.suffix == ".zip":
        asyncio.run(_zip(out, text, found, settings))
    else:
        out.write_text(text + "\n", encoding="utf-8")
    stderr.print(f"{out}: {len(found['reports'])} reports, {len(found['following'])} followed")


async def _zip(out: Path, text: str, found: dict[str, Any], settings: Any) -> None:
    import zipfile

    from api.objects import open_objects
    from api.photos import object_name

    objects = open_objects(settings)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("data.json", text)
        for photo in (one for report in found["reports"] for one in report["photos"]):
            content = await objects.get(object_name(photo, "full"))
            if content is not None:
                made.writestr(f"photos/{photo}.jpg", content)


@app.command()
def erase(reporter: Who, *, commit: Commit = False, as_json: Json = False) -> None:
    """Erase what is stored of a person, and say which councils have a copy."""
    from api import privacy
    from api.vault import open_vault

    vault = open_vault(read_settings())

    async def work(conn: Any) -> Any:
        person = await privacy.find(conn, reporter, vault=vault)
        return await privacy.erase(conn, person, commit=commit)

    erased = with_database(work)
    if as_json:
        found = {
            "followers": erased.followers,
            "reports": erased.reports,
            "sent_to": erased.sent_to,
            "committed": commit,
        }
        typer.echo(json.dumps(found, default=_plain))
    else:
        verb = "erased" if commit else "to be erased"
        typer.echo(f"{verb}: {erased.reports} reports, {erased.followers} contacts and links")
        for one in erased.sent_to:
            number = f", their number {one['reference']}" if one["reference"] else ""
            typer.echo(
                f"{one['authority']} has report {one['report_id']} ({one['channel']} "
                f"{one['url']}{number}): tell them"
            )
    if not commit:
        stderr.print("a dry run: nothing was erased; --commit does")


def _plain(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
