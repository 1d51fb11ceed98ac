from __future__ import annotations

from uuid import UUID

import pytest

from api.delivery.bounces import read

ID = UUID("0b9a8c7d-6e5f-4c3d-b2a1-0f1e2d3c4b5a")
BOUNCE = """From: MAILER-DAEMON@relay.example
To: georouter@georouter.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <11111111-2222-4333-8444-555555555555@relay.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="B"

--B
Content-Type: text/plain

I'm sorry to have to inform you ...

--B
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example

Final-Recipient: rfc822; highways@council.example
Action: {action}
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <highways@council.example>:
    Recipient address rejected

--B
Content-Type: {kind}

From: georouter@georouter.example
Subject: pothole
Message-ID: <{id}@georouter.example>

{text}
--B--
"""


def bounce(**parts: str) -> bytes:
    facts = {"action": "failed", "kind": "message/rfc822", "id": str(ID), "text": "words", **parts}
    return BOUNCE.format(**facts).encode()


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers"])
@pytest.mark.parametrize(("action", "failed"), [("failed", True), ("delayed", False)])
def test_a_bounce_is_read(kind: str, action: str, *, failed: bool) -> None:
    found = read(bounce(kind=kind, action=action).replace(b"\n", b"\r\n"))
    assert found is not None
    assert (found.delivery_id, found.failed) == (ID, failed)
    assert "highways@council.example" in found.diagnostic
    assert "550 5.1.1 <highways@council.example>: Recipient address rejected" in found.diagnostic


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\x00",
        b"Subject: out of office\n\nback on Monday",
        bounce(id="not-of-ours"),
        bounce().replace(b"message/delivery-status", b"text/plain"),
        # the bounce's own Message-ID looks like ours, and there is no original
        bounce(id="x").replace(b"Message-ID: <x@georouter.example>", b"X: y"),
    ],
)
def test_what_is_no_bounce_of_ours(message: bytes) -> None:
    assert read(message) is None
