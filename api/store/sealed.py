"""The SQL of secrets at rest: seals again what an older key, or none, has sealed.

What cannot be opened is counted and left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from api.vault import SecretUnreadable, Vault

BATCH = 100


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many secrets were sealed anew, and how many none of the keys opens."""

    changed: int = 0
    unreadable: int = 0


async def reseal(conn: asyncpg.Connection, vault: Vault) -> Resealed:
    """Seal every secret with the newest key, a few rows a transaction. Repeating it does nothing.

    Deleted endpoints too: what they leave behind in a copy of the database is as secret.
    """
    changed = unreadable = 0
    after: UUID | None = None
    while True:
        async with conn.transaction():
            # Locked, so that a secret that is changed meanwhile is not put back.
            rows = await conn.fetch(
                """
                SELECT id, secret, old_secret FROM endpoint WHERE $1::uuid IS NULL OR id > $1
                ORDER BY id LIMIT $2 FOR NO KEY UPDATE
                """,
                after,
                BATCH,
            )
            for row in rows:
                for column in ("secret", "old_secret"):
                    stored = row[column]
                    if stored is None or vault.is_current(stored):
                        continue
                    try:
                        anew = vault.seal(vault.open(stored))
                    except SecretUnreadable:
                        unreadable += 1
                        continue
                    await conn.execute(
                        f"UPDATE endpoint SET {column} = $2 WHERE id = $1", row["id"], anew
                    )
                    changed += 1
        if len(rows) < BATCH:
            break
        after = rows[-1]["id"]
    keys = await _reseal_keys(conn, vault)
    return Resealed(changed + keys.changed, unreadable + keys.unreadable)


async def _reseal_keys(conn: asyncpg.Connection, vault: Vault) -> Resealed:
    """The same for the keys that sign certificates. There are few, and they never change."""
    changed = unreadable = 0
    for row in await conn.fetch("SELECT public_key, private_key FROM signing_key"):
        if vault.is_current(row["private_key"]):
            continue
        try:
            anew = vault.seal(vault.open(row["private_key"]))
        except SecretUnreadable:
            unreadable += 1
            continue
        await conn.execute(
            "UPDATE signing_key SET private_key = $2 WHERE public_key = $1", row["public_key"], anew
        )
        changed += 1
    return Resealed(changed, unreadable)
