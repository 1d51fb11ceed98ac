"""Certificates of notice: issued from a report's log, and held against it again.

It promises that what is issued is complete (attempts that have ended are in the log first) and of
one instant, and that `verify` and `walk` find what was changed in either since, except a whole
chain rewritten with the operator's own key before anybody had a certificate of it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api import evidence as proof
from api.errors import SigningKeyUnreadable
from api.evidence import Finding, Logged, instant
from api.store import audit, evidence
from api.vault import SecretUnreadable, Vault

PROVES: Final = (
    "The operator of this service states, under its signature, that it received this report and "
    "did with it what the events say, at these times by its own clock. The chain of hashes shows "
    "that no event was changed, removed or put in between afterwards, as compared with any "
    "certificate issued earlier. It does not show that the clock was right, that the defect was "
    "there, or that anybody at the authority read the report."
)
BATCH = 200


async def issue(
    conn: asyncpg.Connection, report_id: UUID, *, key: Ed25519PrivateKey
) -> dict[str, Any]:
    """A signed certificate of a report as it is now, whose row must be locked.

    It first notes the attempts that have ended, in the caller's transaction.
    """
    await evidence.log_attempts_of(conn, report_id)
    events = (await evidence.read_logs(conn, [report_id]))[report_id]
    [row] = await evidence.read_reports(conn, report_ids=[report_id], limit=1)
    told = [_event(event) for event in events]
    tried = proof.attempts(told)
    return proof.sign(
        {
            "certificate": proof.FORMAT,
            "proves": PROVES,
            "issued_at": instant(await evidence.clock(conn)),
            "report": _report(row),
            "content": _content(row, events),
            "decision": _decision(row["decision"]),
            "decision_on_receipt": _decision(row["first_decision"]),
            "accepted": proof.acceptances(tried),
            "attempts": tried,
            "under_way": await evidence.count_under_way(conn, report_id),
            "events": told,
            "head": told[-1]["hash"],
        },
        key,
    )


def _report(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "category": row["category"],
        "place": {name: row[name] for name in ("lon", "lat", "accuracy_m")},
        "received_at": instant(row["received_at"]),
        "observed_at": instant(row["observed_at"]) if row["observed_at"] else None,
        "description": row["description"],
        "description_sha256": proof.sha256(row["description"]),
        "answers": json.loads(row["answers"]),
    }


def _content(row: Mapping[str, Any], events: Sequence[Logged]) -> dict[str, str] | None:
    text = _content_text(row)
    if text is None or _committed(events) is None:
        return None
    return {"hashed": text, "sha256": proof.sha256(text)}


def _committed(events: Sequence[Logged]) -> str | None:
    """The hash of what was reported, by the first event; None of what was received before 0009."""
    value = json.loads(events[0].detail).get("content_sha256") if events else None
    return None if value is None else str(value)


def _content_text(row: Mapping[str, Any]) -> str | None:
    """What should have been hashed of what was reported; None without a salt."""
    if row["content_salt"] is None:
        return None
    return proof.content_text(
        report_id=row["id"],
        salt=row["content_salt"],
        category=row["category"],
        lon=row["lon"],
        lat=row["lat"],
        observed_at=instant(row["observed_at"]) if row["observed_at"] else None,
        answers=row["answers"],
        description=row["description"],
    )


def _decision(decision: Mapping[str, Any]) -> dict[str, Any]:
    authority = decision.get("authority")
    names = ("state", "rule", "reason", "dataset", "rules", "as_of")
    return {
        "authority": authority and {"id": authority["id"], "name": authority["name"]},
        **{name: decision.get(name) for name in names},
    }


def _event(event: Logged) -> dict[str, Any]:
    who = event.authority_id and {"id": str(event.authority_id), "name": event.authority_name}
    return {
        "n": event.n,
        "at": instant(event.at),
        "kind": event.kind,
        "authority": who,
        "key": event.key,
        "detail": json.loads(event.detail),
        "hashed": event.text,
        "hash": event.hash.hex(),
    }


# --- keys -----------------------------------------------------------------------------------------


async def signing_key(
    conn: asyncpg.Connection, vault: Vault, *, random_bytes: Callable[[int], bytes]
) -> Ed25519PrivateKey:
    """The key in use; the first time it is made. Raises `SigningKeyUnreadable`."""
    sealed = await evidence.find_signing_key(conn)
    if sealed is None:
        fresh = Ed25519PrivateKey.from_private_bytes(random_bytes(32))
        await evidence.insert_signing_key(
            conn,
            public_key=fresh.public_key().public_bytes_raw(),
            private_key=vault.seal(fresh.private_bytes_raw().hex()),
        )
        # Of several processes one was first.
        sealed = await evidence.find_signing_key(conn)
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vault.open(sealed or "")))
    except (SecretUnreadable, ValueError):
        raise SigningKeyUnreadable(
            "the key that signs certificates is sealed with a key that this process does not have; "
            "give all processes the same GEOROUTER_SECRET_KEYS, or make another with "
            "`georouter signing-keys --new --commit`"
        ) from None


async def signing_keys(conn: asyncpg.Connection) -> list[dict[str, Any]]:
    """The public keys, the newest first, as they are published."""
    return [
        {
            "public_key": row["public_key"].hex(),
            "created_at": instant(row["created_at"]),
            "retired_at": instant(row["retired_at"]) if row["retired_at"] else None,
        }
        for row in await evidence.list_signing_keys(conn)
    ]


async def renew_signing_key(
    conn: asyncpg.Connection, vault: Vault, *, random_bytes: Callable[[int], bytes]
) -> None:
    """Put a new key in use. The old ones stay published for what they signed."""
    async with conn.transaction():
        await evidence.retire_signing_key(conn)
        await signing_key(conn, vault, random_bytes=random_bytes)
        await audit.record(conn, "signing_key.renewed", api_key_id=None, authority_id=None)


# --- verifying ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compared:
    """What a certificate is like beside the log."""

    findings: tuple[Finding, ...]
    later: int = 0  # events since it was issued


async def verify(conn: asyncpg.Connection, document: Mapping[str, Any]) -> Compared | None:
    """Hold a certificate that is sound in itself against the log; None if there is no such report.

    The log is checked too.
    """
    report_id = UUID(document["report"]["id"])
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        rows = await evidence.read_reports(conn, report_ids=[report_id], limit=1)
        events = (await evidence.read_logs(conn, [report_id]))[report_id]
        keys = await signing_keys(conn)
    if not rows:
        return None
    used = {one["public_key"]: one["retired_at"] for one in keys}
    findings = [*proof.check_key(document, used), *proof.compare(document, events)]
    retired = used.get(document["signature"]["public_key"])
    if retired is not None and document["issued_at"] > retired:
        findings.append(Finding("key", "signature", "is by a key that was out of use by then"))
    findings += _check_report(rows[0], events)
    # Text that was erased since is no finding: without its salt nobody can say what it was.
    if rows[0]["content_salt"] is not None and document["content"] != _content(rows[0], events):
        findings.append(Finding("content", "content", "is another one in the database"))
    return Compared(tuple(findings), max(0, len(events) - len(document["events"])))


def _check_report(row: Mapping[str, Any], events: Sequence[Logged]) -> Iterator[Finding]:
    """What is wrong with a report's log, and with the report beside it."""
    yield from proof.check_log(events)
    if row["lost"]:
        yield Finding(
            "removed", "the last events", f"{row['lost']} attempts that were events are no more"
        )
    if events and events[0].at != row["received_at"]:
        yield Finding("received", "received_at", "the report was received when event 1 says")
    text, committed = _content_text(row), _committed(events)
    if text is not None and committed is not None and proof.sha256(text) != committed:
        yield Finding("content", "content", "what was reported was changed after its receipt")


@dataclass(frozen=True, slots=True)
class Walked:
    """A batch of reports whose logs were checked: how many reports and events, what was found."""

    reports: int
    events: int
    findings: tuple[tuple[UUID, Finding], ...]


async def count(conn: asyncpg.Connection) -> int:
    """How many reports there are to walk over."""
    reports: int = await conn.fetchval("SELECT count(*) FROM report")
    return reports


async def walk(conn: asyncpg.Connection, *, batch: int = BATCH) -> AsyncIterator[Walked]:
    """Check the logs of all reports, a batch at a time, in the memory of one batch."""
    after: UUID | None = None
    while True:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            rows = await evidence.read_reports(conn, after=after, limit=batch)
            logs = await evidence.read_logs(conn, [row["id"] for row in rows])
        if not rows:
            return
        found = [
            (row["id"], finding) for row in rows for finding in _check_report(row, logs[row["id"]])
        ]
        yield Walked(len(rows), sum(map(len, logs.values())), tuple(found))
        after = rows[-1]["id"]
