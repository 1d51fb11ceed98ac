"""The operator's commands for boundary sources: parse, call, print; no logic lives here.

They are commands of `georouter boundaries`, as those of `cli_boundaries` are.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.terminal import Json, progress_bar, read_settings, stderr, with_database

app = typer.Typer()


@app.command("sources")
def sources(
    dataset: Annotated[
        Path | None,
        typer.Option(help="Dataset whose editions are in use; by default the active one."),
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Ask the services for the newest editions.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what can be fetched: publisher, licence, and which editions are where.

    It starts no database: without one at hand, `in use` is only known of --dataset.
    """
    from boundaries.cache import Cache
    from boundaries.catalogue import read_catalogue
    from boundaries.dataset import read_manifest
    from boundaries.drivers.driver import FileMissingError
    from boundaries.drivers.remote import Patience, Remote, RemoteError
    from boundaries.fetch import check as ask
    from boundaries.fetch import known

    settings = read_settings()
    catalogue = read_catalogue(settings.catalogue)
    cache = Cache(settings.data_dir / "cache")
    failed: list[str] = []
    if check:
        with Remote(Patience(tries=2)) as remote, progress_bar() as progress:
            for number, source in enumerate(catalogue.values()):
                progress(f"asking {source.name}", number / len(catalogue))
                try:
                    ask(source, cache, remote=remote, clock=_now)
                except (RemoteError, FileMissingError) as error:
                    failed.append(f"{source.name}: {error}")
    manifest = read_manifest(dataset) if dataset else _active_manifest()
    rows = [
        {
            "source": one.source.name,
            "title": one.source.title,
            "publisher": one.source.publisher,
            "licence": one.source.licence,
            "in_use": one.in_use,
            "in_cache": one.cached,
            "newest": one.newest,
            "asked_at": one.asked_at,
            "verified": one.source.verified,
        }
        for one in known(catalogue.values(), cache, manifest)
    ]
    if as_json:
        typer.echo(json.dumps(rows))
    for row in rows if not as_json else ():
        asked = f" ({row['asked_at']})" if row["asked_at"] else ", see --check"
        typer.echo(
            f"{row['source']}: {row['title']}\n"
            f"  publisher     {row['publisher']}\n"
            f"  licence       {row['licence']}\n"
            f"  in use        {row['in_use'] or '-'}\n"
            f"  in the cache  {row['in_cache'] or '-'}\n"
            f"  newest known  {row['newest'] or '-'}{asked}\n"
            f"  verified against the live service: {'yes' if row['verified'] else 'no'}"
        )
    if failed:
        raise RemoteError("; ".join(failed))


def _active_manifest() -> dict[str, Any] | None:
    """The manifest of the dataset in force, if a database is at hand that says which it is."""
    from api import embedded
    from api.db import DatabaseUnavailable, SchemaOutdated
    from api.store import datasets

    settings = read_settings()
    if settings.database_url is None and not embedded.postmaster_pid(
        settings.data_dir / "postgres"
    ):
        return None

    async def ask(conn: Any) -> dict[str, Any] | None:
        active = await datasets.active_dataset(conn)
        return await datasets.read_manifest(conn, active["id"]) if active else None

    try:
        found: dict[str, Any] | None = with_database(ask)
    except (DatabaseUnavailable, SchemaOutdated) as error:
        stderr.print(f"what is in use is not known: {error}", markup=False)
        return None
    return found


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the edge


@app.command("fetch")
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="See `sources`.")],
    edition: Annotated[
        str | None, typer.Option(help="Such as 2025-05; by default the newest.")
    ] = None,
    *,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Fetch again what is in the cache.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch sources into the cache, and print where their files are.

    A run that is broken off is gone on with by the next one.
    """
    from boundaries.cache import Cache
    from boundaries.catalogue import pick, read_catalogue
    from boundaries.drivers.remote import Remote
    from boundaries.fetch import fetch

    settings = read_settings()
    catalogue = read_catalogue(settings.catalogue)
    wanted = [pick(catalogue, name) for name in names]
    cache = Cache(settings.data_dir / "cache")
    told = []
    try:
        for source in wanted:
            with Remote() as remote, progress_bar() as progress:
                got = fetch(
                    source,
                    cache,
                    remote=remote,
                    clock=_now,
                    edition=edition,
                    refresh=refresh,
                    progress=progress,
                )
            one = got.fetched
            told.append({**dataclasses.asdict(one), "path": str(one.path), "fresh": got.fresh})
            size = f"{one.path.stat().st_size / 1e6:.1f} MB"
            where = "fetched" if got.fresh else "in the cache already"
            stderr.print(f"{one.source} {one.edition}: {size}, {where}", markup=False)
            if not as_json:
                typer.echo(f"{one.source}  {one.edition}  {one.path}")
    except KeyboardInterrupt:
        stderr.print("interrupted; the same command goes on from here")
        raise
    if as_json:
        typer.echo(json.dumps(told))
