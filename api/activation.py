"""Puts boundary datasets in force and out of it: stage, activate, roll back, withdraw, prune.

Each is one transaction under a lock, after the artefact is in the store; killed anywhere, a run
leaves nothing that the next one minds. Web processes follow the database by themselves (see
`routing`). A dry run does all of it but the copying, and rolls back, so it meets what a real run
would meet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from api import db
from api.artefacts import Artefacts, ArtefactTaken, check, deciding
from api.london import InstantRefused
from api.routing import bodies_of, successions_of
from api.store import audit, datasets
from boundaries.dataset import Dataset
from georouter.model import Rules
from georouter.router import Router


class DatasetUnknown(Exception):  # noqa: N818 - reads as the sentence it is
    """No dataset has this name, or several may be meant."""


class ActivationRefused(Exception):  # noqa: N818 - reads as the sentence it is
    """It contradicts what is recorded, perhaps by somebody else just now."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A dataset that is to be in force from an instant on."""

    version: str
    from_at: datetime


@dataclass(frozen=True, slots=True)
class Activated:
    """What an activation or rollback did, or in a dry run would do.

    `planned` are the activations to come, which it leaves as they are.
    """

    version: str
    before: str | None
    changed: bool
    areas: int
    new_authorities: int
    planned: tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class Staged:
    """What staging did; `changed` is False if the dataset was there already."""

    version: str
    changed: bool
    areas: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """A dataset whose artefact is removed."""

    version: str
    idle_days: int
    bytes: int


# --- which dataset --------------------------------------------------------------------------------


async def find(conn: asyncpg.Connection, name: str) -> asyncpg.Record:
    """The recorded dataset with this version or unique beginning of it; raises `DatasetUnknown`."""
    rows = await datasets.find_datasets(conn, name)
    if len(rows) == 1:
        return rows[0]
    if rows:
        several = ", ".join(row["version"] for row in rows[:5])
        raise DatasetUnknown(f"{name!r} may be any of {several}; give more of its name")
    raise DatasetUnknown(
        f"{name!r} is neither a dataset folder nor a dataset that was staged or activated; see "
        "`georouter boundaries list`"
    )


async def resolve(name: str, *, artefacts: Artefacts, dsn: str) -> Path:
    """The folder of a dataset, given that folder or a version: for commands that read datasets.

    Raises `DatasetUnknown`, `ActivationRefused` if it was pruned, `DatasetError`,
    `IndexFormatError`, `SchemaOutdated` and `DatabaseUnavailable`.
    """
    if is_folder(name):
        return Path(name)
    async with _connected(dsn) as conn:
        row = _kept(await find(conn, name))
    return await artefacts.whole(row["version"], row["manifest"])


def is_folder(name: str | Path) -> bool:
    """Whether a name is that of a dataset folder rather than a version."""
    return isinstance(name, Path) or "/" in name or Path(name).is_dir()


def _kept(row: asyncpg.Record) -> asyncpg.Record:
    if row["removed_at"] is not None:
        raise ActivationRefused(
            f"the artefact of {row['version']} was pruned on {row['removed_at']:%Y-%m-%d}; "
            "activate its folder, if you have it, or build it again"
        )
    return row


async def describe(
    conn: asyncpg.Connection, name: str | None
) -> tuple[dict[str, Any], Sequence[asyncpg.Record]]:
    """The manifest of a version, or of the dataset in force, and its rows of `list_datasets`.

    Raises `DatasetUnknown`.
    """
    if name is None:
        active = await datasets.active_dataset(conn)
        if active is None:
            raise DatasetUnknown("no dataset is in force; name one")
        name = active["version"]
    row = await find(conn, name)
    terms = [one for one in await datasets.list_datasets(conn) if one["version"] == row["version"]]
    return row["manifest"], terms


# --- in force -------------------------------------------------------------------------------------


async def stage(folder: Path, *, artefacts: Artefacts, dsn: str, commit: bool) -> Staged:
    """Put a dataset's artefact into the store and record it; it decides nothing yet.

    Raises as `activate` does.
    """
    dataset = await check(folder)
    if commit:
        await artefacts.put(folder, dataset)
    async with _changing(dsn, commit=commit) as conn:
        await _refuse_another(conn, dataset)
        _, changed = await datasets.stage_dataset(
            conn, version=dataset.version, manifest=dataset.manifest
        )
        if commit:
            await _still_there(artefacts, dataset.version)
        if changed:
            await _audit(conn, "dataset.staged", {"version": dataset.version})
    return Staged(dataset.version, changed, len(dataset.index.areas))


