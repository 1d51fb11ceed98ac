"""Masks what identifies somebody in a text that the public will read.

Promises to take out e-mail addresses, telephone numbers and number plates of the usual shapes, and
to leave what a repair crew needs: house and road numbers, postcodes, times, grid references. Names
it does not know, and whoever means to be identified finds a way; council and operator can hide.
"""

from __future__ import annotations

import re
from typing import Final

import phonenumbers

_EMAIL: Final = re.compile(r"[^\s@<>()\[\],;:\"]+@[^\s@<>()\[\],;:\"]+\.[^\W_]{2,}")

# Whoever writes fewer digits than a number has means something else: a grid reference, a column.
_FEWEST_DIGITS: Final = 9

_PLATE: Final = re.compile(
    r"""\b(?:
      # AB12 CDE, since 2001 (DVLA INF104); postcodes have a digit where this has the fifth letter
      (?i:[A-Z]{2}\d\d\ ?[A-Z]{3})
      # A123 BCD, 1983 to 2001; of A, B and M, which are roads too, only in one piece: not "A12 BUS"
      | [C-LN-Y]\d{1,3}\ ?[A-Z]{3} | [ABM]\d{1,3}[A-Z]{3}
      # ABC 123D, 1963 to 1982
      | [A-Z]{3}\ ?\d{1,3}[A-Z]
      # ABZ 1234 or AIB 1234, Northern Ireland
      | [A-Z](?:[A-Z]Z|I[A-Z])\ ?\d{1,4}
    )\b""",
    re.VERBOSE,
)
# A plate of any shape, where the text says that it is one.
_SAID_PLATE: Final = re.compile(
    r"""(?i:\b(?:number\ ?plate|reg(?:istration)?(?:\ ?(?:number|no\.?|plate))?|plate)
        \s*(?:is|was|:|=|-)?\s*)
        (?P<plate>(?=[A-Z\d]*\ ?[A-Z\d]*\d)(?=\d*\ ?[A-Z])[A-Z\d]{1,4}\ ?[A-Z\d]{1,4})\b""",
    re.VERBOSE,
)


def mask(text: str) -> str:
    """The text as anybody may read it; what was taken out is named in square brackets."""
    text = _EMAIL.sub("[e-mail]", text)
    text = _SAID_PLATE.sub(lambda found: _without(found, "plate", "[number plate]"), text)
    text = _PLATE.sub("[number plate]", text)
    while numbers := _numbers(text):  # of two side by side it may see one
        for start, end in reversed(numbers):
            text = f"{text[:start]}[phone]{text[end:]}"
    return text


def _numbers(text: str) -> list[tuple[int, int]]:
    if sum(map(str.isdigit, text)) < _FEWEST_DIGITS:
        return []  # most texts; the search below takes a millisecond
    found = phonenumbers.PhoneNumberMatcher(text, "GB", leniency=phonenumbers.Leniency.POSSIBLE)
    return [
        (match.start, match.end)
        for match in found
        if sum(map(str.isdigit, match.raw_string)) >= _FEWEST_DIGITS
    ]


def _without(found: re.Match[str], group: str, instead: str) -> str:
    whole, start = found[0], found.start()
    return whole[: found.start(group) - start] + instead + whole[found.end(group) - start :]
