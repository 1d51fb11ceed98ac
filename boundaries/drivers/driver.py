"""What a driver is: it knows one protocol, finds what editions there are, and fetches one whole.

A new one is a class in a file of its own and a line in `catalogue.DRIVERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

from boundaries.drivers.remote import Remote, is_safe
from georouter.entries import Table

Progress = Callable[[str, float], None]


class FileMissingError(Exception):
    """A local file that a source names and that is not there."""


@dataclass(frozen=True, slots=True)
class Release:
    """An edition that can be fetched, and where from."""

    edition: str
    url: str


class Driver(Protocol):
    """Fetches from one service."""

    def releases(self, remote: Remote, *, today: date) -> list[Release]:
        """What can be fetched, the newest last; never nothing. Raises `RemoteError`.

        Where the service does not say of what day its data is, the edition is `today`.
        """

    def download(self, release: Release, remote: Remote, work: Path, progress: Progress) -> Path:
        """Fetch into the folder `work`, going on with what is there of it; raises `RemoteError`.

        The file that it returns is whole and has been checked by all that the service says of it.
        """


def address(table: Table, key: str) -> str:
    """A URL of a service: over TLS, or on this very machine."""
    url = table.text(key)
    if not is_safe(url):
        table.fault(key, f"{key} must be a URL that begins with https://")
    return url.rstrip("/")


def whole_number(table: Table, key: str, *, default: int, most: int) -> int:
    """A whole number from 0."""
    number = table.number(key, default=default)
    if number != int(number) or not 0 <= number <= most:
        table.fault(key, f"{key} must be a whole number from 0 to {most}")
    return int(number)
