"""Answers "who is responsible here, for this?" from an index and a catalogue of categories.

The rules are data: a category names its tier, a tier names the special roads that outrank councils
and the layers of areas to ask. The router promises
the same decision for the same input and dataset, names the rule that fired, and never guesses in
silence: within the position's accuracy of a border both sides are candidates and the citizen is
asked. It does not know authorities by name, endpoints, or the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from georouter.model import (
    Area,
    Candidate,
    Category,
    Decision,
    DecisionState,
    Layer,
    MissingLayer,
    NearBorder,
    NotACandidate,
    Road,
    UnknownCategory,
)

DEFAULT_ACCURACY_M: Final = 10.0
"""What a phone outdoors achieves, taken where a client does not say."""

LEAST_DOUBT_M: Final = 10.0
"""So near to a border both sides are candidates, however exact the position claims to be."""

FARTHEST_DOUBT_M: Final = 1000.0
"""A position may be worse than this; the search for candidates ends here, to stay quick."""

GAP_M: Final = 200.0
"""Ground in no area (a pier, a tidal flat) belongs to the nearest area up to here."""


class Covering(Protocol):
    """What the router needs of an index."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, by rank."""

    @property
    def areas(self) -> Sequence[Area]:
        """The areas that `covering` refers to by position."""

    def covering(self, *, lon: float, lat: float) -> tuple[int, ...]:
        """Positions in `areas` of all areas covering the point, ascending."""

    def nearest_border(
        self, *, lon: float, lat: float, layer: str, within_m: float
    ) -> tuple[NearBorder, ...]:
        """Other areas of the layer with a border so near, nearest first."""

    def border_distances(
        self, *, lon: float, lat: float, layer: str, within_m: float
    ) -> tuple[NearBorder, ...]:
        """All areas of the layer with a border so near, those that cover the point included."""


class Router:
    """Routes points by one dataset version and one catalogue. Immutable; share it freely.

    Raises `MissingLayer` when the dataset cannot answer for some tier at all.
    """

    def __init__(
        self,
        index: Covering,
        *,
        categories: Mapping[str, Category],
        dataset: str,
        roads: Mapping[str, Mapping[str, Road]] | None = None,
    ) -> None:
        """`roads` says of each roads layer what its areas stand for, by their codes."""
        self._roads = roads or {}
        self._index = index
        self._layers = {layer.name: layer for layer in index.layers}
        self._categories = categories
        self._dataset = dataset
        for tier in dict.fromkeys(category.tier for category in categories.values()):
            if not self._layers.keys() & set(tier.layers):
                raise MissingLayer(
                    f"dataset {dataset} has the layers {', '.join(self._layers)}, but categories "
                    f"of tier {tier.name!r} ask {' or '.join(tier.layers)}; build it with "
                    f"--layer {tier.layers[0]}=FILE"
                )

    @property
    def dataset(self) -> str:
        """The version of the dataset that decides."""
        return self._dataset

    def route(
        self,
        *,
        lon: float,
        lat: float,
        category: str,
        accuracy_m: float | None = None,
        road_ref: str | None = None,
        chosen: str | None = None,
    ) -> Decision:
        """Decide who is responsible for `category` at a WGS 84 point in degrees.

        `accuracy_m` is the radius of the position's uncertainty; `road_ref` is the number of the
        road that it is on, such as "A12"; `chosen` is the code of the candidate that the citizen
        named. Raises `InvalidCoordinate` for a coordinate that is none, `UnknownCategory` for a
        category that the catalogue does not have, and `NotACandidate` for a choice that was not
        offered.
        """
        kind = self._categories.get(category)
        if kind is None:
            raise UnknownCategory(category, tuple(self._categories))
        doubt_m = DEFAULT_ACCURACY_M if accuracy_m is None else accuracy_m
        reach_m = min(max(LEAST_DOUBT_M, doubt_m), FARTHEST_DOUBT_M)
        hits = self._index.covering(lon=lon, lat=lat)
        decision = self._decide(lon, lat, kind, hits, reach_m)
        roads = self._special_roads(lon, lat, kind, hits, reach_m)
        if roads:
            decision = _weigh(decision, roads, reach_m, road_ref)
        return decision if chosen is None else _choose(decision, chosen)

    def _special_roads(
        self, lon: float, lat: float, kind: Category, hits: tuple[int, ...], reach_m: float
    ) -> list[tuple[Candidate, float]]:
        """The special roads it may be on, by rank and distance, and how deep inside it is."""
        found: list[tuple[Candidate, float]] = []
        for rule in kind.tier.roads:
            layer = self._layers.get(rule.layer)
            if layer is None:
                continue
            borders = self._index.border_distances(
                lon=lon, lat=lat, layer=rule.layer, within_m=reach_m
            )
            to_border = {near.area: near.distance_m for near in borders}
            inside = [hit for hit in hits if layer.first <= hit < layer.stop]
            for area in [*inside, *(one for one in to_border if one not in inside)]:
                road = self._roads[rule.layer][self._index.areas[area].code]
                if not rule.applies_to(road):
                    continue
                distance_m = 0.0 if area in inside else to_border[area]
                where = f"{distance_m:.0f} m from" if distance_m else "on"
                candidate = Candidate(
                    road.body,
                    road.body_name,
                    rule.layer,
                    f"{where} the {road.number}",
                    round(distance_m, 1),
                    road.number,
                )
                depth_m = to_border.get(area, reach_m) if area in inside else 0.0
                found.append((candidate, depth_m))
        return sorted(found, key=lambda one: one[0].distance_m > 0)

    def _decide(
        self, lon: float, lat: float, kind: Category, hits: tuple[int, ...], reach_m: float
    ) -> Decision:
        for rank, name in enumerate(kind.tier.layers):
            layer = self._layers.get(name)
            if layer is None:
                continue
            inside = [hit for hit in hits if layer.first <= hit < layer.stop]
            within_m = reach_m if inside else max(GAP_M, reach_m)
            near = self._index.nearest_border(lon=lon, lat=lat, layer=name, within_m=within_m)
            if inside or near:
                return self._found(kind, inside, near, degraded=rank > 0)
        swapped = abs(lon) <= 90.0 and self._index.covering(lon=lat, lat=lon)
        return self._decision(
            kind,
            DecisionState.OUTSIDE,
            rule="swapped-axes" if swapped else "outside",
            reason="the point is outside the service area"
            + ("; longitude and latitude look swapped" if swapped else ""),
        )

    def _found(
        self, kind: Category, inside: list[int], near: Iterable[NearBorder], *, degraded: bool
    ) -> Decision:
        alone = "inside its boundary"
        shared = "its boundary covers the point, and not alone"
        every = [self._candidate(kind, hit, shared if inside[1:] else alone) for hit in inside]
        every += [
            self._candidate(
                kind, one.area, f"its border is {one.distance_m:.0f} m away", one.distance_m
            )
            for one in near
        ]
        # neighbours that have handed over to one body are one candidate, and no doubt
        candidates = list({candidate.code: candidate for candidate in reversed(every)}.values())
        candidates.sort(key=every.index)
        first, names = candidates[0], [candidate.name for candidate in candidates]
        place = self._index.areas[inside[0]].name if inside else ""
        within = place if place == first.name else f"{place}, for which {first.name} answers"
        if not inside:
            rule, state = "nearest-area", DecisionState.DEGRADED
            reason = (
                f"the point is in no area; {first.name}, {first.distance_m:.0f} m away, is nearest"
            )
        elif inside[1:] and names[1:]:
            rule, state = "shared-ground", DecisionState.AMBIGUOUS
            reason = (
                f"the point belongs to {' and '.join(names)} alike; the lowest code comes first"
            )
        elif names[1:]:
            rule, state = "near-border", DecisionState.AMBIGUOUS
            reason = f"the point lies inside {within}, and so near to {' and '.join(names[1:])} "
            reason += "that the position may be wrong"
        else:
            rule, state = "covering-area", DecisionState.CERTAIN
            reason = f"the point lies inside {within}"
        if degraded:
            rule, state = "fallback-layer", DecisionState.DEGRADED
            reason += f"; layer {kind.tier.layers[0]!r}, which decides, gives no answer here"
        question = f"Is it in {' or in '.join(names)}?" if names[1:] else ""
        return self._decision(
            kind, state, rule=rule, reason=reason, candidates=tuple(candidates), question=question
        )

    def _candidate(
        self, kind: Category, area: int, reason: str, distance_m: float = 0.0
    ) -> Candidate:
        found = self._index.areas[area]
        code, name = found.code, found.name
        for delegation in kind.tier.delegations:
            if delegation.applies_to(code):
                code, name = delegation.body, delegation.body_name
                reason = f"answers for {found.name}: {delegation.reason}"
                break
        return Candidate(code, name, found.layer, reason, round(distance_m, 1))

    def _decision(
        self,
        kind: Category,
        state: DecisionState,
        *,
        rule: str,
        reason: str,
        candidates: tuple[Candidate, ...] = (),
        question: str = "",
    ) -> Decision:
        return Decision(
            state=state,
            rule=rule,
            reason=reason,
            category=kind.code,
            tier=kind.tier.name,
            dataset=self._dataset,
            candidates=candidates,
            question=question,
        )


