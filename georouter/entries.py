"""Reads the entries of a TOML file, checked, for those who make values of them.

Each value is asked for by key and kind; a wrong one, a missing one and one that nobody asked for is
a `Fault`, which knows the way to it from the top of the file, and so its line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import date, datetime
from difflib import get_close_matches
from math import isfinite
from typing import Any, Final, NoReturn

from georouter.geometry import check_coordinate
from georouter.model import InvalidCoordinate

MOST_VERTICES: Final = 1000

At = tuple[str | int, ...]


class Fault(Exception):  # noqa: N818 - never shown as it is: its reader adds file and line
    """What is wrong, and where: the keys that lead to it from the top of the file."""

    def __init__(self, at: At, message: str) -> None:
        super().__init__(message)
        self.at = at


NEEDED: Final[Any] = object()
"""The default of a value that must be there."""


class Table:
    """A table of the file: gives its values checked, and knows which nobody asked for."""

    def __init__(self, at: At, entry: object, what: str) -> None:
        if not isinstance(entry, dict):
            raise Fault(at, f"{what} must be a table")
        self.at = at
        self.what = what
        self._entry: dict[str, Any] = entry
        self._asked: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entry)

    def fault(self, key: str, message: str) -> NoReturn:
        """Refuse the value of a key; the message ends with the remedy."""
        raise Fault((*self.at, key), f"{self.what}: {message}")

    def has(self, *keys: str) -> bool:
        """Whether any of the keys is given."""
        return any(key in self._entry for key in keys)

    def nothing_else(self) -> None:
        """Refuse keys that were never asked for: most are misspelt."""
        for key in self._entry:
            if key not in self._asked:
                near = get_close_matches(key, self._asked, n=1)
                meant = f", {near[0]!r} does" if near else ""
                self.fault(key, f"{key!r} means nothing here{meant}; remove or correct it")

    def _value(self, key: str, default: Any = NEEDED) -> Any:
        self._asked.add(key)
        value = self._entry.get(key, default)
        if value is NEEDED:
            raise Fault(self.at, f"{self.what} has no {key}; add it")
        return value

    def text(self, key: str, *, default: str = NEEDED) -> str:
        """A text that is not empty."""
        value = self._value(key, default)
        if key in self._entry and not is_text(value):
            self.fault(key, f"{key} must be a text that says something")
        return str(value)

    def texts(
        self, key: str, *, default: tuple[str, ...] = NEEDED, hint: str = "texts"
    ) -> tuple[str, ...]:
        """A list of such texts; `hint` says of what."""
        value = self._value(key, default)
        if key not in self._entry:
            return default
        if not isinstance(value, list) or not value or not all(is_text(item) for item in value):
            self.fault(key, f"{key} must list {hint}")
        return tuple(value)

    def labels(self, key: str) -> dict[str, str]:
        """A table of codes and labels."""
        value = self._value(key)
        if (
            not isinstance(value, dict)
            or not value
            or not all(is_text(label) for label in value.values())
        ):
            self.fault(key, f'{key} must be a table of codes and labels: {{ small = "A cup" }}')
        return dict(value)

    def number(self, key: str, *, default: float = NEEDED) -> float:
        """A number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            self.fault(key, f"{key} must be a number")
        return float(value)

    def whole(self, key: str, *, default: int = NEEDED, least: int = 0) -> int:
        """A whole number, not below `least`."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.fault(key, f"{key} must be a whole number from {least} up")
        return value

    def wholes(self, key: str, *, default: tuple[int, ...] = NEEDED) -> tuple[int, ...]:
        """A list of whole numbers from 1 up."""
        value = self._value(key, default)
        if key not in self._entry:
            return default
        if (
            not isinstance(value, list)
            or not value
            or not all(type(item) is int and item > 0 for item in value)
        ):
            self.fault(key, f"{key} must list whole numbers from 1 up")
        return tuple(value)

    def flag(self, key: str) -> bool:
        """True or false; false where it is missing."""
        value = self._value(key, default=False)
        if not isinstance(value, bool):
            self.fault(key, f"{key} must be true or false")
        return value

    def day(self, key: str) -> date | None:
        """A date, or None where it is missing."""
        value = self._value(key, default=None)
        if value is not None and (not isinstance(value, date) or isinstance(value, datetime)):
            self.fault(key, f"{key} must be a date such as 2027-04-01, without quotes")
        return value

    def ring(self, key: str) -> tuple[tuple[float, float], ...]:
        """Corners in degrees, not closed; nothing where it is missing."""
        value = self._value(key, default=[])
        try:
            ring = tuple((float(lon), float(lat)) for lon, lat in value)
            for lon, lat in ring:
                check_coordinate(lon, lat)
        except (TypeError, ValueError, InvalidCoordinate) as error:
            self.fault(key, f"{key} must list pairs of longitude and latitude: {error}")
        ring = ring[:-1] if ring[1:] and ring[0] == ring[-1] else ring
        if key in self._entry and not 3 <= len(set(ring)) <= MOST_VERTICES:
            self.fault(key, f"{key} must have 3 to {MOST_VERTICES} different points")
        return ring

    def numbers(self, key: str) -> dict[str, float]:
        """A table of names and numbers; empty where it is missing."""
        table = self.inner(key)
        return {name: table.number(name) for name in table} if table else {}

    def inner(self, key: str) -> Table | None:
        """A table in this one, or None where it is missing."""
        value = self._value(key, default=None)
        return None if value is None else Table((*self.at, key), value, f"{self.what}, {key}")

    def tables(self, key: str, what: str, *, needed: bool = True) -> dict[str, Table]:
        """Tables by name."""
        value = self._value(key, NEEDED if needed else {})
        if not isinstance(value, dict) or (needed and not value):
            self.fault(key, f"[{key}.<code>] tables are wanted here, one for each {what}")
        inside = f"{self.what}, " if self.at else ""
        return {
            code: Table((*self.at, key, code), entry, f"{inside}{what} {code!r}")
            for code, entry in value.items()
        }

    def each(self, key: str, what: str) -> list[Table]:
        """A list of tables."""
        value = self._value(key, default=[])
        if not isinstance(value, list):
            self.fault(key, f"{key} must list tables, one for each {what}")
        inside = f"{self.what}, " if self.at else ""
        return [
            Table((*self.at, key, position), entry, f"{inside}{what} {position + 1}")
            for position, entry in enumerate(value)
        ]


def is_text(value: object) -> bool:
    """Whether it is a text that says something."""
    return isinstance(value, str) and bool(value.strip())


# --- lines ----------------------------------------------------------------------------------------


def line_of(text: str, at: At) -> int:
    """The line on which what the keys lead to begins: it is in the file from there on, not before.

    tomllib says nothing of lines, so ever longer beginnings of the file are read. Of a key that is
    in no line, such as one of an inline table, the line is that of the table around it.
    """
    lines = text.splitlines()
    before = 0
    for count in range(1, len(lines) + 1):
        try:
            read: Any = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value
        try:
            for key in at:
                read = read[key]
        except (KeyError, IndexError, TypeError):
            before = count
            continue
        opening = range(before, count)
        return next((n for n in opening if lines[n].strip() and lines[n].strip()[0] != "#"), 0) + 1
    return 1


def line_of_syntax(text: str, error: tomllib.TOMLDecodeError) -> int:
    """The line at which a text stops being TOML."""
    found = re.search(r"at line (\d+)", str(error))
    return int(found[1]) if found else text.count("\n") + 1
