"""Secrets at rest: seals what goes into the database and opens what comes out of it.

It promises that what it seals can be read with one of the installation's keys and with nothing
else, and that no key or secret is in any message of its errors. It stores nothing but the key file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from api.settings import Settings

# Tells what is sealed from what was stored before there were keys.
PREFIX = "sealed:"
KEY_FILE = "secret.key"


class VaultUnusable(Exception):  # noqa: N818 - reads as the sentence it is
    """The keys cannot be read, or what is given is no key. Never shows one."""


class SecretUnreadable(Exception):  # noqa: N818 - reads as the sentence it is
    """A stored secret that none of the keys opens. Never shows it."""


class Vault:
    """Seals with the first key, opens with any; none of its methods shows one."""

    def __init__(self, keys: Sequence[str], *, where: str) -> None:
        try:
            fernets = [Fernet(key) for key in keys]
            self._newest, self._any = fernets[0], MultiFernet(fernets)
            self._raw = [base64.urlsafe_b64decode(key) for key in keys]
        except (ValueError, IndexError):
            raise VaultUnusable(
                f"{where} must have keys as `georouter secrets key` prints them, the newest first"
            ) from None

    def seal(self, plain: str) -> str:
        """The secret as it is stored. No secret stays none."""
        return PREFIX + self._newest.encrypt(plain.encode()).decode("ascii") if plain else ""

    def open(self, stored: str) -> str:
        """The secret; one that was stored plain is its own. Raises `SecretUnreadable`."""
        if not stored.startswith(PREFIX):
            return stored
        try:
            return self._any.decrypt(stored.removeprefix(PREFIX)).decode()
        except InvalidToken:
            raise SecretUnreadable(
                "the secret is sealed with a key that this process does not have; give "
                "all processes the same GEOROUTER_SECRET_KEYS"
            ) from None

    def is_current(self, stored: str) -> bool:
        """Whether it is sealed with the newest key, or there is nothing to seal."""
        try:
            return not stored or bool(self._newest.decrypt(stored.removeprefix(PREFIX)))
        except InvalidToken:
            return False

    def sign(self, text: str, *, purpose: str) -> str:
        """A signature by the newest key, of 43 characters that a URL takes as they are."""
        return _sign(self._raw[0], text, purpose)

    def is_signed(self, text: str, signature: str, *, purpose: str) -> bool:
        """Whether one of the keys made this signature, for this purpose."""
        given = signature.encode("utf-8", "replace")
        made = [_sign(key, text, purpose).encode() for key in self._raw]
        return any(hmac.compare_digest(one, given) for one in made)


def _sign(key: bytes, text: str, purpose: str) -> str:
    # A key of its own for each purpose, and none that seals
    derived = hmac.digest(key, f"georouter {purpose}".encode(), hashlib.sha256)
    made = hmac.digest(derived, text.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(made).decode("ascii").rstrip("=")


def new_key() -> str:
    """A fresh key."""
    return Fernet.generate_key().decode("ascii")


def open_vault(settings: Settings) -> Vault:
    """The keys of the setting, then those of the key file; without either, a key file is made.

    Raises `VaultUnusable`.
    """
    path = settings.data_dir / KEY_FILE
    given = settings.secret_keys.get_secret_value() if settings.secret_keys is not None else ""
    keys = [key.strip() for key in given.split(",") if key.strip()]
    if settings.secret_keys is not None:
        Vault(keys, where="GEOROUTER_SECRET_KEYS")
    try:
        if not keys and not path.exists():
            _make(path)
        # Behind those of the setting: whoever moves from the file to the setting can still read.
        if path.exists():
            keys += path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        # Who has the setting needs no file, and perhaps may not look for one.
        if not keys:
            raise VaultUnusable(
                f"the key file {path} cannot be used ({type(error).__name__}); make it readable, "
                "or set GEOROUTER_SECRET_KEYS"
            ) from None
    return Vault(keys, where=str(path))


def _make(path: Path) -> None:
    """Make the key file, whole or not at all; of several processes one makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # readable by us alone
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would replace the key that another process seals with already.
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    # Losing it to a crash would lose what is sealed with it.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
