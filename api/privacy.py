"""What is kept of a person: found, handed out, erased, and purged when its time is over.

Each of these is in the audit trail, with what it was about and never with the data itself. What
councils were sent is theirs: it is listed, so that the operator can tell them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from api import db
from api.settings import Settings
from api.store import audit, evidence
from api.store import privacy as store
from api.store.privacy import Retention
from api.vault import SecretUnreadable, Vault

PURGE_EVERY_S: Final = 3600.0
_TOKEN = re.compile(r"(?:.*/v1/track/)?([A-Za-z0-9_-]{43})")

log = structlog.get_logger()


class NobodyFound(Exception):  # noqa: N818 - reads as the sentence it is
    """Nothing is stored of such a person, or report."""


@dataclass(frozen=True, slots=True)
class Person:
    """What follows reports for one person, and which reports are theirs.

    `followers` are rows of `follower`; `reports` those that the person made.
    """

    followers: Sequence[UUID]
    reports: Sequence[UUID]


def retention_of(settings: Settings) -> Retention:
    """How long what is kept."""
    return Retention(
        address_hours=settings.retain_address_hours,
        contact_days=settings.retain_contact_days,
        contact_most_days=settings.retain_contact_most_days,
        photos_days=settings.retain_photos_days,
        answers_days=settings.retain_answers_days,
    )


async def find(conn: asyncpg.Connection, who: str, *, vault: Vault) -> Person:
    """Who is meant by an e-mail address, a private link or its token, or a report's id.

    By an address all of theirs is found, by a link one report or a "me too", by an id its reporter.
    Raises `NobodyFound`.
    """
    followers: Sequence[UUID]
    try:
        report_id = UUID(who)
    except ValueError:
        match = _TOKEN.fullmatch(who)
        if "@" in who:
            followers = await _by_email(conn, who, vault)
        elif match is not None:
            digest = hashlib.sha256(match[1].encode()).digest()
            followers = await store.find_by_token(conn, digest)
        else:
            followers = ()
        found = await store.read_followers(conn, followers)
        reports = [row["report_id"] for row in found if row["kind"] == "reporter"]
    else:
        reporter = await store.find_reporter(conn, report_id)
        followers = [] if reporter is None else [reporter]
        reports = [report_id] if await store.has_report(conn, report_id) else []
    if not followers and not reports:
        raise NobodyFound("nothing is stored under this e-mail address, link or report id")
    return Person(followers, reports)


async def _by_email(conn: asyncpg.Connection, email: str, vault: Vault) -> Sequence[UUID]:
    """Every contact is opened: this is asked for a few times a year."""
    wanted = email.strip().casefold()
    return [
        row["id"]
        for row in await store.list_contacts(conn)
        if (_opened(row["contact"], vault) or {}).get("email", "").casefold() == wanted
    ]


def _opened(contact: str | None, vault: Vault) -> dict[str, str] | None:
    if contact is None:
        return None
    try:
        details: dict[str, str] = json.loads(vault.open(contact))
    except SecretUnreadable:
        # It is not silently left out: whoever reads this asks for the key.
        return {"unreadable": "sealed with a key that this process does not have"}
    return details


async def export(conn: asyncpg.Connection, person: Person, *, vault: Vault) -> dict[str, Any]:
    """All that is stored of a person, as JSON. `reports.photos` are ids of photos."""
    async with conn.transaction():
        rows = await store.read_followers(conn, person.followers)
        reports = [dict(await store.read_report(conn, one)) for one in person.reports]
        sent = await store.list_sent(conn, person.reports)
        await _note(conn, "personal_data.exported", person)
    following = [{**dict(row), "contact": _opened(row["contact"], vault)} for row in rows]
    return {
        "following": following,
        "reports": reports,
        "sent_to": [dict(row) for row in sent],
    }


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased, or would be, and who has a copy."""

    followers: int
    reports: int
    sent_to: Sequence[Mapping[str, Any]]


async def erase(conn: asyncpg.Connection, person: Person, *, commit: bool) -> Erased:
    """Erase what is stored of a person. Without `commit` nothing is changed.

    Events stay: they hold nothing personal. A photo's file goes with the sweep, within an hour or
    two. What is still to be sent to a council goes without what was erased.
    """
    sent = [dict(row) for row in await store.list_sent(conn, person.reports)]
    if not commit:
        return Erased(len(person.followers), len(person.reports), sent)
    async with conn.transaction():
        # In one order with all who lock several reports
        for report_id in sorted(person.reports):
            await conn.execute("SELECT FROM report WHERE id = $1 FOR NO KEY UPDATE", report_id)
            # What councils answered becomes a digest in the log before it is erased.
            await evidence.log_attempts_of(conn, report_id)
        reports = [await store.erase_report(conn, one) for one in sorted(person.reports)]
        followers = await store.erase_followers(conn, person.followers)
        await _note(conn, "personal_data.erased", person)
    return Erased(followers, sum(reports), sent)


async def _note(conn: asyncpg.Connection, action: str, person: Person) -> None:
    """An entry for each report; a person without one has an entry of their own."""
    targets: list[UUID | None] = [*person.reports]
    for report_id in targets or [None]:
        await audit.record(
            conn,
            action,
            api_key_id=None,
            authority_id=None,
            target=report_id,
            detail={"followers": [str(one) for one in person.followers]},
        )


async def purge(conn: asyncpg.Connection, retention: Retention) -> Mapping[str, int]:
    """Erase all whose time is over, a batch a transaction; how many rows of which table.

    If somebody else is at it they are left to it.
    """
    totals: dict[str, int] = {}
    while True:
        async with conn.transaction():
            counts = await store.purge(conn, retention)
            if counts is None:
                return totals
            if any(counts.values()):
                await audit.record(
                    conn,
                    "personal_data.purged",
                    api_key_id=None,
                    authority_id=None,
                    detail=counts,
                )
        for what, count in counts.items():
            totals[what] = totals.get(what, 0) + count
        if max(counts.values()) < store.BATCH:
            return totals


async def run_purges(
    pool: asyncpg.Pool, retention: Retention, *, every_s: float = PURGE_EVERY_S
) -> None:
    """Purge for ever."""
    while True:
        try:
            async with db.acquire(pool) as conn:
                counts = await purge(conn, retention)
            if any(counts.values()):
                log.info("purged", **counts)
        except db.DatabaseUnavailable as error:
            log.warning("purge_failed", error=type(error).__name__)
        except Exception:
            # A loop that ended would keep everything for ever without a sign.
            log.exception("purge_failed")
        await asyncio.sleep(every_s)
