"""Reads mails that came back (RFC 3464) and finds the delivery they are about. Pure.

Anything else, answers and notices of absence among them, is no bounce. A bounce is the word of
whoever sent it: the delivery's id in the Message-ID, which is random, is all that proves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.policy import default
from uuid import UUID

DIAGNOSTIC_CHARS = 1000
_MESSAGE_ID = re.compile(
    r"<([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:\.[0-9]+)?@[^<>\s]+>",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Bounce:
    """A mail of ours that came back. `failed`: for good; otherwise it is only late.

    `delivery_id` is, of a mail to who follows a report, the `mail_id` of that follower.
    """

    delivery_id: UUID
    failed: bool
    diagnostic: str


def read(message: bytes) -> Bounce | None:
    """The bounce in a raw message; None if it is none, or not of a message of ours."""
    parts = list(message_from_bytes(message, policy=default).walk())
    reports = [part for part in parts if part.get_content_type() == "message/delivery-status"]
    found = next(_originals(parts), None)
    if not reports or found is None:
        return None
    fields = [block for part in reports for block in _blocks(part)]
    actions = {str(block["Action"]).strip().lower() for block in fields if "Action" in block}
    said = [
        f"{name}: {' '.join(str(block[name]).split())}"
        for block in fields
        for name in ("Final-Recipient", "Action", "Status", "Diagnostic-Code")
        if name in block
    ]
    return Bounce(UUID(found), "failed" in actions, "; ".join(said)[:DIAGNOSTIC_CHARS])


def _originals(parts: Sequence[Message]) -> Iterator[str]:
    """Message-IDs like ours in the returned message, or in its headers where only they came."""
    # The first is the bounce itself, whose own Message-ID is its mail server's.
    for part in parts[1:]:
        texts = [str(part.get("Message-ID", ""))]
        if part.get_content_type() == "text/rfc822-headers":
            texts.append(str(part.get_payload()))
        for text in texts:
            for match in _MESSAGE_ID.finditer(text):
                yield match[1]


def _blocks(part: Message) -> Iterator[Message]:
    """The groups of fields of a status report: of the message first, then of each recipient."""
    payload = part.get_payload()
    for block in payload if isinstance(payload, list) else ():
        if isinstance(block, Message):
            yield block
