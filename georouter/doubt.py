"""Weighs candidates against each other: what is certain, and what has to be asked.

Each function takes a decision and gives another, with its rule, its reason and its question. None
looks anything up. Further inside a road or a ground than the position may be off is certain; within
reach of several bodies is a question in words that a citizen understands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from georouter.model import Candidate, Decision, DecisionState, NotACandidate


def weigh_roads(
    decision: Decision, roads: list[tuple[Candidate, float]], reach_m: float, road_ref: str | None
) -> Decision:
    """The areas' decision, with the special roads that may be meant instead.

    For certain on such a road is only who is further inside it than the position may be off, with
    no other body's road of a higher rank in reach, or says so; otherwise the road and the areas are
    candidates, and the citizen is asked. A bridge over or under it is within reach of both.
    """
    ranked, roads = roads, sorted(roads, key=lambda one: one[0].distance_m > 0)
    (first, depth_m), covering = roads[0], roads[0][0].distance_m == 0
    outranked = any(one.code != first.code for one, _ in ranked[: ranked.index(roads[0])])
    numbers = " or the ".join(dict.fromkeys(candidate.road for candidate, _ in roads))
    special = distinct([candidate for candidate, _ in roads], ())
    areas = distinct(decision.candidates, special)
    if road_ref is not None:
        named = next((one for one, _ in roads if same_road(one.road, road_ref)), None)
        if named is None:
            return replace(
                decision,
                reason=f"{decision.reason}; near the {numbers}, but the reporter says it is on "
                f"{road_ref}",
            )
        others = tuple(one for one in (*special, *areas) if one.code != named.code)
        return replace(
            decision,
            state=DecisionState.CERTAIN,
            rule="road-ref",
            reason=f"the reporter says it is on the {named.road}, which {named.name} looks after",
            candidates=(named, *others),
            question="",
        )
    sure = (depth_m >= reach_m and not outranked) or not (areas or special[1:])
    if covering and sure:
        return replace(
            decision,
            state=DecisionState.CERTAIN,
            rule="agreement" if first.agreement else "special-road",
            reason=f"the point lies on the {first.road}, which {first.name} looks after",
            candidates=(*special, *areas),
            question="",
        )
    beside = distinct(special, decision.candidates)
    if not covering and not beside:
        return decision  # the same bodies on it and beside it: nothing to ask
    candidates = (*special, *areas) if covering else (*decision.candidates, *beside)
    return replace(
        decision,
        state=_in_doubt(decision, candidates),
        rule="near-special-road",
        reason=f"{decision.reason}; it may be on the {numbers}, or on a road beside or across it",
        candidates=candidates,
        question=f"Is it on the {numbers}, or on a road beside it?" if candidates[1:] else "",
    )


def weigh_grounds(
    decision: Decision, grounds: list[tuple[Candidate, float]], reach_m: float
) -> Decision:
    """The decision, with the bodies that answer by agreement on a piece of ground near by.

    Further inside it than the position may be off, the agreement beats everything else.
    """
    if not grounds:
        return decision
    bodies = distinct([candidate for candidate, _ in grounds], ())
    others = distinct(decision.candidates, bodies)
    (first, depth_m), covering = grounds[0], grounds[0][0].distance_m == 0
    if covering and (depth_m >= reach_m or not others):
        return replace(
            decision,
            state=DecisionState.CERTAIN,
            rule="agreement",
            reason=f"{first.name} answers {first.reason}",
            candidates=(*bodies, *others),
            question="",
        )
    beside = distinct(bodies, decision.candidates)
    if not covering and not beside:
        return decision  # the same body on it and beside it: nothing to ask
    candidates = (*bodies, *others) if covering else (*decision.candidates, *beside)
    names = " or ".join(dict.fromkeys(one.name for one in bodies))
    return replace(
        decision,
        state=_in_doubt(decision, candidates),
        rule="near-agreement",
        reason=f"{decision.reason}; near ground on which {names} answers by agreement",
        candidates=candidates,
        question=f"Is it on the ground that {names} looks after, or beside it?"
        if candidates[1:]
        else "",
    )


def _in_doubt(decision: Decision, candidates: tuple[Candidate, ...]) -> DecisionState:
    """To be asked about, unless a layer is missing or there is nobody else to ask about."""
    if decision.state is DecisionState.DEGRADED or not candidates[1:]:
        return DecisionState.DEGRADED
    return DecisionState.AMBIGUOUS


def distinct(candidates: Iterable[Candidate], known: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Those candidates whose bodies are not among the known, each body once."""
    codes = {one.code for one in known}
    found: dict[str, Candidate] = {}
    for one in candidates:
        if one.code not in codes:
            found.setdefault(one.code, one)  # the nearest of a body's comes first
    return tuple(found.values())


def same_road(one: str, other: str) -> bool:
    """Whether two ways of writing a road number mean the same: "A1(M)", "a1 m"."""
    plain = str.maketrans("", "", " ()-")
    return one.translate(plain).upper() == other.translate(plain).upper()


def choose(decision: Decision, chosen: str) -> Decision:
    """The decision once the citizen has said which candidate is meant."""
    codes = tuple(candidate.code for candidate in decision.candidates)
    if chosen not in codes:
        raise NotACandidate(chosen, codes)
    first = decision.candidates[codes.index(chosen)]
    others = tuple(candidate for candidate in decision.candidates if candidate is not first)
    if not others:
        return decision  # there was nothing to choose
    return replace(
        decision,
        # a choice settles doubt, not the lack of a layer
        state=DecisionState.DEGRADED
        if decision.state is DecisionState.DEGRADED
        else DecisionState.CERTAIN,
        rule="chosen",
        reason=f"{decision.reason}; the reporter says {first.name}",
        candidates=(first, *others),
        question="",
    )
