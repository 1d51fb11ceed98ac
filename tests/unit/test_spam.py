from __future__ import annotations

import pytest

from api.spam import SIGNALS, Seen, normalised, suspect

LONG = "The lamp outside number 12 is dark since Monday"


@pytest.mark.parametrize(
    "honest",
    [
        "",
        "4512",  # the number of a lamp
        "Pothole",
        "See https://example.org/map?x=1 for where it is",
        "кодото 坑 hole!!!!!!!!!",
        "-------- 3 m --------",
        LONG,
    ],
)
def test_what_citizens_write_is_no_spam(honest: str) -> None:
    assert suspect(Seen(honest)) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Cheap at https://a.example or http://b.example", "links"),
        ("www.a.example www.b.example", "links"),
        ("!!! ???", "no_words"),
        ("_ _", "no_words"),
        ("a" * 20, "one_character"),
    ],
)
def test_what_looks_like_spam_is_said_to(text: str, reason: str) -> None:
    assert suspect(Seen(text)) == [reason]


@pytest.mark.parametrize(
    ("text", "from_address", "from_key", "reasons"),
    [
        (LONG, 2, 9, []),
        (LONG, 3, 3, ["repeated_by_address"]),
        (LONG, 0, 10, ["repeated_by_app"]),
        ("Pothole", 9, 5000, []),  # five of them on a way home, and everybody's word
        ("Pothole", 10, 10, ["repeated_by_address"]),
    ],
)
def test_the_same_again_and_again(
    text: str, from_address: int, from_key: int, reasons: list[str]
) -> None:
    assert suspect(Seen(text, from_address, from_key)) == reasons


def test_another_case_or_punctuation_makes_no_other_text() -> None:
    assert normalised("  A  Hole,\nin THE_road! ") == normalised("a hole in the road") != ""


def test_reasons_are_codes() -> None:
    assert all(reason.replace("_", "").isalpha() for reason in SIGNALS)
