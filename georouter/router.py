"""Answers "who is responsible here, for this?" from an index and a catalogue of categories.

The rules are data: a category names its tier, a tier names the layers to ask. The router promises
the same decision for the same input and dataset, names the rule that fired, and never raises for a
place that is merely outside; it does not know authorities by name, endpoints, or the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from georouter.model import (
    Area,
    Candidate,
    Category,
    Decision,
    DecisionState,
    Layer,
    MissingLayer,
    UnknownCategory,
)


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


class Router:
    """Routes points by one dataset version and one catalogue. Immutable; share it freely.

    Raises `MissingLayer` when the dataset cannot answer for some tier at all.
    """

    def __init__(
        self, index: Covering, *, categories: Mapping[str, Category], dataset: str
    ) -> None:
        self._covering = index.covering
        self._areas = index.areas
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

    def route(self, *, lon: float, lat: float, category: str) -> Decision:
        """Decide who is responsible for `category` at a WGS 84 point in degrees.

        Raises `InvalidCoordinate` for a coordinate that is none, `UnknownCategory` for a category
        that the catalogue does not have.
        """
        kind = self._categories.get(category)
        if kind is None:
            raise UnknownCategory(category, tuple(self._categories))
        hits = self._covering(lon=lon, lat=lat)
        if not hits:
            return self._outside(lon, lat, kind)
        for rank, name in enumerate(kind.tier.layers):
            layer = self._layers.get(name)
            if layer is None:
                continue
            found = [self._areas[hit] for hit in hits if layer.first <= hit < layer.stop]
            if found:
                return self._inside(found, kind, degraded=rank > 0)
        return self._decision(
            kind,
            DecisionState.OUTSIDE,
            rule="no-area",
            reason=f"no area of a layer that answers for {kind.tier.name!r} covers this point",
        )

    def _inside(self, found: Sequence[Area], kind: Category, *, degraded: bool) -> Decision:
        shared = len(found) > 1  # a border, or ground that two areas of the layer claim
        why = "its boundary covers the point, and not alone" if shared else "inside its boundary"
        candidates = tuple(
            Candidate(code=area.code, name=area.name, layer=area.layer, reason=why)
            for area in found
        )
        first = candidates[0]
        if degraded:
            state, rule = DecisionState.DEGRADED, "fallback-layer"
            reason = (
                f"layer {kind.tier.layers[0]!r} gives no answer here; "
                f"{first.name} is taken from layer {first.layer!r}"
            )
        elif shared:
            state, rule = DecisionState.AMBIGUOUS, "shared-ground"
            names = " and ".join(candidate.name for candidate in candidates)
            reason = f"the point belongs to {names} alike; the lowest code comes first"
        else:
            state, rule = DecisionState.CERTAIN, "covering-area"
            reason = f"the point lies inside {first.name}"
        return self._decision(kind, state, rule=rule, reason=reason, candidates=candidates)

    def _outside(self, lon: float, lat: float, kind: Category) -> Decision:
        swapped = abs(lon) <= 90.0 and self._covering(lon=lat, lat=lon)
        reason = "the point is outside the service area"
        if swapped:
            reason += "; longitude and latitude look swapped"
        return self._decision(
            kind,
            DecisionState.OUTSIDE,
            rule="swapped-axes" if swapped else "outside",
            reason=reason,
        )

    def _decision(
        self,
        kind: Category,
        state: DecisionState,
        *,
        rule: str,
        reason: str,
        candidates: tuple[Candidate, ...] = (),
    ) -> Decision:
        return Decision(
            state=state,
            rule=rule,
            reason=reason,
            category=kind.code,
            tier=kind.tier.name,
            dataset=self._dataset,
            candidates=candidates,
        )
