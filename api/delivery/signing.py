"""Standard Webhooks 1.0.0: makes secrets, signs what we send, and checks a signature.

The same message id, timestamp and body give the same headers under every time zone, and whatever is
malformed shows as an error of this module. It stores no secret and reads no clock.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping, Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
TOLERANCE_S = 300
# A message id stands between dots in what is signed, so it must have none of its own.
_MESSAGE_ID = re.compile(r"[!-\-/-~]+")


class InvalidSecret(ValueError):  # noqa: N818 - reads as the sentence it is
    """A signing secret that is not `whsec_` and the base64 of 24 to 64 bytes. Never shows it."""


class InvalidSignature(Exception):  # noqa: N818 - reads as the sentence it is
    """A message that is unsigned, signed by someone else, changed on the way, or too old or new."""


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh signing secret; `random_bytes` is `secrets.token_bytes` outside tests."""
    return PREFIX + base64.b64encode(random_bytes(SECRET_BYTES)).decode("ascii")


def headers(
    secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The three headers of one attempt, signed with every secret: two of them during a rotation.

    `timestamp` is the attempt's, in Unix seconds. Raises `InvalidSecret`.
    """
    if not secrets:
        raise InvalidSecret("there is no secret to sign with")
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"a message id is printable ASCII without dots or spaces: {message_id!r}")
    signed = b"%b.%d.%b" % (message_id.encode("ascii"), timestamp, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, signed) for secret in secrets),
    }


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """Raise `InvalidSignature` unless `body` was signed with `secret` at about `now`."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id = given["webhook-id"]
        timestamp = given["webhook-timestamp"]
        signatures = given["webhook-signature"]
    except KeyError as missing:
        raise InvalidSignature(f"the header {missing.args[0]} is missing") from None
    if not re.fullmatch(r"[0-9]{1,15}", timestamp):
        raise InvalidSignature("webhook-timestamp is not a whole number of seconds")
    if abs(now - int(timestamp)) > tolerance_s:
        raise InvalidSignature("webhook-timestamp is too far from the present")
    signed = b"%b.%b.%b" % (_octets(message_id), timestamp.encode("ascii"), body)
    expected = _octets(_signature(secret, signed))
    # Every one is compared, so that the time taken does not tell which was right.
    matches = [hmac.compare_digest(expected, _octets(one)) for one in signatures.split(" ")]
    if not any(matches):
        raise InvalidSignature("no signature matches")


def _signature(secret: str, signed: bytes) -> str:
    digest = hmac.digest(_key(secret), signed, "sha256")
    return "v1," + base64.b64encode(digest).decode("ascii")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise InvalidSecret(f"a signing secret is {PREFIX} and the base64 of 24 to 64 bytes")
    return key


def _octets(text: str) -> bytes:
    """What a header's text was on the wire, as far as it can be told; never an error."""
    return text.encode("utf-8", "replace")
