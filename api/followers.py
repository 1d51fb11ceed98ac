"""Who follows a report: their private link, and how to reach them, as it is kept.

Promises that a link cannot be guessed, that links and contact details are stored sealed, and that a
person's reports can be found by their e-mail address, but no address by what is stored. Stores
nothing but the key for that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from uuid import UUID

import asyncpg

from api.errors import SealedUnreadable
from api.schemas import Contact
from api.store import followers
from api.store.followers import NewFollower
from api.vault import SecretUnreadable, Vault

SUBJECT = ("name", "email", "phone")


def new_token(random_bytes: Callable[[int], bytes]) -> str:
    """The secret of a private link: 43 characters that a URL takes as they are."""
    return base64.urlsafe_b64encode(random_bytes(32)).decode("ascii").rstrip("=")


def token_sha256(token: str) -> bytes:
    """What a private link is found by."""
    return hashlib.sha256(token.encode()).digest()


async def new_follower(
    conn: asyncpg.Connection,
    contact: Contact | None,
    *,
    vault: Vault,
    random_bytes: Callable[[int], bytes],
) -> tuple[NewFollower, str]:
    """A follower to be stored, and the token of their link. Raises `SealedUnreadable`."""
    token = new_token(random_bytes)
    details = {}
    address_hmac = None
    if contact is not None:
        details = contact.model_dump(include=set(SUBJECT), exclude_none=True)
        if contact.email is not None:
            address_hmac = await contact_hmac(
                conn, contact.email, vault=vault, random_bytes=random_bytes
            )
    follower = NewFollower(
        id=UUID(bytes=random_bytes(16), version=4),
        token_sha256=token_sha256(token),
        token=vault.seal(token),
        contact=vault.seal(json.dumps(details)) if details else None,
        contact_hmac=address_hmac,
        share_contact=contact is not None and contact.share_with_council,
        notify=contact is not None and contact.notify,
    )
    return follower, token


async def contact_hmac(
    conn: asyncpg.Connection, email: str, *, vault: Vault, random_bytes: Callable[[int], bytes]
) -> bytes:
    """What a person is found by: their e-mail address, normalised, under a key of our own.

    The first time the key is made. Raises `SealedUnreadable`.
    """
    sealed = await followers.find_contact_key(conn)
    if sealed is None:
        await followers.insert_contact_key(conn, vault.seal(random_bytes(32).hex()))
        # Of several processes one was first.
        sealed = await followers.find_contact_key(conn)
    key = bytes.fromhex(opened(sealed or "", vault))
    return hmac.digest(key, email.lower().encode(), hashlib.sha256)


def opened(sealed: str, vault: Vault) -> str:
    """What was sealed. Raises `SealedUnreadable`."""
    try:
        return vault.open(sealed)
    except SecretUnreadable:
        raise SealedUnreadable(
            "this process does not have the key that personal data is sealed with; send the same "
            "request again later. The operator gives all processes the same GEOROUTER_SECRET_KEYS"
        ) from None
