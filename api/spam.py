"""Does a report look like spam? Signals in a table, and the reasons that a report gives.

It decides nothing: a report with a reason is stored and forwarded like any other, the council is
told, and the public is not shown it until somebody has looked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_LINK = re.compile(r"(?:https?://|www\.)\S", re.IGNORECASE)
_RUN = re.compile(r"(\S)\1{19}")
# "Pothole" is what a citizen says of each of five potholes.
SHORT: Final = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A description, and how often its text came before, within the hour."""

    description: str
    from_address: int = 0
    from_key: int = 0

    @property
    def is_short(self) -> bool:
        """Whether honest people may say just the same."""
        return len(normalised(self.description)) < SHORT


SIGNALS: Final[Mapping[str, Callable[[Seen], bool]]] = {
    "links": lambda seen: len(_LINK.findall(seen.description)) > 1,
    "no_words": lambda seen: bool(seen.description) and not normalised(seen.description),
    "one_character": lambda seen: _RUN.search(seen.description) is not None,
    "repeated_by_address": lambda seen: seen.from_address >= (10 if seen.is_short else 3),
    "repeated_by_app": lambda seen: not seen.is_short and seen.from_key >= 10,
}
"""Why a report may be spam, by the code of the reason."""


def normalised(description: str) -> str:
    """A text without what is changed to make it look like another: case, space, punctuation."""
    return " ".join(re.findall(r"\w+", description.casefold().replace("_", " ")))


def suspect(seen: Seen) -> list[str]:
    """The codes of all reasons to think so; none as a rule."""
    return [reason for reason, signal in SIGNALS.items() if signal(seen)]
