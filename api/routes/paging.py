"""Cursors: where the next page of a list begins, as an opaque text.

A cursor is the sort key of the last row, so a page costs the same anywhere in the list and rows
that come in meanwhile move nothing. It is not signed: a made-up one is refused or finds a place.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, TypeVar

import asyncpg
from pydantic import TypeAdapter, ValidationError

from api.errors import FieldRefused

T = TypeVar("T", bound=tuple[Any, ...])


def decode(cursor: str | None, shape: TypeAdapter[T]) -> T | None:
    """The sort key in a cursor; raises `FieldRefused`."""
    if cursor is None:
        return None
    try:
        return shape.validate_json(base64.urlsafe_b64decode(cursor.encode()))
    except (ValidationError, ValueError):
        raise FieldRefused(
            "cursor", "is none of ours; take the `next_cursor` of the page before"
        ) from None


def cut(
    rows: Sequence[asyncpg.Record], *, limit: int, key: tuple[str, ...], shape: TypeAdapter[T]
) -> tuple[Sequence[asyncpg.Record], str | None]:
    """A page of `limit` rows out of `limit + 1` fetched, and the cursor of the next page."""
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    last: Any = tuple(page[-1][column] for column in key)
    return page, base64.urlsafe_b64encode(shape.dump_json(last)).decode()
