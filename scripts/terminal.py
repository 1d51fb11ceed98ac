"""What the commands share: options, the terminal, the settings, and a database to work on.

Data goes to stdout; progress and prose go to stderr, which is `stderr` here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from api.settings import Settings

stderr = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Rules = Annotated[
    Path | None, typer.Option(help="Folder with rules; by default those of the settings.")
]
Commit = Annotated[bool, typer.Option("--commit", help="Do it; without this it is a dry run.")]


class UsageError(Exception):
    """Arguments that make no sense together."""


class NotFoundError(Exception):
    """Something named on the command line that does not exist."""


def read_settings() -> Settings:
    """The settings; a fault in them is a `UsageError`."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["loc"]:  # else it is about several, and names them
            message = "GEOROUTER_" + "_".join(map(str, first["loc"])).upper() + f": {message}"
        raise UsageError(message) from None


def with_database(work: Callable[[Any], Any]) -> Any:
    """Run `work(conn)` on a migrated database."""
    from api import db

    async def run() -> Any:
        conn = await db.connect(dsn)
        try:
            with db.translate():
                await db.check_schema(conn)
                return await work(conn)
        finally:
            await conn.close(timeout=5.0)

    dsn = db.resolve_dsn(read_settings())
    return asyncio.run(run())


def dataset_folder(name: str | Path) -> Path:
    """The folder of a dataset, given that or a version; of a folder, no database is asked."""
    from api import db
    from api.activation import is_folder, resolve
    from api.artefacts import Artefacts

    if is_folder(name):
        return Path(name)
    settings = read_settings()
    return asyncio.run(
        resolve(str(name), artefacts=Artefacts.of(settings), dsn=db.resolve_dsn(settings))
    )


def instant(moment: datetime | None) -> str | None:
    """A moment in UTC, as the API writes it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr, fed with (stage, share done)."""
    from rich.progress import Progress

    with Progress(console=stderr, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(stage: str, share: float) -> None:
            bar.update(task, description=f"{stage:<20}", completed=share)

        yield show
