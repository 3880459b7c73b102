"""Who gets which part of an endpoint's traffic, and where it goes: routes made from fleets.

Fleets lie in layers: the oldest takes everything, and each later one takes from those below the share that its
activated instances are of all that it has, variant by variant. So with k of N instances of a variant activated, the
new fleet has k/N of that variant's traffic, whether it is drawn by weight or named.

Weights may differ between the fleets. Each fleet's are taken as parts of their sum, so that what moves from one
fleet to another is the same part of the whole traffic; a variant that only one fleet has gets that fleet's part of
the whole. With one layer that takes everything, weights stand in the route as they were configured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from clary.domain.endpoints import Fleet, Variant
from clary.domain.instances import InstanceStatus
from clary.domain.places import Standing
from clary.domain.routes import Capture, Target, VariantRoute


@dataclass(frozen=True, slots=True)
class Layer:
    """Of each variant, `placed` instances there are (places below that ordinal), and `activated` take traffic.

    None means all of them. `is_traced`: its metrics are counted with the name of its configuration as well.
    """

    fleet: Fleet
    placed: Mapping[str, int] | None = None
    activated: Mapping[str, int] | None = None
    is_traced: bool = False

    def places(self, variant: Variant) -> int:
        return variant.count if self.placed is None else self.placed.get(variant.name, variant.count)

    def active(self, variant: Variant) -> int:
        if self.activated is None:
            return self.places(variant)
        return min(self.activated.get(variant.name, 0), self.places(variant))

    @property
    def is_whole(self) -> bool:
        return all(self.active(variant) >= variant.count for variant in self.fleet.variants)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What gateways should know of an endpoint, apart from what it is called."""

    variants: tuple[VariantRoute, ...]
    shadows: tuple[VariantRoute, ...] = ()
    capture: Capture | None = None

    def shares(self, new: str) -> dict[str, float]:
        """For people: each variant's part of the whole traffic, of the fleet `new` and of what was there before."""
        total = sum(route.weight * route.share for route in self.variants)
        found: dict[str, float] = {}
        for route in self.variants:
            label = f"{route.name} ({'new' if route.fleet == new else 'old'})"
            part = route.weight * route.share / total if total else 0.0
            found[label] = round(found.get(label, 0.0) + part, 4)
        return found


def traffic(layers: Sequence[Layer], standing: Standing) -> Traffic:
    """The oldest layer comes first. Shadows and capture are those of the newest fleet that is wholly activated."""
    parts = _parts(layers, standing)
    settled = next((layer for layer in reversed(layers) if layer.is_whole), layers[0])
    return Traffic(
        tuple(_variants(layers, parts, standing)), _shadows(settled, standing), settled.fleet.capture
    )


def _parts(layers: Sequence[Layer], standing: Standing) -> list[dict[str, float]]:
    """Layer by layer, what each variant's name has of its own traffic. Of one that all layers have, they sum to 1."""
    parts: list[dict[str, float]] = []
    for layer in layers:
        own = {v.name: _own_part(layer, v, layers[: len(parts)], standing) for v in layer.fleet.variants}
        whole = _whole_part(layer, own)
        for below in parts:
            for name in below:
                below[name] *= 1.0 - own.get(name, whole)
        parts.append(own)
    return parts


def _own_part(layer: Layer, variant: Variant, below: Sequence[Layer], standing: Standing) -> float:
    """What this fleet takes of the variant. What is not ready takes nothing, where others can take it instead."""
    if not below:
        return 1.0
    active = layer.active(variant)
    if any(_ready(lower, theirs, standing) for lower in below for theirs in _named(lower, variant.name)):
        active = len(_ready(layer, variant, standing))
    return active / variant.count


def _whole_part(layer: Layer, own: Mapping[str, float]) -> float:
    """What this fleet takes of everything: for variants that it does not have."""
    weights = _normal_weights(layer.fleet)
    if min(own.values()) == max(own.values()):
        return max(own.values())  # exactly, so that nothing is left below a fleet that takes everything
    if not any(weights.values()):
        return sum(own.values()) / len(own)
    return sum(weights[name] * part for name, part in own.items())


def _variants(
    layers: Sequence[Layer], parts: Sequence[Mapping[str, float]], standing: Standing
) -> Iterable[VariantRoute]:
    is_mixed = sum(any(part.values()) for part in parts) > 1
    totals: dict[str, float] = {}
    for part in parts:
        for name, share in part.items():
            totals[name] = totals.get(name, 0.0) + share
    for layer, part in zip(layers, parts, strict=True):
        normal = _normal_weights(layer.fleet)
        for variant in layer.fleet.variants:
            share = part[variant.name]
            if share > 0.0:
                weight = normal[variant.name] * totals[variant.name] if is_mixed else variant.weight
                yield _variant_route(layer, variant, weight, share / totals[variant.name], standing)


def _variant_route(
    layer: Layer, variant: Variant, weight: float, share: float, standing: Standing
) -> VariantRoute:
    ready = _ready(layer, variant, standing)
    # A script of the user's may have done things before it failed: only ours may be asked again, or in company.
    announced = any("SAGEMAKER_PROGRAM" in environment for environment in variant.environments)
    is_ours = not announced and not any(s.runs_script for s in ready)
    return VariantRoute(
        name=variant.name,
        weight=weight,
        targets=tuple(Target(s.instance_id, s.address, addresses=s.addresses) for s in ready),
        routing=variant.routing,
        container=variant.container,
        retries_elsewhere=is_ours,
        pipelines=is_ours,
        fleet=layer.fleet.id,
        share=share,
        config_name=layer.fleet.config_name if layer.is_traced else "",
        containers=tuple(each.name for each in variant.containers),
        is_direct=variant.is_direct,
        models="" if variant.models is None else variant.models.prefix,
        keeps_models=variant.models is None or variant.models.is_cached,
    )


def _shadows(layer: Layer, standing: Standing) -> tuple[VariantRoute, ...]:
    """Copies are drawn from all requests: the weight says how many, beside the weight of production."""
    production = sum(variant.weight for variant in layer.fleet.variants)
    return tuple(
        _variant_route(
            replace(layer, activated=None),
            shadow,
            min(1.0, shadow.weight / production) if production else 0.0,
            1.0,
            standing,
        )
        for shadow in layer.fleet.shadows
        if layer.places(shadow)
    )


def _ready(layer: Layer, variant: Variant, standing: Standing) -> list[InstanceStatus]:
    """As many ready ones as are activated: while one of them is replaced, another takes its part."""
    return standing.ready(layer.fleet, variant, layer.places(variant))[: layer.active(variant)]


def _named(layer: Layer, name: str) -> tuple[Variant, ...]:
    variant = layer.fleet.variant(name)
    return () if variant is None else (variant,)


def _normal_weights(fleet: Fleet) -> dict[str, float]:
    total = sum(variant.weight for variant in fleet.variants)
    return {variant.name: variant.weight / total if total else 0.0 for variant in fleet.variants}
