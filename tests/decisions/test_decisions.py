"""Who must answer where: the routing rules as tables that a domain expert can read and extend.

A row is one question and its answer by the rules, not by the router. `domain_rule` says which rule
it is about: 1 coordinates, 2 accuracy, 3 category and tier, 4 agreements, 5 special roads,
6 Northern Ireland, 7 the covering area, 8 near a border, 9 in no area, 10 successions, 12 refusals,
13 missing layers. Rule 11, a report being held until its authority registers, is the service's:
the router does not know endpoints. Three hops at most, of rule 12, are counted there too.

Of the answer, `state` is compared always, or names the exception; the rest where it is filled in:
`rule` that fired, `authority` as its code and name, `candidates` as codes in order. An empty
`authority` with a state of `outside` is nobody. `without` lists layers that the dataset lacks.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from georouter.model import (
    Decision,
    DecisionState,
    InvalidCoordinate,
    NotACandidate,
    UnknownCategory,
)
from georouter.router import Router
from tests.decisions import countries
from tests.support.realdata import real_data

REFUSALS = (InvalidCoordinate, NotACandidate, UnknownCategory)
ROUTER_RULES = {str(number) for number in range(1, 14)} - {"11"}

Row = dict[str, str]


def read(table: str) -> list[Any]:
    """The rows of a table as parameters, named by their line and place."""
    with (countries.FOLDER / table).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        return [pytest.param(row, id=f"line {reader.line_num}: {row['place']}") for row in reader]


def question(row: Row) -> dict[str, Any]:
    """What the row asks, as the router takes it."""
    return {
        "lon": float(row["lon"]),
        "lat": float(row["lat"]),
        "category": row["category"],
        "accuracy_m": float(row["accuracy_m"]) if row["accuracy_m"] else None,
        "road_ref": row["road_ref"] or None,
        "chosen": row["chosen"] or None,
        "as_of": date.fromisoformat(row["as_of"]) if row["as_of"] else None,
        "refused": row["refused"].split(),
    }


def explained(row: Row, decision: Decision) -> str:
    """What an expert needs to see why the router thinks otherwise."""
    asked = ", ".join(f"{name} {value}" for name, value in row.items() if value)
    lines = [f"the table says: {asked}"]
    lines += [f"the router says: {decision.state}, by {decision.rule}: {decision.reason}"]
    lines += [f"  {one.code} {one.name}: {one.reason}" for one in decision.candidates]
    lines += [f"  it asks: {decision.question}"] if decision.question else []
    return "\n".join(lines)


def check(row: Row, country: Callable[[tuple[str, ...]], Router]) -> None:
    router = country(tuple(row["without"].split()))
    if row["state"] not in set(DecisionState):
        with pytest.raises(REFUSALS) as raised:
            router.route(**question(row))
        assert type(raised.value).__name__ == row["state"]
        return
    decision = router.route(**question(row))
    why = explained(row, decision)
    first = decision.responsible
    said = f"{first.code} {first.name}" if first else ""
    assert said == row["authority"], why
    assert decision.state == row["state"], why
    if row["rule"]:
        assert decision.rule == row["rule"], why
    if row["candidates"]:
        assert [one.code for one in decision.candidates] == row["candidates"].split(), why


@pytest.mark.parametrize("row", read("doggerland.csv"))
def test_doggerland(row: Row) -> None:
    check(row, countries.doggerland)


@pytest.mark.realdata
@pytest.mark.parametrize("row", read("uk.csv"))
def test_the_united_kingdom(row: Row) -> None:
    real_data()
    check(row, countries.uk)


def test_the_tables_know_every_rule() -> None:
    rows: list[Row] = [one.values[0] for one in [*read("doggerland.csv"), *read("uk.csv")]]
    assert {row["domain_rule"] for row in rows} == ROUTER_RULES
    assert {row["state"] for row in rows} >= {*DecisionState, *(e.__name__ for e in REFUSALS)}
    twice = Counter(f"{question(row)} {row['without']}" for row in rows)
    assert [asked for asked, times in twice.items() if times > 1] == []
