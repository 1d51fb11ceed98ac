"""Where a rollback leads, told by letters: small ones are activations, capital ones rollbacks."""

from __future__ import annotations

import pytest

from api.activation import rollback_target


@pytest.mark.parametrize(
    ("terms", "target"),
    [
        ("", None),
        ("a", None),
        ("ab", "a"),
        ("abA", None),  # not to b, which was left
        ("abc", "b"),
        ("abcB", "a"),
        ("abcBA", None),
        ("aba", "b"),  # an activation of a is no rollback to it
        ("abaB", "a"),
        ("abAb", "a"),
        ("abAc", "a"),
        ("abcA", None),  # rolled back two at once
        ("abAB", "a"),  # by name, to what was left
        ("aab", "a"),  # what was between was withdrawn
        ("aa", None),
    ],
)
def test_where_a_rollback_leads(terms: str, target: str | None) -> None:
    rows = [{"dataset_id": ord(one.lower()), "rollback": one.isupper()} for one in terms]
    found = rollback_target(rows)
    assert (found and chr(found)) == target
