"""Shares and weights while fleets lie in layers, and how far each step goes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.domain import shifting
from clary.domain.deployments import CapacitySize
from clary.domain.endpoints import Fleet, Slot
from clary.domain.instances import InstanceId, InstanceStatus
from clary.domain.places import InstanceRow, Standing
from clary.domain.routes import Capture
from clary.domain.traffic import Layer, Traffic, traffic
from control.world import fleet, policy, variant

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def standing(*fleets: Fleet, dead: tuple[str, ...] = ()) -> Standing:
    """Every instance of the fleets is ready, except those that are dead: `g/a/0`."""
    rows, statuses = [], {}
    for each in fleets:
        for v in (*each.variants, *each.shadows):
            for ordinal in range(v.count):
                id_ = InstanceId(f"{each.id}/{v.name}/{ordinal}")
                phase = "exited" if id_ in dead else "ready"
                rows.append(
                    InstanceRow(id_, Slot(each.id, v.name, ordinal), True, True, phase, 0, NOW)  # type: ignore[arg-type]
                )
                statuses[id_] = InstanceStatus(id_, phase, address=f"unix:/{id_}")  # type: ignore[arg-type]
    return Standing(rows, statuses, NOW)


def parts(found: Traffic) -> dict[tuple[str, str], float]:
    """(fleet, variant) → its part of the whole traffic."""
    total = sum(route.weight * route.share for route in found.variants)
    return {(r.fleet, r.name): round(r.weight * r.share / total, 6) for r in found.variants}


def test_one_fleet_has_its_weights_as_they_were_configured() -> None:
    old = fleet("f", variant("a", 1, 3.0), variant("b", 2, 0.0))
    found = traffic([Layer(old)], standing(old))
    assert [(r.name, r.weight, r.share, r.config_name) for r in found.variants] == [
        ("a", 3.0, 1.0, ""),
        ("b", 0.0, 1.0, ""),
    ]


def test_D02_weights_of_both_fleets_are_parts_of_the_same_traffic() -> None:
    """Blue 3:1, green 100:300: at half the way each variant has the mean of both parts."""
    old = fleet("f", variant("a", 2, 3.0), variant("b", 2, 1.0))
    new = fleet("g", variant("a", 2, 100.0), variant("b", 2, 300.0))
    half = {"a": 1, "b": 1}
    found = traffic([Layer(old), Layer(new, None, half, is_traced=True)], standing(old, new))
    assert parts(found) == {
        ("f", "a"): 0.375,
        ("f", "b"): 0.125,
        ("g", "a"): 0.125,
        ("g", "b"): 0.375,
    }
    assert {r.share for r in found.variants} == {0.5}
    assert {r.config_name for r in found.variants} == {"", "config-g"}


def test_D02_a_variant_of_one_fleet_has_that_fleets_part() -> None:
    old = fleet("f", variant("a", 2, 1.0), variant("gone", 2, 1.0))
    new = fleet("g", variant("a", 4, 1.0), variant("new", 4, 3.0))
    quarter = {"a": 1, "new": 1}
    found = traffic([Layer(old), Layer(new, None, quarter)], standing(old, new))
    assert parts(found) == {
        ("f", "a"): 0.375,
        ("f", "gone"): 0.375,
        ("g", "a"): 0.0625,
        ("g", "new"): 0.1875,
    }
    shares = {(r.fleet, r.name): r.share for r in found.variants}
    assert shares[("f", "gone")] == shares[("g", "new")] == 1.0


@pytest.mark.parametrize(
    ("dead", "share"), [((), 0.5), (("g/a/0",), 0.5), (("g/a/0", "g/a/1", "g/a/2"), 0.25)]
)
def test_H14_what_is_not_ready_takes_nothing_while_another_fleet_can(
    dead: tuple[str, ...], share: float
) -> None:
    old, new = fleet("f", variant("a", 4)), fleet("g", variant("a", 4))
    found = traffic([Layer(old), Layer(new, None, {"a": 2})], standing(old, new, dead=dead))
    assert parts(found) == {("f", "a"): 1 - share, ("g", "a"): share}
    green = found.variants[1]
    assert len(green.targets) == 4 * share
    assert not {t.instance_id for t in green.targets} & set(dead)


def test_H14_where_no_other_fleet_can_the_route_stays_as_it_was_shifted() -> None:
    old, new = fleet("f", variant("a", 1)), fleet("g", variant("a", 1))
    dead = ("f/a/0", "g/a/0")
    found = traffic([Layer(old, {"a": 0}), Layer(new, None, {"a": 1})], standing(old, new, dead=dead))
    assert [(r.fleet, r.share, r.targets) for r in found.variants] == [("g", 1.0, ())]


def test_D04_old_instances_beyond_those_that_are_kept_get_nothing() -> None:
    old, new = fleet("f", variant("a", 4)), fleet("g", variant("a", 4))
    found = traffic([Layer(old, {"a": 2}), Layer(new, {"a": 2}, {"a": 2})], standing(old, new))
    assert [[t.instance_id for t in r.targets] for r in found.variants] == [
        ["f/a/0", "f/a/1"],
        ["g/a/0", "g/a/1"],
    ]


@pytest.mark.parametrize(
    ("production", "shadow", "fraction"),
    [(1.0, 0.5, 0.5), (1.0, 3.0, 1.0), (4.0, 1.0, 0.25), (0.0, 1.0, 0.0)],
)
def test_D08_the_fraction_of_a_shadow_is_relative_to_production(
    production: float, shadow: float, fraction: float
) -> None:
    old = fleet("f", variant("a", 1, production), shadows=(variant("s", 1, shadow),))
    (copied,) = traffic([Layer(old)], standing(old)).shadows
    assert (copied.weight, len(copied.targets)) == (fraction, 1)


def test_G01_capture_changes_when_the_new_fleet_takes_everything() -> None:
    old = fleet("f", variant("a", 2))
    new = Fleet("g", "c", (variant("a", 2),), capture=Capture("s3://b/p", 100.0))
    stands = standing(old, new)
    assert traffic([Layer(old), Layer(new, None, {"a": 1})], stands).capture is None
    assert traffic([Layer(old), Layer(new, None, {"a": 2})], stands).capture == new.capture


COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=3)
SIZES = st.one_of(
    st.builds(CapacitySize, st.just("INSTANCE_COUNT"), st.integers(1, 6)),
    st.builds(CapacitySize, st.just("CAPACITY_PERCENT"), st.integers(5, 50)),
)


@given(old=COUNTS, new=COUNTS, size=SIZES, shift=st.integers(0, 2))
def test_D04_a_rolling_update_neither_loses_capacity_nor_doubles_it(
    old: list[int], new: list[int], size: CapacitySize, shift: int
) -> None:
    blue = fleet("f", *(variant(f"v{n}", count) for n, count in enumerate(old)))
    green = fleet("g", *(variant(f"v{n + shift}", count) for n, count in enumerate(new)))
    how = policy("ROLLING", f"{size.value}%" if size.type == "CAPACITY_PERCENT" else size.value)
    activated: dict[str, int] = {}
    kept = shifting.counts(blue)
    for _ in range(40):
        if shifting.is_whole(green, activated):
            break
        wanted = shifting.next_activation(how, green, activated)
        for v in green.variants:
            theirs = blue.variant(v.name)
            if theirs is not None and theirs.count == v.count:
                assert wanted[v.name] + kept[v.name] <= v.count + size.of(v.count)
        activated, kept = wanted, shifting.retained(blue, green, wanted)
        for v in green.variants:
            theirs = blue.variant(v.name)
            if theirs is not None:
                assert activated[v.name] + kept[v.name] >= min(theirs.count, v.count)
    assert activated == shifting.counts(green)
    assert not any(kept.values())


@given(old=COUNTS, new=COUNTS, size=SIZES, done=st.integers(0, 12))
def test_D06_the_way_back_loses_no_capacity_and_ends(
    old: list[int], new: list[int], size: CapacitySize, done: int
) -> None:
    blue = fleet("f", *(variant(f"v{n}", count) for n, count in enumerate(old)))
    green = fleet("g", *(variant(f"v{n}", count) for n, count in enumerate(new)))
    activated = {v.name: min(done, v.count) for v in green.variants}
    kept = shifting.retained(blue, green, activated)
    how = policy("ROLLING", 1, rollback_step=size)
    for _ in range(60):
        if kept == shifting.counts(blue):
            break
        kept = shifting.restored(how, blue, kept)
        activated = shifting.still_activated(blue, green, activated, kept)
        for v in green.variants:
            if (theirs := blue.variant(v.name)) is not None and theirs.count == v.count:
                assert activated[v.name] + kept[v.name] >= v.count
    assert kept == shifting.counts(blue)
    assert not any(shifting.still_activated(blue, green, activated, kept).values())
