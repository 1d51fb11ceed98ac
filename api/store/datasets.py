"""The SQL of `dataset` and `activation`: which datasets there are, and which is in force from when.

One dataset is in force at any instant. What was, is and will be follows from the activations, which
are added and, while they are to come, withdrawn; nothing else changes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from api.store.authorities import ACTIVATION_LOCK, Handover, establish, rename_authorities
from georouter.model import Area


@dataclass(frozen=True, slots=True)
class Activation:
    """What `activate_dataset` did; `changed` is False if the version was in force already."""

    dataset_id: int
    changed: bool
    new_authorities: int


async def lock_datasets(conn: asyncpg.Connection) -> None:
    """Wait until nobody else changes datasets or activations; lasts until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", ACTIVATION_LOCK)


# --- what is in force -----------------------------------------------------------------------------


async def active_dataset(
    conn: asyncpg.Connection, *, at: datetime | None = None
) -> asyncpg.Record | None:
    """The dataset in force now, or just before the instant `at`.

    Its id, version and removed_at; `activation_id` and `since` of what put it in force; and, of
    now, how long it is until the next planned one (`next_in`, null if there is none).
    """
    return await conn.fetchrow(
        """
        SELECT dataset.id, version, removed_at, activation.id AS activation_id, from_at AS since,
               (SELECT min(from_at) FROM activation
                WHERE withdrawn_at IS NULL AND from_at > clock_timestamp()) - clock_timestamp()
                   AS next_in
        FROM activation JOIN dataset ON dataset.id = dataset_id
        WHERE withdrawn_at IS NULL
          AND from_at <= coalesce($1::timestamptz - interval '1 microsecond', clock_timestamp())
        ORDER BY from_at DESC, activation.id DESC
        LIMIT 1
        """,
        at,
    )


async def read_manifest(conn: asyncpg.Connection, dataset_id: int) -> dict[str, Any]:
    """A dataset's manifest, as it was when the dataset was recorded."""
    manifest: dict[str, Any] = await conn.fetchval(
        "SELECT manifest FROM dataset WHERE id = $1", dataset_id
    )
    return manifest


async def datasets_to_come(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """(id, version) of the datasets that are staged or planned, the next planned one first."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT dataset.id, version
        FROM dataset LEFT JOIN dataset_term ON dataset_id = dataset.id
        WHERE removed_at IS NULL
        GROUP BY dataset.id
        HAVING count(from_at) FILTER (WHERE from_at <= clock_timestamp()) = 0
        ORDER BY min(from_at) NULLS LAST, dataset.id
        """
    )
    return rows


