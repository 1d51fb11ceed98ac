"""What goes wrong with boundary files, as exceptions whose message says what to do."""

from __future__ import annotations


class SourceError(Exception):
    """A boundary file that cannot be used as it is; the message says what to do."""


class SourceNotFoundError(SourceError):
    """A boundary file that does not exist."""
