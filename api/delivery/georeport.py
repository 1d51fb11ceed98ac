"""Open311 GeoReport v2 as authorities speak it: reads answers, JSON or XML, and what they mean.

Pure. Whatever a server sends, it gives rows of text or raises `NotGeoReport`; entities are not
expanded, and a document type, which could define some, is refused. A status that says no more than
"closed" never becomes "fixed".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode
from xml.parsers import expat

# Of a row's texts, and of the nesting of its document, no more than this is ours to keep.
TEXT_CHARS = 4000
MAX_DEPTH = 16
REFERENCE_CHARS = 100

# Our word and, of an end, its reason. GeoReport knows open and closed, FixMyStreet the others.
# A referral inside the authority and a cancellation end without a reason that we have a word for.
STATES: Mapping[str, tuple[str, str | None]] = {
    "open": ("acknowledged", None),
    "for_triage": ("acknowledged", None),
    "investigating": ("investigating", None),
    "planned": ("planned", None),
    "action_scheduled": ("planned", None),
    "in_progress": ("in_progress", None),
    "fixed": ("fixed", None),
    "reopen": ("reopened", None),
    "closed": ("closed", None),
    "internal_referral": ("closed", None),
    "cancelled": ("closed", None),
    "no_further_action": ("closed", "no_further_action"),
    "duplicate": ("closed", "duplicate"),
    "not_councils_responsibility": ("closed", "not_responsible"),
}
FINAL = frozenset({"fixed", "closed"})

Row = Mapping[str, str]


class NotGeoReport(Exception):  # noqa: N818 - reads as the sentence it is
    """An answer that is nothing GeoReport knows; the message quotes none of it."""


@dataclass(frozen=True, slots=True)
class News:
    """What an authority says of a service request; `state` is None where it only added a note."""

    state: str | None
    reason: str | None
    note: str | None
    at: str | None
    digest: str  # equal while it says the same


def address(base: str, *path: str, suffix: str, **query: str | None) -> str:
    """The URL of a resource below `base`; queries that are None are left out."""
    steps = "/".join(quote(step, safe="") for step in path)
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    return f"{base.rstrip('/')}/{steps}.{suffix}" + (f"?{asked}" if asked else "")


def instant(unix_s: float) -> str:
    """A time as queries take it: whole seconds, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reference_of(row: Row, name: str = "service_request_id") -> str | None:
    """The authority's number, or token, in a row; None if there is none that we can keep."""
    value = row.get(name, "")
    return value if 0 < len(value) <= REFERENCE_CHARS and value.isprintable() else None


def news_of(row: Row) -> News:
    """What a row of requests, or of FixMyStreet's updates, says."""
    word = row.get("status", "").strip().lower().replace(" ", "_").replace("-", "_")
    # A word that we do not know changes nothing: guessing could tell a reporter what is not so.
    state, reason = STATES.get(word, (None, None))
    # An update's text is the authority's; a request's description is the reporter's own.
    note = row.get("description") if "update_id" in row else row.get("status_notes")
    digest = hashlib.sha256(json.dumps([word, note]).encode()).hexdigest()[:16]
    return News(state, reason, note, row.get("updated_datetime"), digest)


def rows(body: bytes, name: str) -> list[Row]:
    """The elements called `name` in an answer, each as the texts of its children.

    Empty ones are left out. Raises `NotGeoReport`.
    """
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    # UTF-16 begins otherwise; nobody sends JSON in it.
    return _xml_rows(body, name) if start[:1] in (b"<", b"\xff", b"\xfe") else _rows(start, name)


def _rows(body: bytes, name: str) -> list[Row]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise NotGeoReport("neither JSON nor XML") from None
    if isinstance(value, dict):
        # Some keep the wrapper that XML has: {"service_requests": [...]}.
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        value = lists[0] if len(value) == 1 and lists else [value]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise NotGeoReport("not a list of objects")
    return [_texts(row.get(name) if isinstance(row.get(name), dict) else row) for row in value]


def _texts(row: Any) -> Row:
    return {
        str(key): str(value)[:TEXT_CHARS]
        for key, value in row.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    }


def _xml_rows(body: bytes, name: str) -> list[Row]:
    reader = _Reader(name)
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, LookupError, ValueError):
        raise NotGeoReport("not well-formed XML") from None
    # A page of a proxy may well be XML too; an empty list still has a list's name.
    if not reader.found and not reader.root.endswith("s"):
        raise NotGeoReport("XML of another kind")
    return list(reader.found)


def _refuse(*_: object) -> None:
    raise NotGeoReport("XML with a document type")


class _Reader:
    """Collects the texts of the children of all elements of one name."""

    def __init__(self, name: str) -> None:
        self.root = ""
        self.found: list[dict[str, str]] = []
        self._name = name
        self._path: list[str] = []
        self._texts: list[list[str]] = []

    def start(self, tag: str, _attributes: object) -> None:
        self.root = self.root or tag
        if len(self._path) == MAX_DEPTH:
            raise NotGeoReport("nested too deeply")
        self._path.append(tag)
        self._texts.append([])
        if tag == self._name:
            self.found.append({})

    def text(self, part: str) -> None:
        if self._texts:
            self._texts[-1].append(part)

    def end(self, tag: str) -> None:
        self._path.pop()
        text = "".join(self._texts.pop()).strip()
        if text and self._path and self._path[-1] == self._name:
            self.found[-1].setdefault(tag, text[:TEXT_CHARS])
