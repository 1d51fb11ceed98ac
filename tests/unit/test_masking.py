from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.masking import mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("write to jo.o'neil+holes@example.co.uk.", "write to [e-mail]."),
        ("<jo@example.org>", "<[e-mail]>"),
        ("call 07700 900123 or +44 20 7946 0958", "call [phone] or [phone]"),
        ("call 07700900123!", "call [phone]!"),
        ("tel 0044 20 7946 0958, (0)20 7946 0958", "tel [phone], [phone]"),
        ("ring 0800 123 4567", "ring [phone]"),
        ("07700.900.123 07700-900-124", "[phone] [phone]"),
        ("the white van AB12 CDE", "the white van [number plate]"),
        ("ab12cde did it", "[number plate] did it"),
        ("P123 ABC", "[number plate]"),
        ("a red A123BCD", "a red [number plate]"),
        ("ABC 123D and ABC123D", "[number plate] and [number plate]"),
        ("in Belfast ABZ 1234, AIB 12", "in Belfast [number plate], [number plate]"),
        ("its reg is NR 12", "its reg is [number plate]"),
        ("number plate: 12 NR", "number plate: [number plate]"),
        ("registration number A 1", "registration number [number plate]"),
    ],
)
def test_who_it_was_is_masked(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A deep hole outside 12 High Street, SW1A 1AA, by the A12 and the M1",
        "AB12 3CD",
        "A12 bus lane, B4 the lights, on the A40 AND the M4 BUS lane, A1(M)",
        "a 40MPH road, 20 mph since 2026-11-23 12:30",
        "grid ref TQ 123 456, 530123 181234, TQ12345678",
        "lamp column 12345, drain no. 7a, 12A, flat 3b",
        "the plate is loose, the metal plate over the hole",
        "regular flooding 3 times, region 5",
        "Llanfairpwll £5, naïve",
        "it is 3 m by 2 m @ the corner",
    ],
)
def test_what_a_crew_needs_stays(text: str) -> None:
    assert mask(text) == text


@given(st.text(max_size=300))
def test_any_text_is_taken_and_masking_twice_changes_nothing_more(text: str) -> None:
    once = mask(text)
    assert mask(once) == once


@given(
    st.text("abc ,.", max_size=30), st.integers(100_000, 999_999), st.text("abc ,.", max_size=30)
)
def test_no_mobile_number_stays_wherever_it_stands(before: str, number: int, after: str) -> None:
    assert str(number) not in mask(f"{before} 07712{number} {after}")
