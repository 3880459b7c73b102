"""A variant's name behind which two fleets stand: shares, what is drawn, and what never takes traffic."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from math import sqrt
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.gateway.plans import EndpointPlan
from clary.gateway.routes import RouteTable
from clary.gateway.ties import by_key
from clary.telemetry.metrics import Recorder

KEY = EndpointKey("1", "r", "ep")


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def targets(fleet: str, count: int) -> tuple[Target, ...]:
    return tuple(Target(InstanceId(f"i-{fleet}-{n}"), f"unix:/none/{fleet}/{n}") for n in range(count))


def fleet(
    variant: str, of: str, share: float = 1.0, *, weight: float = 1.0, instances: int = 1, config: str = ""
) -> VariantRoute:
    there = targets(f"{variant}-{of}", instances)
    return VariantRoute(variant, weight, there, fleet=of, share=share, config_name=config)


def with_plan(*variants: VariantRoute, shadows: Sequence[VariantRoute] = ()) -> EndpointPlan:
    async def make() -> EndpointPlan:
        table = RouteTable(Recorder("test", Noon()), asyncio.get_running_loop())
        table.replace(1, [EndpointRoute(KEY, "ep", "u", 1, variants, shadows=tuple(shadows))])
        plan = table.find(KEY)
        assert plan is not None
        return plan

    return asyncio.run(make())


def drawn(plan: EndpointPlan, count: int = 20_000) -> Counter[tuple[str, str]]:
    random = Random(7)
    chosen = (plan.any_variant.choose(random.random) for _ in range(count))
    return Counter((each.name, each.fleet) for each in chosen if each is not None)


def is_about(got: int, part: float, count: int = 20_000) -> bool:
    return abs(got - count * part) <= 3 * sqrt(count * part * (1 - part))


def test_D02_a_canary_has_its_share_of_its_variant_only() -> None:
    plan = with_plan(
        fleet("A", "blue", 0.9, weight=3, instances=9),
        fleet("A", "green", 0.1, weight=3, instances=1),
        fleet("B", "blue", weight=1),
    )
    got = drawn(plan)
    assert is_about(got["A", "blue"], 0.75 * 0.9)
    assert is_about(got["A", "green"], 0.75 * 0.1)
    assert is_about(got["B", "blue"], 0.25)


def test_D02_a_named_variant_is_divided_by_share() -> None:
    plan = with_plan(
        fleet("A", "blue", 0.8, weight=0), fleet("A", "green", 0.2, weight=0), fleet("B", "blue")
    )
    random = Random(3)
    got = Counter(plan.variants["A"].choose(random.random).fleet for _ in range(20_000))
    assert is_about(got["green"], 0.2)


def test_D02_a_fleet_without_an_instance_leaves_its_share_to_the_other_of_its_name() -> None:
    plan = with_plan(
        fleet("A", "blue", 0.5, weight=3, instances=0), fleet("A", "green", 0.5, weight=3), fleet("B", "blue")
    )
    got = drawn(plan)
    assert is_about(got["A", "green"], 0.75)
    assert plan.variants["A"].choose(Random(1).random).fleet == "green"


@pytest.mark.parametrize("instances", [0, 2])
def test_D01_a_fleet_without_a_share_takes_nothing_even_alone(instances: int) -> None:
    plan = with_plan(fleet("A", "blue", 1.0, instances=instances), fleet("A", "green", 0.0, instances=3))
    assert set(drawn(plan, 200)) <= {("A", "blue")}
    chosen = plan.variants["A"].choose(Random(1).random)
    assert (chosen.fleet, len(chosen.targets)) == ("blue", instances)
    assert by_key("user", plan, plan.variants["A"]) in ((chosen,) if instances else (None,))


def test_D02_a_variant_that_is_only_in_the_new_fleet_keeps_what_its_share_says() -> None:
    got = drawn(with_plan(fleet("A", "blue", 1.0, weight=9), fleet("New", "green", 0.1, weight=10)))
    assert is_about(got["New", "green"], 0.1)


def test_D02_a_variant_that_is_not_in_force_yet_cannot_be_named() -> None:
    plan = with_plan(fleet("A", "blue"), fleet("New", "green", 0.0))
    assert plan.variants["A"].is_in_force
    assert not plan.variants["New"].is_in_force


def test_D07_all_active_instances_of_a_variant_share_its_load() -> None:
    plan = with_plan(
        fleet("A", "blue", 0.9, instances=9),
        fleet("A", "green", 0.1, instances=1, config="new"),
        fleet("B", "blue"),
    )
    blue, green = plan.variants["A"].plans
    assert (blue.meter.instances, green.meter.instances) == (10, 10)
    assert (blue.meter.fleet_instances, green.meter.fleet_instances) == (9, 1)
    assert blue.meter is not green.meter
    idle = with_plan(fleet("A", "blue", 1.0, instances=9), fleet("A", "green", 0.0, instances=9))
    assert idle.variants["A"].plans[0].meter.instances == 9


def test_D08_shadows_cannot_be_named_or_drawn() -> None:
    plan = with_plan(fleet("A", "blue"), shadows=[fleet("Shadow", "blue", weight=1.0)])
    assert list(plan.variants) == ["A"]
    assert set(drawn(plan, 100)) == {("A", "blue")}
    assert [shadow.name for shadow in plan.shadows] == ["Shadow"]
    assert not plan.is_plain


def test_D02_what_was_counted_of_a_fleet_that_leaves_is_not_lost() -> None:
    async def run() -> None:
        recorder = Recorder("test", Noon())
        table = RouteTable(recorder, asyncio.get_running_loop())
        table.replace(
            1, [EndpointRoute(KEY, "ep", "u", 1, (fleet("A", "blue", 0.5), fleet("A", "green", 0.5)))]
        )
        plan = table.find(KEY)
        assert plan is not None
        blue, green = plan.variants["A"].plans
        table.change(2, [EndpointRoute(KEY, "ep", "u", 2, (fleet("A", "green"),))], [])
        blue.meter.answered(0.001, 0.0)  # it was under way
        green.meter.answered(0.001, 0.0)
        table.flush_meters()
        batch = recorder.drain()
        assert batch is not None
        assert sum(point.sum for point in batch.points if point.name == "Invocations") == 2

    asyncio.run(run())


shares = st.lists(
    st.tuples(st.floats(0.01, 10), st.floats(0, 1), st.integers(0, 2), st.integers(0, 2)),
    min_size=1,
    max_size=4,
)


@given(shares)
@settings(max_examples=60, deadline=None)
def test_D02_fleets_divide_what_their_variant_has(variants: list[tuple[float, float, int, int]]) -> None:
    routes = []
    for number, (weight, share, blue, green) in enumerate(variants):
        routes.append(fleet(f"V{number}", "blue", 1 - share, weight=weight, instances=blue))
        routes.append(fleet(f"V{number}", "green", share, weight=weight, instances=green))
    plan = with_plan(*routes)
    for number, (weight, share, blue, green) in enumerate(variants):
        mine = [(each, part) for each, part in plan.weighted if each.name == f"V{number}"]
        assert all(each.targets and each.share > 0 for each, _ in mine)
        can_serve = (blue and share < 1) or (green and share > 0)
        assert sum(part for _, part in mine) == pytest.approx(weight if can_serve else 0)


@given(st.text(max_size=10), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_H12_a_growing_fleet_only_draws_users_to_itself(key: str, one: float, other: float) -> None:
    less, more = sorted((one, other))

    def place(share: float) -> tuple[str, str] | None:
        plan = with_plan(
            fleet("A", "blue", 1 - share, weight=2), fleet("A", "green", share, weight=2), fleet("B", "blue")
        )
        chosen = by_key(key, plan, None)
        return (chosen.name, chosen.fleet) if chosen else None

    before, after = place(less), place(more)
    assert before is not None
    assert after is not None
    assert before[0] == after[0]
    assert before[1] == after[1] or after[1] == "green"
