"""What goes wrong with boundary files, as exceptions whose message says what to do."""

from __future__ import annotations


class SourceError(Exception):
    """A boundary file that cannot be used as it is; the message says what to do."""

    finding = "unreadable_file"
    """The kind of finding that it is in a validation."""


class UnclosedRingError(SourceError):
    """A boundary file with a ring that is none."""

    finding = "unclosed_ring"


class SourceNotFoundError(SourceError):
    """A boundary file that does not exist."""