async def activate(
    name: str | Path,
    *,
    rules: Rules,
    artefacts: Artefacts,
    dsn: str,
    commit: bool,
    from_at: datetime | None = None,
) -> Activated:
    """Put a dataset, given by folder or version, in force at once or at an instant to come.

    Raises `DatasetError`, `IndexFormatError`, `MissingLayer`, `DatasetUnknown`, `InstantRefused` if
    the instant is past, `ActivationRefused` if another dataset came into force meanwhile,
    `SchemaOutdated` and `DatabaseUnavailable`.
    """
    async with _connected(dsn) as conn:
        seen = await datasets.active_dataset(conn)
        row = None if is_folder(name) else _kept(await find(conn, str(name)))
    if row is None:
        dataset = await check(Path(name))
    else:
        dataset = await artefacts.open(row["version"], row["manifest"])
    # or it says why not
    Router(dataset.index, rules=rules, dataset=dataset.version, roads=dataset.roads)
    if row is None and commit:
        await artefacts.put(Path(name), dataset)
    async with _changing(dsn, commit=commit) as conn:
        if row is not None:
            _kept(await datasets.get_dataset(conn, row["id"]))  # pruned meanwhile?
        elif commit:
            await _still_there(artefacts, dataset.version)
        return await _activate(conn, dataset, seen=seen, rules=rules, from_at=from_at)


async def roll_back(
    *, rules: Rules, artefacts: Artefacts, dsn: str, commit: bool, to: str | None = None
) -> Activated:
    """Put the dataset in force again that was before this one, or the one named.

    Rolled back again, it goes further back, never to what was left. Raises as `activate` does.
    """
    async with _connected(dsn) as conn:
        seen = await datasets.active_dataset(conn)
        if to is not None:
            row = await find(conn, to)
            if row["id"] not in {term["dataset_id"] for term in await datasets.past_terms(conn)}:
                raise ActivationRefused(f"{row['version']} was never in force; activate it")
        else:
            before = rollback_target(await datasets.past_terms(conn))
            if before is None:
                raise ActivationRefused("no other dataset was in force before; nothing to go to")
            row = await datasets.get_dataset(conn, before)
    dataset = await artefacts.open(_kept(row)["version"], row["manifest"])
    Router(dataset.index, rules=rules, dataset=dataset.version, roads=dataset.roads)
    async with _changing(dsn, commit=commit) as conn:
        # Not the store: it may be down, and the machines have their copies.
        _kept(await datasets.get_dataset(conn, row["id"]))
        return await _activate(conn, dataset, seen=seen, rules=rules, rollback=True)


def rollback_target(terms: Sequence[Mapping[str, Any]]) -> int | None:
    """The dataset that a rollback leads to, by the terms in force until now; None if there is none.

    Terms are (dataset_id, rollback), in order. What a rollback has left is off the way back.
    """
    way: list[int] = []
    for term in terms:
        dataset_id = term["dataset_id"]
        if term["rollback"] and dataset_id in way:
            while way[-1] != dataset_id:
                way.pop()
        elif way[-1:] != [dataset_id]:
            way.append(dataset_id)
    return way[-2] if len(way) > 1 else None


async def _activate(
    conn: asyncpg.Connection,
    dataset: Dataset,
    *,
    seen: asyncpg.Record | None,
    rules: Rules,
    from_at: datetime | None = None,
    rollback: bool = False,
) -> Activated:
    if from_at is not None and from_at <= await conn.fetchval("SELECT clock_timestamp()"):
        raise InstantRefused(
            f"{from_at:%Y-%m-%dT%H:%M:%SZ} is past; leave it out to put the dataset in force at "
            "once"
        )
    await _refuse_another(conn, dataset)
    before = await datasets.active_dataset(conn)
    done = await datasets.activate_dataset(
        conn,
        version=dataset.version,
        manifest=dataset.manifest,
        areas=[*dataset.authorities, *bodies_of(dataset, rules)],
        handovers=successions_of(rules),
        from_at=from_at,
        rollback=rollback,
    )
    if done.changed and _activation(before) != _activation(seen):
        assert before is not None  # noqa: S101 - activations that have begun stay
        raise ActivationRefused(
            f"{before['version']} has come into force meanwhile, by somebody else or as planned; "
            "look at it, and run this again if you still want to"
        )
    if done.changed:
        await _audit(
            conn,
            "dataset.rolled_back" if rollback else "dataset.activated",
            {
                "version": dataset.version,
                "before": before["version"] if before else None,
                "from": from_at.isoformat() if from_at else None,
            },
        )
    return Activated(
        version=dataset.version,
        before=before["version"] if before else None,
        changed=done.changed,
        areas=len(dataset.index.areas),
        new_authorities=done.new_authorities,
        planned=tuple(
            Planned(row["version"], row["from_at"])
            for row in await datasets.planned(conn)
            if row["from_at"] != from_at
        ),
    )