async def list_datasets(
    conn: asyncpg.Connection, *, at: datetime | None = None
) -> Sequence[asyncpg.Record]:
    """(version, from_at, until, state, removed) of every time in force; as of now, or of `at`.

    In order. A dataset that has none, and is to have none, comes first and is `staged`.
    """
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT version, from_at, until, removed_at IS NOT NULL AS removed,
               CASE WHEN from_at IS NULL THEN 'staged'
                    WHEN from_at > moment THEN 'planned'
                    WHEN until <= moment THEN 'retired'
                    ELSE 'active' END AS state
        FROM coalesce($1::timestamptz, clock_timestamp()) AS moment, dataset
             LEFT JOIN dataset_term ON dataset_id = dataset.id
        ORDER BY from_at NULLS FIRST, version
        """,
        at,
    )
    return rows


async def past_terms(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """(dataset_id, rollback) of every time in force that has begun, in order."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT dataset_id, rollback FROM dataset_term
        WHERE from_at <= clock_timestamp()
        ORDER BY from_at, id
        """
    )
    return rows


async def planned(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """(id, dataset_id, version, from_at) of the activations to come, in order."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT dataset_term.id, dataset_id, version, from_at
        FROM dataset_term JOIN dataset ON dataset.id = dataset_id
        WHERE from_at > clock_timestamp()
        ORDER BY from_at
        """
    )
    return rows


async def find_datasets(conn: asyncpg.Connection, name: str) -> Sequence[asyncpg.Record]:
    """The dataset of this version; without one, those whose version begins so."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, version, manifest, staged_at, removed_at
        FROM dataset
        WHERE version = $1
           OR (starts_with(version, $1) AND NOT EXISTS (SELECT FROM dataset WHERE version = $1))
        ORDER BY version
        """,
        name,
    )
    return rows


async def get_dataset(conn: asyncpg.Connection, dataset_id: int) -> asyncpg.Record:
    """One dataset, with the columns of `find_datasets`."""
    return await conn.fetchrow(
        "SELECT id, version, manifest, staged_at, removed_at FROM dataset WHERE id = $1",
        dataset_id,
    )


# --- changing it ----------------------------------------------------------------------------------


async def stage_dataset(
    conn: asyncpg.Connection, *, version: str, manifest: Mapping[str, Any]
) -> tuple[int, bool]:
    """Record a dataset whose artefact is kept; returns its id and whether that is news."""
    row = await conn.fetchrow(
        """
        WITH before AS (SELECT removed_at FROM dataset WHERE version = $1)
        INSERT INTO dataset (version, manifest) VALUES ($1, $2::text::jsonb)
        ON CONFLICT (version) DO UPDATE SET manifest = excluded.manifest, removed_at = NULL
        RETURNING id, NOT EXISTS (SELECT FROM before WHERE removed_at IS NULL) AS changed
        """,
        version,
        json.dumps(manifest),
    )
    return row["id"], row["changed"]


async def activate_dataset(
    conn: asyncpg.Connection,
    *,
    version: str,
    manifest: Mapping[str, Any],
    areas: Iterable[Area],
    handovers: Iterable[Handover] = (),
    from_at: datetime | None = None,
    rollback: bool = False,
) -> Activation:
    """Put a dataset in force, now or at an instant to come, in one transaction.

    Every area's code gets an authority if it has none; authorities that are no longer in the
    dataset stay. Running it again with the same version changes nothing.
    """
    async with conn.transaction():
        # One activation at a time: two would each see the one before and record the same again.
        await lock_datasets(conn)
        areas = list(areas)
        await rename_authorities(conn, {area.code: area.name for area in areas})
        new = await establish(conn, areas, handovers)
        dataset_id, _ = await stage_dataset(conn, version=version, manifest=manifest)
        changed = await conn.fetchval(
            """
            WITH latest AS (
                -- what would be in force at that instant anyway
                SELECT dataset_id
                FROM activation
                WHERE withdrawn_at IS NULL
                  AND from_at <= coalesce($2::timestamptz, clock_timestamp())
                ORDER BY from_at DESC, id DESC
                LIMIT 1
            ), recorded AS (
                INSERT INTO activation (dataset_id, from_at, rollback)
                SELECT $1, coalesce($2::timestamptz, clock_timestamp()), $3
                WHERE NOT EXISTS (SELECT FROM latest WHERE dataset_id = $1)
                RETURNING id
            )
            SELECT EXISTS (SELECT FROM recorded)
            """,
            dataset_id,
            from_at,
            rollback,
        )
        return Activation(dataset_id=dataset_id, changed=changed, new_authorities=new)


async def withdraw_activation(conn: asyncpg.Connection, activation_id: int) -> bool:
    """Call off an activation that is to come; False if its instant has passed."""
    called_off = await conn.fetchval(
        """
        UPDATE activation
        -- the clock goes on while the statement runs
        SET withdrawn_at = least(clock_timestamp(), from_at - interval '1 microsecond')
        WHERE id = $1 AND withdrawn_at IS NULL AND from_at > clock_timestamp()
        RETURNING true
        """,
        activation_id,
    )
    return bool(called_off)


# --- artefacts that are not needed any more -------------------------------------------------------


async def idle_datasets(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """Datasets with an artefact that are neither in force nor planned, the longest idle first.

    (id, version, manifest, ever, idle_for): whether it was in force ever, and how long it has been
    retired, or staged.
    """
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT dataset.id, version, manifest, count(from_at) > 0 AS ever,
               clock_timestamp() - coalesce(max(until), staged_at) AS idle_for
        FROM dataset LEFT JOIN dataset_term ON dataset_id = dataset.id
        WHERE removed_at IS NULL
        GROUP BY dataset.id
        -- every term over; `until` is null of the last one
        HAVING count(*) FILTER (
            WHERE from_at IS NOT NULL AND (until IS NULL OR until > clock_timestamp())) = 0
        ORDER BY idle_for DESC, dataset.id
        """
    )
    return rows


async def mark_removed(conn: asyncpg.Connection, dataset_id: int) -> None:
    """Note that a dataset's artefact is gone."""
    await conn.execute(
        "UPDATE dataset SET removed_at = clock_timestamp() WHERE id = $1", dataset_id
    )
