"""Taking in a report: decide, store, and promise, all or nothing.

`accept` promises that a report is stored exactly once for each idempotency key, together with what
it is owed, and that the same request gets the same answer for ever. It commits before it returns;
telling the worker is the caller's business, afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from api import db, followers, joining, spam
from api.auth import Caller
from api.errors import (
    AnswersRefused,
    FieldRefused,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
    PlaceError,
)
from api.routing import LiveRouting
from api.schemas import DecisionOut, Links, Receipt, ReportIn
from api.store import reports, shown
from api.vault import Vault
from georouter.model import NotACandidate, Rules, UnknownCategory
from georouter.questions import check_answers

PRINTABLE = re.compile(r"[ -~]{1,255}")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A report's receipt, and whether it is one of an earlier request."""

    receipt: Receipt
    replayed: bool


async def accept(
    body: ReportIn,
    *,
    idempotency_key: str | None,
    caller: Caller,
    pool: asyncpg.Pool,
    live: LiveRouting,
    vault: Vault,
    client: str | None,
    random_bytes: Callable[[int], bytes],
    rehearsal: bool,
) -> Accepted:
    """Store a report and what follows from it, or find it stored already.

    One that is a duplicate joins the other. `client` is the keyed hash of the network that it comes
    from. Raises `IdempotencyKeyInvalid`, `IdempotencyKeyReused`, a `PlaceError`, `UnknownCategory`,
    `NotACandidate`, `AnswersRefused`, `FieldRefused` or `SealedUnreadable`; nothing is stored then.
    """
    if idempotency_key is not None and not PRINTABLE.fullmatch(idempotency_key):
        raise IdempotencyKeyInvalid("Idempotency-Key takes 1 to 255 printable ASCII characters")
    report_id = UUID(bytes=random_bytes(16), version=4)
    # Without a key every post is a new report; ours starts with what no client's may contain.
    key = idempotency_key if idempotency_key is not None else f"§{report_id}"
    try:
        _check_answers(body, live.rules)
        if body.duplicate_of is not None:
            receipt = await _join(body, key, caller, pool, vault, random_bytes, rehearsal)
        else:
            receipt = await _store(
                body, report_id, key, caller, pool, live, vault, client, random_bytes, rehearsal
            )
    except (PlaceError, UnknownCategory, NotACandidate, AnswersRefused):
        # A retry of what was accepted under another dataset or catalogue gets its old answer.
        known = idempotency_key is not None
        replay = await _replay(body, key, caller, pool, vault, rehearsal) if known else None
        if replay is None:
            raise
        return replay
    if receipt is not None:
        return Accepted(receipt=receipt, replayed=False)
    replay = await _replay(body, key, caller, pool, vault, rehearsal)
    assert replay is not None  # noqa: S101 - the key is taken, and keys are never deleted
    return replay


def _check_answers(body: ReportIn, rules: Rules) -> None:
    category = rules.categories.get(body.category)
    if category is None:
        raise UnknownCategory(body.category, tuple(rules.categories))
    faults = check_answers(category, body.answers)
    if faults:
        raise AnswersRefused(faults)


async def _store(
    body: ReportIn,
    report_id: UUID,
    key: str,
    caller: Caller,
    pool: asyncpg.Pool,
    live: LiveRouting,
    vault: Vault,
    client: str | None,
    random_bytes: Callable[[int], bytes],
    rehearsal: bool,  # noqa: FBT001 - passed on
) -> Receipt | None:
    """Store a report of its own; None if the key was used before."""
    table = live.require()
    decision, authority = table.place(body, as_of=live.today())
    text_hmac = vault.sign(spam.normalised(body.description), purpose="description")
    async with db.acquire(pool) as conn:
        follower, token = await followers.new_follower(
            conn, body.contact, vault=vault, random_bytes=random_bytes
        )
        before = await shown.count_same(
            conn, api_key_id=caller.key_id, address_hmac=client, text_hmac=text_hmac
        )
        stored = await reports.insert_report(
            conn,
            report_id=report_id,
            api_key_id=caller.key_id,
            idempotency_key=key,
            request_sha256=body.sha256(),
            lon=body.lon,
            lat=body.lat,
            accuracy_m=body.accuracy_m,
            road_ref=body.road_ref,
            chosen=body.chosen,
            observed_at=body.observed_at,
            category=body.category,
            description=body.description,
            answers=body.answers,
            decision=decision.model_dump(mode="json"),
            dataset_id=table.dataset_id,
            authority_id=authority.id,
            follower=follower,
            photos=body.photos,
            photos_public=body.photos_public,
            address_hmac=client,
            text_hmac=text_hmac,
            spam=spam.suspect(spam.Seen(body.description, *before)),
        )
        taken = stored is None and await reports.find_posted(
            conn, api_key_id=caller.key_id, idempotency_key=key
        )
    if stored is None:
        if not taken:  # the key is free
            raise FieldRefused(
                "photos",
                "one of them is no upload of yours that is on no report yet; leave it out, upload "
                "it again, and attach it to the report afterwards",
            )
        return None
    return Receipt.of(
        report_id=report_id,
        received_at=stored["received_at"],
        decision=decision,
        held=stored["held_on_receipt"],
        rehearsal=rehearsal,
        token=token,
    )


async def _join(
    body: ReportIn,
    key: str,
    caller: Caller,
    pool: asyncpg.Pool,
    vault: Vault,
    random_bytes: Callable[[int], bytes],
    rehearsal: bool,  # noqa: FBT001 - passed on
) -> Receipt | None:
    """Count it with the report that it is a duplicate of; None if the key was used before."""
    async with db.acquire(pool) as conn:
        follower, token = await followers.new_follower(
            conn, body.contact, vault=vault, random_bytes=random_bytes
        )
        return await joining.join(
            conn,
            body,
            follower,
            token,
            idempotency_key=key,
            api_key_id=caller.key_id,
            rehearsal=rehearsal,
        )


async def _replay(
    body: ReportIn,
    key: str,
    caller: Caller,
    pool: asyncpg.Pool,
    vault: Vault,
    rehearsal: bool,  # noqa: FBT001 - passed on
) -> Accepted | None:
    """The answer that was given when this key was used before."""
    async with db.acquire(pool) as conn:
        posted = await reports.find_posted(conn, api_key_id=caller.key_id, idempotency_key=key)
    if posted is None:
        return None
    if posted["request_sha256"] != body.sha256():
        raise IdempotencyKeyReused(
            "this Idempotency-Key was used for a report that says something else; take a new key "
            "for a new report, and send a report again exactly as it was"
        )
    sealed = posted["token"]
    token = followers.opened(sealed, vault) if sealed is not None else None
    if posted["receipt"] is not None:
        links = Links.of(posted["id"], token)
        receipt = Receipt.model_validate({**posted["receipt"], "links": links})
    else:
        receipt = Receipt.of(
            report_id=posted["id"],
            received_at=posted["received_at"],
            decision=DecisionOut.model_validate(posted["decision"]),
            held=posted["held_on_receipt"],
            rehearsal=rehearsal,
            token=token,
        )
    return Accepted(receipt=receipt, replayed=True)
