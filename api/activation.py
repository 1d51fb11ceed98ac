"""Puts a boundary dataset in force: checks it, keeps a copy, and tells the database.

The service reads its own copy in the data directory, so that the operator's folder may go. Web
processes follow the database by themselves (see `routing`). A dry run does all of it inside a
transaction and rolls back, so it meets whatever a real run would meet.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import asyncpg

from api import db, london
from api.routing import bodies_of, successions_of
from api.store import audit
from api.store.authorities import activate_dataset, active_dataset
from boundaries.dataset import Dataset, DatasetError, open_dataset
from georouter.codec import IndexFormatError
from georouter.model import Rules
from georouter.router import Router


@dataclass(frozen=True, slots=True)
class Activated:
    """What an activation did, or in a dry run would do."""

    version: str
    before: str | None
    changed: bool
    areas: int
    new_authorities: int


async def activate(
    folder: Path,
    *,
    rules: Rules,
    data_dir: Path,
    dsn: str,
    commit: bool,
    on: date | None = None,
) -> Activated:
    """Put the dataset in `folder` in force; without `commit` only find out what that would do.

    At once, or at midnight of the day `on` in the United Kingdom.

    Raises `DatasetError`, `IndexFormatError`, `MissingLayer`, `SchemaOutdated` and
    `DatabaseUnavailable`.
    """
    dataset = open_dataset(folder)
    # or it says why not
    Router(dataset.index, rules=rules, dataset=dataset.version, roads=dataset.roads)
    home = data_dir / "datasets" / dataset.version
    conn = await db.connect(dsn)
    try:
        with db.translate():
            await db.check_schema(conn)
            if commit:
                _keep(folder, home, dataset)
            return await _activate(conn, dataset, home, rules, on=on, commit=commit)
    finally:
        await conn.close(timeout=5.0)


async def _activate(
    conn: asyncpg.Connection,
    dataset: Dataset,
    home: Path,
    rules: Rules,
    *,
    on: date | None,
    commit: bool,
) -> Activated:
    transaction = conn.transaction()
    await transaction.start()
    from_at = london.begins(on) if on is not None else None
    try:
        before = await active_dataset(conn)
        done = await activate_dataset(
            conn,
            version=dataset.version,
            location=str(home),
            manifest=dataset.manifest,
            areas=[*dataset.authorities, *bodies_of(dataset, rules)],
            handovers=successions_of(rules),
            from_at=from_at,
        )
        if done.changed:
            await audit.record(
                conn,
                "dataset.activated",
                api_key_id=None,
                authority_id=None,
                detail={
                    "version": dataset.version,
                    "before": before["version"] if before else None,
                    "from": from_at.isoformat() if from_at else None,
                },
            )
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.commit() if commit else transaction.rollback())
    return Activated(
        version=dataset.version,
        before=before["version"] if before else None,
        changed=done.changed,
        areas=len(dataset.index.areas),
        new_authorities=done.new_authorities,
    )


def _keep(folder: Path, home: Path, dataset: Dataset) -> None:
    """Copy the dataset into the data directory; it appears there whole or not at all."""
    if home.exists():
        try:
            kept = open_dataset(home)
        except (DatasetError, IndexFormatError):
            shutil.rmtree(home)  # damaged: processes that have mapped it keep what they have
        else:
            if kept.manifest["index"] != dataset.manifest["index"]:
                raise DatasetError(
                    f"another dataset is kept as {dataset.version} in {home.parent}; build this "
                    "one again under another name"
                )
            return
    home.parent.mkdir(parents=True, exist_ok=True)
    partial = home.with_name(f".{home.name}.partial-{os.getpid()}")
    try:
        shutil.copytree(folder, partial)
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
