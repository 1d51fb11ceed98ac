"""Who is asking, and what may they do: API keys and the three roles.

A key is `grk_` and 43 random characters; only its SHA-256 is stored, and it is looked up anew for
each request, so that a revocation holds at once. Keys are random: no slow password hash is needed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import asyncpg

from api.errors import KeyExpired, KeyMissing, KeyRevoked, KeyUnknown, RoleForbidden
from api.store import audit, keys

BEARER = re.compile(r"bearer +(grk_[A-Za-z0-9_\-]{43})", re.IGNORECASE)


class Role(StrEnum):
    """What a key is for."""

    APP = "app"  # posts reports, and reads those it posted
    COUNCIL = "council"  # manages the intake of its own authority
    OPERATOR = "operator"  # manages every authority's


@dataclass(frozen=True, slots=True)
class Caller:
    """The key behind a request. `authority_id` is set exactly for councils."""

    key_id: UUID
    role: Role
    authority_id: UUID | None

    def manages(self, authority_id: UUID) -> bool:
        """Whether the intake of this authority is the caller's to see and change."""
        return self.role is Role.OPERATOR or self.authority_id == authority_id

    def sees(self, report: Mapping[str, Any]) -> bool:
        """Whether a report, by its key and its authority, is the caller's to read."""
        return self.key_id == report["api_key_id"] or self.manages(report["authority_id"])


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `secret` is shown this once."""

    id: UUID
    secret: str


async def identify(conn: asyncpg.Connection, authorization: str | None) -> Caller:
    """The caller behind an `Authorization` header; raises an `AccessError` that says what is wrong.

    A revoked or expired key is told apart from an unknown one: whoever has it knows it existed.
    """
    if authorization is None:
        raise KeyMissing("send your API key as 'Authorization: Bearer grk_...'")
    match = BEARER.fullmatch(authorization)
    if match is None:
        raise KeyUnknown(
            "the Authorization header is no API key: it reads 'Bearer grk_' and 43 characters"
        )
    key = await keys.find_key(conn, secret_sha256=_digest(match[1]))
    if key is None:
        raise KeyUnknown("no key of ours is like this; check it for a copying mistake")
    if key["revoked"]:
        raise KeyRevoked("this key has been revoked; ask the operator for a new one")
    if key["expired"]:
        raise KeyExpired("this key's time is over; ask the operator for a new one")
    return Caller(key_id=key["id"], role=Role(key["role"]), authority_id=key["authority_id"])


def require_role(caller: Caller, *roles: Role) -> None:
    """Raise `RoleForbidden` unless the caller has one of the roles."""
    if caller.role not in roles:
        raise RoleForbidden(
            f"this takes a key of role {' or '.join(roles)}; yours is {caller.role}"
        )


def require_management(caller: Caller, authority_id: UUID) -> None:
    """Raise `RoleForbidden` unless the caller manages the authority's intake."""
    if not caller.manages(authority_id):
        raise RoleForbidden("this takes the key of the authority itself, or of an operator")


async def create_key(
    conn: asyncpg.Connection,
    *,
    role: Role,
    label: str,
    random_bytes: Callable[[int], bytes],
    authority_id: UUID | None = None,
    expires_at: datetime | None = None,
    address_limited: bool = True,
) -> NewKey:
    """Make and store a key. A council's names its authority, and only a council's does.

    One that is not `address_limited` is for a server that speaks for many. With an entry in the
    audit trail; so has `revoke_key`.
    """
    if (role is Role.COUNCIL) != (authority_id is not None):
        raise ValueError("a key of role council needs an authority, and no other role takes one")
    secret = "grk_" + base64.urlsafe_b64encode(random_bytes(32)).decode().rstrip("=")
    async with conn.transaction():
        key_id = await keys.insert_key(
            conn,
            secret_sha256=_digest(secret),
            role=role,
            label=label,
            authority_id=authority_id,
            expires_at=expires_at,
            address_limited=address_limited,
        )
        await _record(conn, "key.created", key_id, role, label, authority_id)
    return NewKey(id=key_id, secret=secret)


async def revoke_key(conn: asyncpg.Connection, key_id: UUID) -> bool:
    """Revoke a key from now on; False if there is none. A second time changes nothing."""
    async with conn.transaction():
        key = await keys.revoke_key(conn, key_id=key_id)
        if key is not None and key["revoked"]:
            await _record(
                conn, "key.revoked", key_id, key["role"], key["label"], key["authority_id"]
            )
    return key is not None


async def _record(
    conn: asyncpg.Connection,
    action: str,
    key_id: UUID,
    role: str,
    label: str,
    authority_id: UUID | None,
) -> None:
    await audit.record(
        conn,
        action,
        api_key_id=None,  # keys are the command line's
        authority_id=authority_id,
        target=key_id,
        detail={"role": role, "label": label},
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
