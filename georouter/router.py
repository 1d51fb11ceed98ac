"""Answers "who is responsible here, for this?" from an index and the rules.

The rules are data: a category names its tier, a tier names the special roads that outrank councils
and the layers of areas to ask; agreements put a body in the place of another, successions end
bodies on a day. The router promises the same decision for the same input, dataset and rules, names
the rule that fired, and never guesses in silence: within the position's accuracy of a border, a
special road or an agreement's ground all sides are candidates and the citizen is asked. It does not
know authorities by name, endpoints, or the clock. It is long because the rules share the place that
is asked about; what is certain and what is to be asked is weighed in `doubt`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from typing import Final, Protocol

from georouter.doubt import choose, distinct, same_road, weigh_grounds, weigh_roads
from georouter.grounds import Ground, Grounds
from georouter.model import (
    Agreement,
    Area,
    Candidate,
    Category,
    Decision,
    DecisionState,
    Layer,
    MissingLayer,
    NearBorder,
    Road,
    Rules,
    Succession,
    Successor,
    UnknownCategory,
    in_force,
    matches,
)

DEFAULT_ACCURACY_M: Final = 10.0
"""What a phone outdoors achieves, taken where a client does not say."""

LEAST_DOUBT_M: Final = 10.0
"""So near to a border both sides are candidates, however exact the position claims to be."""

FARTHEST_DOUBT_M: Final = 1000.0
"""A position may be worse than this; the search for candidates ends here, to stay quick."""

GAP_M: Final = 200.0
"""Ground in no area (a pier, a tidal flat) belongs to the nearest area up to here. As far is looked
for another body where one has said that the report is not theirs."""

NAMED_ROAD_M: Final = 100.0
"""A special road that the reporter names may be this far from where the device thinks it is."""

_MOST_SETTLED: Final = 20_000
_LONGEST_CHAIN: Final = 10


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

    def borders_near(self, *, lon: float, lat: float, within_m: float) -> tuple[NearBorder, ...]:
        """All areas with a border so near, nearest first, those that cover the point included."""


@dataclass(slots=True)
class _Place:
    """What is known of one question while it is decided."""

    lon: float
    lat: float
    kind: Category
    reach_m: float
    hits: tuple[int, ...]
    near: tuple[NearBorder, ...]
    as_of: date | None
    refused: Collection[str]
    wide: tuple[NearBorder, ...] | None = None  # `near`, up to a gap's width, if looked at
    doubts: list[str] = field(default_factory=list)  # why the decision is degraded

    def within(self, layer: Layer) -> list[int]:
        """The areas of the layer that cover it."""
        return [hit for hit in self.hits if layer.first <= hit < layer.stop]


class Router:
    """Routes points by one dataset version and one set of rules. Immutable; share it freely.

    Raises `MissingLayer` when the dataset cannot answer for some tier at all.
    """

    def __init__(
        self,
        index: Covering,
        *,
        rules: Rules,
        dataset: str,
        roads: Mapping[str, Mapping[str, Road]] | None = None,
    ) -> None:
        """`roads` says of each roads layer what its areas stand for, by their codes."""
        self._index = index
        self._layers = {layer.name: layer for layer in index.layers}
        self._roads = {
            position: road
            for layer in index.layers
            for position, road in _by_position(index, layer, (roads or {}).get(layer.name, {}))
        }
        self._categories = rules.categories
        self._dataset = dataset
        self._endings = {code: one for one in rules.successions for code in one.ends}
        present = {area.code for area in index.areas}
        present |= {road.body for road in self._roads.values()}
        self._beginnings = {
            after.code: one
            for one in rules.successions
            for after in one.successors
            # a body that the dataset has beside one that ends was there before, and goes on
            if after.code not in present or not present & set(one.ends)
        }
        self._successors = [after for one in rules.successions for after in one.successors]
        self._agreements = {
            code: tuple(one for one in rules.agreements if code in one.categories)
            for code in rules.categories
        }
        self._grounds = {
            code: Grounds(some)
            for code, some in self._agreements.items()
            if any(one.ring for one in some)
        }
        # Where nothing is near, everything at points of the same areas is decided alike.
        self._settled: dict[tuple[str, tuple[int, ...], date | None], Decision] = {}
        for tier in rules.tiers:
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
        as_of: date | None = None,
        refused: Collection[str] = (),
    ) -> Decision:
        """Decide who is responsible for `category` at a WGS 84 point in degrees.

        `accuracy_m` is the radius of the position's uncertainty; `road_ref` is the number of the
        road that it is on, such as "A12"; `chosen` is the code of the candidate that the citizen
        named. `as_of` is the day, in the country's time, whose bodies and agreements count; without
        it every agreement counts, and no succession. `refused` are the codes of bodies that have
        said it is not theirs. Raises `InvalidCoordinate` for a coordinate that is none,
        `UnknownCategory` for a category that the rules do not have, and `NotACandidate` for a
        choice that was not offered.
        """
        kind = self._categories.get(category)
        if kind is None:
            raise UnknownCategory(category, tuple(self._categories))
        doubt_m = DEFAULT_ACCURACY_M if accuracy_m is None else accuracy_m
        reach_m = min(max(LEAST_DOUBT_M, doubt_m), FARTHEST_DOUBT_M)
        if refused:
            reach_m = max(reach_m, GAP_M)
        hits = self._index.covering(lon=lon, lat=lat)
        near = self._index.borders_near(lon=lon, lat=lat, within_m=reach_m)
        grounds = self._grounds_near(lon, lat, category, reach_m, as_of)
        alike = not (near or grounds or refused or road_ref) and bool(hits)
        decision = self._settled.get((category, hits, as_of)) if alike else None
        if decision is None:
            place = _Place(lon, lat, kind, reach_m, hits, near, as_of, refused)
            decision = self._decide(place, grounds, road_ref)
            if alike and place.wide is None:
                if len(self._settled) >= _MOST_SETTLED:
                    self._settled.clear()
                self._settled[category, hits, as_of] = decision
        return decision if chosen is None else choose(decision, chosen)

    def _decide(self, place: _Place, grounds: list[Ground], road_ref: str | None) -> Decision:
        """The areas first, then what outranks them, then what makes the answer less sure."""
        decision = self._by_areas(place)
        roads = self._special_roads(place, road_ref)
        if roads:
            decision = weigh_roads(decision, roads, place.reach_m, road_ref)
        if grounds:
            decision = weigh_grounds(decision, self._bodies_of(grounds, place), place.reach_m)
        if place.refused:
            decision = self._after_refusal(decision, place)
        doubts = [*place.doubts, *self._missing_roads(place, decision)]
        if doubts and decision.state is not DecisionState.OUTSIDE:
            decision = replace(
                decision,
                state=DecisionState.DEGRADED,
                reason="; ".join([decision.reason, *dict.fromkeys(doubts)]),
            )
        return decision

    # --- areas --------------------------------------------------------------------------------

    def _by_areas(self, place: _Place) -> Decision:
        """The first layer that has an answer: areas around the point, or a gap's width away."""
        tier = place.kind.tier
        layers = [
            (rank, self._layers[name])
            for rank, name in enumerate(tier.layers)
            if name in self._layers
        ]
        for rank, layer in layers:
            inside = self._answering([(hit, 0.0) for hit in place.within(layer)], place)
            if inside or not (place.refused or place.within(layer)):
                near = self._near(layer, place, alone=not inside)
                if inside or near:
                    degraded = rank > 0 and not place.refused
                    return self._found(place, inside, near, degraded=degraded)
        for _, layer in layers if place.refused else ():
            near = self._near(layer, place, alone=True)
            if near:
                return self._found(place, [], near, degraded=False)
        swapped = abs(place.lon) <= 90.0 and self._index.covering(lon=place.lat, lat=place.lon)
        return self._decision(
            place,
            DecisionState.OUTSIDE,
            rule="swapped-axes" if swapped and not place.hits else "outside",
            reason="the point is outside the service area"
            + ("; longitude and latitude look swapped" if swapped and not place.hits else ""),
        )

    def _near(self, layer: Layer, place: _Place, *, alone: bool) -> list[Candidate]:
        """Those beside the point; where none covers it, the nearest up to a gap's width away."""
        near = place.near
        if alone:
            if place.wide is None:
                wide_m = max(GAP_M, place.reach_m)
                place.wide = self._index.borders_near(lon=place.lon, lat=place.lat, within_m=wide_m)
            near = place.wide
        inside = place.within(layer)
        beside = [
            (one.area, one.distance_m)
            for one in near
            if layer.first <= one.area < layer.stop and one.area not in inside
        ]
        if alone and (not beside or beside[0][1] > GAP_M):
            return []
        return self._answering(beside, place)

    def _answering(self, areas: list[tuple[int, float]], place: _Place) -> list[Candidate]:
        """Who answers for some areas: by agreement, by succession, without those who refused."""
        found: list[Candidate] = []
        for position, distance_m in areas:
            area = self._index.areas[position]
            if distance_m:
                reason = f"its border is {distance_m:.0f} m away"
            elif areas[1:]:
                reason = "its boundary covers the point, and not alone"
            else:
                reason = "inside its boundary"
            candidate = Candidate(area.code, area.name, area.layer, reason, round(distance_m, 1))
            found += self._bodies(candidate, place, area_codes=(area.code,))
        return found

    def _found(
        self, place: _Place, inside: list[Candidate], near: list[Candidate], *, degraded: bool
    ) -> Decision:
        # of a body split in two, one successor covers the point, the other may only be near
        near = [*(one for one in inside if one.distance_m), *near]
        inside = list(distinct([one for one in inside if not one.distance_m], ()))
        # neighbours for which one body answers are one candidate, and no doubt
        candidates = [*inside, *distinct(sorted(near, key=lambda one: one.distance_m), inside)]
        first, names = candidates[0], [candidate.name for candidate in candidates]
        if not inside:
            rule, state = "nearest-area", DecisionState.DEGRADED
            reason = (
                f"the point is in no area; {first.name}, {first.distance_m:.0f} m away, is nearest"
            )
        elif inside[1:]:
            rule, state = "shared-ground", DecisionState.AMBIGUOUS
            both = " and ".join(one.name for one in inside)
            reason = f"the point belongs to {both} alike; the lowest code comes first"
        elif names[1:]:
            rule, state = "near-border", DecisionState.AMBIGUOUS
            reason = f"{_lies(first)}, and so near to {' and '.join(names[1:])} "
            reason += "that the position may be wrong"
        else:
            rule, state = "covering-area", DecisionState.CERTAIN
            if first.agreement or first.succeeds:
                rule = "successor" if first.succeeds else "agreement"
            reason = _lies(first)
        if degraded:
            rule, state = "fallback-layer", DecisionState.DEGRADED
            wanted = place.kind.tier.layers[0]
            reason += f"; layer {wanted!r}, which decides, gives no answer here"
        question = f"Is it in {' or in '.join(names)}?" if names[1:] else ""
        return self._decision(
            place, state, rule=rule, reason=reason, candidates=tuple(candidates), question=question
        )

    def _decision(
        self,
        place: _Place,
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
            category=place.kind.code,
            tier=place.kind.tier.name,
            dataset=self._dataset,
            candidates=candidates,
            question=question,
            as_of=place.as_of,
        )

    # --- special roads ------------------------------------------------------------------------

    def _special_roads(self, place: _Place, road_ref: str | None) -> list[tuple[Candidate, float]]:
        """The special roads it may be on, by rank and then distance, and how deep inside it is."""
        near = place.near
        if road_ref is not None and place.reach_m < NAMED_ROAD_M:
            near = self._index.borders_near(lon=place.lon, lat=place.lat, within_m=NAMED_ROAD_M)
        found: list[tuple[Candidate, float]] = []
        for rule in place.kind.tier.roads:
            layer = self._layers.get(rule.layer)
            if layer is None:
                continue
            to_border = {
                one.area: one.distance_m for one in near if layer.first <= one.area < layer.stop
            }
            inside = place.within(layer)
            for area in [*inside, *(one for one in to_border if one not in inside)]:
                road = self._roads[area]
                distance_m = 0.0 if area in inside else to_border[area]
                if (
                    not rule.applies_to(road, place.kind.code)
                    or not in_force(place.as_of, valid_from=road.valid_from, valid_to=road.valid_to)
                    or (
                        distance_m > place.reach_m
                        and not (road_ref and same_road(road.number, road_ref))
                    )
                ):
                    continue
                depth_m = 0.0 if distance_m else to_border.get(area, place.reach_m)
                bodies = self._mending(road, rule.layer, distance_m, place)
                found += [(one, depth_m) for one in bodies]
        return found

    def _mending(self, road: Road, layer: str, distance_m: float, place: _Place) -> list[Candidate]:
        """Who mends a road, by agreement and succession, without those who refused."""
        where = f"{distance_m:.0f} m from" if distance_m else "on"
        candidate = Candidate(
            road.body,
            road.body_name,
            layer,
            f"{where} the {road.number}",
            round(distance_m, 1),
            road.number,
        )
        codes = [self._index.areas[hit].code for hit in place.hits]
        return self._bodies(candidate, place, area_codes=codes)

    def _missing_roads(self, place: _Place, decision: Decision) -> list[str]:
        """What the dataset lacks to be sure that it is no special road's."""
        if decision.rule in {"special-road", "road-ref"}:
            return []
        codes = [self._index.areas[hit].code for hit in place.hits] or [
            candidate.code for candidate in decision.candidates
        ]
        return [
            f"the dataset has no roads layer {rule.layer!r}, so it may be on a special road"
            for rule in place.kind.tier.roads
            if rule.layer not in self._layers
            and (not rule.categories or place.kind.code in rule.categories)
            and any(matches(code, rule.required_in) for code in codes)
        ]

    # --- agreements ---------------------------------------------------------------------------

    def _grounds_near(
        self, lon: float, lat: float, category: str, reach_m: float, as_of: date | None
    ) -> list[Ground]:
        grounds = self._grounds.get(category)
        if grounds is None:
            return []
        return [
            ground
            for ground in grounds.near(lon=lon, lat=lat, within_m=reach_m)
            if _counts(ground.agreement, as_of)
        ]

    def _bodies_of(self, grounds: list[Ground], place: _Place) -> list[tuple[Candidate, float]]:
        """The bodies of agreements' grounds, and how deep inside them it is."""
        found: list[tuple[Candidate, float]] = []
        for agreement, distance_m, depth_m in grounds:
            where = f"{distance_m:.0f} m from its ground" if distance_m else "on its ground"
            candidate = Candidate(
                agreement.body,
                agreement.body_name,
                "",
                f"{where} by agreement: {agreement.reason}",
                round(distance_m, 1),
                agreement=agreement.code,
            )
            found += [
                (one, depth_m)
                for one in self._in_being(candidate, place)
                if one.code not in place.refused
            ]
        return found

    def _bodies(
        self, candidate: Candidate, place: _Place, *, area_codes: Collection[str]
    ) -> list[Candidate]:
        """Who answers for the candidate by agreement and succession, without those who refused.

        If whoever answers in its place has refused, it answers itself.
        """
        stand_in = self._stand_in(candidate, place, area_codes=area_codes)
        found = [one for one in self._in_being(stand_in, place) if one.code not in place.refused]
        if found or stand_in is candidate:
            return found
        return [one for one in self._in_being(candidate, place) if one.code not in place.refused]

    def _stand_in(
        self, candidate: Candidate, place: _Place, *, area_codes: Iterable[str]
    ) -> Candidate:
        """The candidate, or the body that answers in its place by agreement."""
        for agreement in self._agreements[place.kind.code]:
            if (
                not agreement.ring
                and _counts(agreement, place.as_of)
                and (
                    any(same_road(candidate.road, one) for one in agreement.roads)
                    if agreement.roads
                    else not candidate.road
                )
                and (
                    not agreement.areas or any(matches(one, agreement.areas) for one in area_codes)
                )
            ):
                return replace(
                    candidate,
                    code=agreement.body,
                    name=agreement.body_name,
                    reason=f"answers for {candidate.name}: {agreement.reason}",
                    agreement=agreement.code,
                )
        return candidate

    # --- successions --------------------------------------------------------------------------

    def _in_being(self, candidate: Candidate, place: _Place) -> list[Candidate]:
        """The candidate, or who has taken over from it by the day asked about."""
        found = [candidate]
        for _ in range(_LONGEST_CHAIN):
            after = [later for one in found for later in self._after(one, place)]
            if after == found:
                break
            found = after
        for one in found:
            begins = self._beginnings.get(one.code)
            if begins is not None and place.as_of is not None and place.as_of < begins.on:
                place.doubts.append(f"{one.name} begins only on {begins.on}")
        return found

    def _after(self, candidate: Candidate, place: _Place) -> list[Candidate]:
        ending = self._endings.get(candidate.code)
        if ending is None or place.as_of is None or place.as_of < ending.on:
            return [candidate]
        heirs = self._heirs(candidate, ending, place)
        found = [
            replace(
                candidate,
                code=heir.code,
                name=heir.name,
                reason=f"took over from {candidate.name} on {ending.on}; {candidate.reason}",
                distance_m=max(candidate.distance_m, round(distance_m, 1)),
                succeeds=candidate.code,
            )
            for heir, distance_m in heirs
        ]
        return sorted(found, key=lambda one: one.distance_m)

    def _heirs(
        self, candidate: Candidate, ending: Succession, place: _Place
    ) -> list[tuple[Successor, float]]:
        """Who takes the ground over that is meant, with how far off theirs is."""
        for heir in ending.successors:
            if not heir.areas or candidate.code in heir.areas:
                return [(heir, 0.0)]
        areas = self._index.areas
        near_by = reversed(place.wide or place.near)
        distances = {areas[one.area].code: one.distance_m for one in near_by}
        distances |= {areas[hit].code: 0.0 for hit in place.hits}
        near = [
            (heir, min(distances[code] for code in heir.areas if code in distances))
            for heir in ending.successors
            if distances.keys() & set(heir.areas)
        ]
        # an area that is merely near does not say who goes on with an agreement or a road
        if any(round(distance_m, 1) <= candidate.distance_m for _, distance_m in near):
            return near
        place.doubts.append(
            f"the dataset cannot tell which successor of {candidate.name} takes this ground over"
        )
        return [(heir, 0.0) for heir in ending.successors]

    # --- refusals -----------------------------------------------------------------------------

    def _after_refusal(self, decision: Decision, place: _Place) -> Decision:
        """The same among the others; nothing is certain any more where somebody was wrong."""
        said = " and ".join(self._names.get(code, code) for code in sorted(place.refused))
        if decision.responsible is None:
            reason = f"{said} said that it is not theirs, and nobody else answers near here"
            return replace(decision, rule="not-ours", reason=reason)
        return replace(
            decision,
            state=DecisionState.AMBIGUOUS,
            rule="not-ours",
            reason=f"{said} said that it is not theirs; {decision.reason}",
            # a special road near by is more likely than the next layer's council
            candidates=tuple(sorted(decision.candidates, key=lambda one: not one.road)),
        )

    @cached_property
    def _names(self) -> dict[str, str]:
        """Of everybody who can be responsible, by code."""
        found = {area.code: area.name for area in self._index.areas}
        found |= {road.body: road.body_name for road in self._roads.values()}
        for some in self._agreements.values():
            found |= {one.body: one.body_name for one in some}
        found |= {one.code: one.name for one in self._successors}
        return found


def _by_position(
    index: Covering, layer: Layer, roads: Mapping[str, Road]
) -> Iterable[tuple[int, Road]]:
    if roads:
        for position in range(layer.first, layer.stop):
            yield position, roads[index.areas[position].code]


def _lies(first: Candidate) -> str:
    """Where the point is, in words, for a candidate that covers it."""
    if first.agreement or first.succeeds:
        return f"{first.name} answers here: {first.reason}"
    return f"the point lies inside {first.name}"


def _counts(agreement: Agreement, as_of: date | None) -> bool:
    return in_force(as_of, valid_from=agreement.valid_from, valid_to=agreement.valid_to)