def _weigh(
    decision: Decision, roads: list[tuple[Candidate, float]], reach_m: float, road_ref: str | None
) -> Decision:
    """The areas' decision, with the special roads that may be meant instead.

    For certain on such a road is only who is further inside it than the position may be off, or
    says so; otherwise the road and the areas are candidates, and the citizen is asked. A bridge
    over or under it is within reach of both.
    """
    numbers = " or the ".join(dict.fromkeys(candidate.road for candidate, _ in roads))
    bodies = {candidate.code: candidate for candidate, _ in reversed(roads)}
    special = tuple(candidate for candidate, _ in roads if bodies[candidate.code] is candidate)
    areas = tuple(one for one in decision.candidates if one.code not in bodies)
    if road_ref is not None:
        named = next((one for one, _ in roads if _same_road(one.road, road_ref)), None)
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
    (first, depth_m), covering = roads[0], roads[0][0].distance_m == 0
    if covering and (depth_m >= reach_m or not areas):
        return replace(
            decision,
            state=DecisionState.CERTAIN,
            rule="special-road",
            reason=f"the point lies on the {first.road}, which {first.name} looks after",
            candidates=(*special, *areas),
            question="",
        )
    candidates = (*special, *areas) if covering else (*areas, *special)
    return replace(
        decision,
        state=DecisionState.DEGRADED
        if decision.state is DecisionState.DEGRADED
        else DecisionState.AMBIGUOUS,
        rule="near-special-road",
        reason=f"{decision.reason}; it may be on the {numbers}, or on a road beside or across it",
        candidates=candidates,
        question=f"Is it on the {numbers}, or on a road beside it?" if candidates[1:] else "",
    )


def _same_road(one: str, other: str) -> bool:
    """Whether two ways of writing a road number mean the same: "A1(M)", "a1 m"."""
    plain = str.maketrans("", "", " ()-")
    return one.translate(plain).upper() == other.translate(plain).upper()


def _choose(decision: Decision, chosen: str) -> Decision:
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
