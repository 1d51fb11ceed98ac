"""The SQL of secrets at rest: seals again what an older key, or none, has sealed.

What cannot be opened is counted and left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from api.vault import SecretUnreadable, Vault

BATCH = 100

Table = tuple[str, str, tuple[str, ...]]

# Where there are secrets: a table, its primary key, and the columns. What was ever stored plain is
# in the first.
SEALED: tuple[Table, ...] = (
    ("endpoint", "id", ("secret", "old_secret")),
    ("signing_key", "public_key", ("private_key",)),
    ("contact_key", "id", ("key",)),
    ("follower", "id", ("token", "contact", "mail_token")),
)


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many secrets were sealed anew, and how many none of the keys opens."""

    changed: int = 0
    unreadable: int = 0


async def reseal(
    conn: asyncpg.Connection, vault: Vault, tables: Sequence[Table] = SEALED
) -> Resealed:
    """Seal every secret with the newest key, a few rows a transaction. Repeating it does nothing.

    Deleted endpoints too: what they leave behind in a copy of the database is as secret.
    """
    changed = unreadable = 0
    for table, key, columns in tables:
        after: Any = None
        while True:
            async with conn.transaction():
                # Locked, so that a secret that is changed meanwhile is not put back.
                rows = await conn.fetch(
                    f"""
                    SELECT {key}, {", ".join(columns)} FROM {table}
                    WHERE {"true" if after is None else f"{key} > $2"}
                    ORDER BY {key} LIMIT $1 FOR NO KEY UPDATE
                    """,
                    BATCH,
                    *([] if after is None else [after]),
                )
                for row in rows:
                    for column in columns:
                        stored = row[column]
                        if stored is None or vault.is_current(stored):
                            continue
                        try:
                            anew = vault.seal(vault.open(stored))
                        except SecretUnreadable:
                            unreadable += 1
                            continue
                        await conn.execute(
                            f"UPDATE {table} SET {column} = $2 WHERE {key} = $1", row[key], anew
                        )
                        changed += 1
            if len(rows) < BATCH:
                break
            after = rows[-1][key]
    return Resealed(changed, unreadable)