async def withdraw(
    name: str, *, dsn: str, commit: bool, from_at: datetime | None = None
) -> Planned:
    """Call off a planned activation, by version and, if it has several, instant.

    Raises `DatasetUnknown` and `ActivationRefused`.
    """
    async with _changing(dsn, commit=commit) as conn:
        row = await find(conn, name)
        found = [
            one
            for one in await datasets.planned(conn)
            if one["dataset_id"] == row["id"] and from_at in (None, one["from_at"])
        ]
        if not found:
            raise ActivationRefused(f"{row['version']} is not planned to come into force then")
        if len(found) > 1:
            several = ", ".join(f"{one['from_at']:%Y-%m-%dT%H:%M:%SZ}" for one in found)
            raise ActivationRefused(f"{row['version']} is planned for {several}; say which")
        called_off = Planned(row["version"], found[0]["from_at"])
        if not await datasets.withdraw_activation(conn, found[0]["id"]):
            raise ActivationRefused(f"{row['version']} has come into force; roll it back instead")
        await _audit(
            conn,
            "dataset.withdrawn",
            {"version": called_off.version, "from": called_off.from_at.isoformat()},
        )
    return called_off


# --- artefacts that are not needed any more -------------------------------------------------------


async def prune(
    *, keep: int, older_than: timedelta, artefacts: Artefacts, dsn: str, commit: bool
) -> list[Pruned]:
    """Remove artefacts of datasets that have been retired or staged for long; their rows stay.

    Never those in force or planned, nor that which a rollback would lead to, nor the `keep` that
    were retired last. Raises `DatasetError`, `SchemaOutdated` and `DatabaseUnavailable`.
    """
    pruned = []
    async with _changing(dsn, commit=commit) as conn:
        idle = await datasets.idle_datasets(conn)
        spared = {rollback_target(await datasets.past_terms(conn))}
        retired = [row["id"] for row in idle if row["ever"]]
        spared |= set(retired[len(retired) - keep :] if keep else [])
        for row in idle:
            if row["id"] in spared or row["idle_for"] < older_than:
                continue
            if commit:
                # Under the lock, so that nobody activates it meanwhile. Killed here, the row still
                # says that the artefact is there, and the next run comes to it again.
                await artefacts.remove(row["version"], row["manifest"])
            await datasets.mark_removed(conn, row["id"])
            await _audit(conn, "dataset.pruned", {"version": row["version"]})
            size = row["manifest"].get("index", {}).get("bytes", 0)
            pruned.append(Pruned(row["version"], row["idle_for"].days, size))
    return pruned


# --- what they share ------------------------------------------------------------------------------


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    conn = await db.connect(dsn)
    try:
        with db.translate():
            await db.check_schema(conn)
            yield conn
    finally:
        await conn.close(timeout=5.0)


@asynccontextmanager
async def _changing(dsn: str, *, commit: bool) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that nobody else changes datasets in; at its end a dry run rolls back."""
    async with _connected(dsn) as conn:
        transaction = conn.transaction()
        await transaction.start()
        try:
            # The store is asked in between, and may be slow.
            await conn.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'")
            await datasets.lock_datasets(conn)
            yield conn
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.commit() if commit else transaction.rollback())


async def _still_there(artefacts: Artefacts, version: str) -> None:
    """Whoever prunes holds the same lock: what is there now is there when this is committed."""
    if not await artefacts.has(version):
        raise ActivationRefused(f"the artefact of {version} was removed meanwhile; run this again")


async def _refuse_another(conn: asyncpg.Connection, dataset: Dataset) -> None:
    for row in await datasets.find_datasets(conn, dataset.version):
        if row["version"] == dataset.version and deciding(row["manifest"]) != deciding(
            dataset.manifest
        ):
            raise ArtefactTaken(
                f"another dataset is known as {dataset.version}; build this one again under "
                "another name"
            )


def _activation(row: asyncpg.Record | None) -> int | None:
    return row["activation_id"] if row else None


async def _audit(conn: asyncpg.Connection, action: str, detail: Mapping[str, Any]) -> None:
    await audit.record(conn, action, api_key_id=None, authority_id=None, detail=detail)
