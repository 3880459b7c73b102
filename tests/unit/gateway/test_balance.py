"""Choices are by weight, among what is allowed, and the least loaded where that is asked for."""

from collections import Counter
from dataclasses import dataclass
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.domain.routes import Routing
from clary.gateway.balance import Weighted, choose_target


@dataclass(eq=False)
class Place:
    outstanding: int = 0


chances = st.floats(0, 1, exclude_max=True)
routings: st.SearchStrategy[Routing] = st.sampled_from(["RANDOM", "LEAST_OUTSTANDING_REQUESTS"])
loads = st.lists(st.integers(0, 5), max_size=20)


@given(st.lists(st.floats(0, 1e6)), chances)
def test_only_what_has_weight_is_chosen(weights: list[float], chance: float) -> None:
    chosen = Weighted(list(enumerate(weights))).choose(lambda: chance)
    if any(weight > 0 for weight in weights):
        assert chosen is not None
        assert weights[chosen] > 0
    else:
        assert chosen is None


@given(st.lists(st.integers(0, 10), min_size=1, max_size=5).filter(any))
def test_shares_follow_the_weights(weights: list[int]) -> None:
    choice = Weighted([(place, float(weight)) for place, weight in enumerate(weights)])
    total = sum(weights)
    # Evenly spread chances hit each share exactly as often as its weight says.
    got = Counter(choice.choose(lambda part=part: (part + 0.5) / total) for part in range(total))  # type: ignore[misc]
    assert [got[place] for place in range(len(weights))] == weights


@given(loads, routings, st.lists(chances, min_size=4, max_size=4), st.sets(st.integers(0, 19)))
def test_a_target_is_found_whenever_one_is_left(
    outstanding: list[int], routing: Routing, draws: list[float], tried: set[int]
) -> None:
    places = [Place(load) for load in outstanding]
    without = tuple(place for number, place in enumerate(places) if number in tried)
    chosen = choose_target(places, routing, iter(draws).__next__, without)
    allowed = [place for place in places if place not in without]
    assert chosen in allowed if allowed else chosen is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), chances)
def test_of_a_few_the_least_loaded_is_chosen(outstanding: list[int], chance: float) -> None:
    chosen = choose_target(
        [Place(load) for load in outstanding], "LEAST_OUTSTANDING_REQUESTS", lambda: chance
    )
    assert chosen is not None
    assert chosen.outstanding == min(outstanding)


@given(st.lists(st.integers(0, 5), min_size=9, max_size=20), chances, chances)
def test_of_many_two_different_ones_are_compared(outstanding: list[int], one: float, other: float) -> None:
    places = [Place(load) for load in outstanding]
    chosen = choose_target(places, "LEAST_OUTSTANDING_REQUESTS", iter([one, other]).__next__)
    assert chosen is not None
    assert chosen.outstanding < max(outstanding) or outstanding.count(max(outstanding)) > 1


def test_equally_loaded_targets_share_evenly() -> None:
    random = Random(7)
    places = [Place() for _ in range(4)]
    for _ in range(400):
        chosen = choose_target(places, "LEAST_OUTSTANDING_REQUESTS", random.random)
        assert chosen is not None
        chosen.outstanding += 1
    assert {place.outstanding for place in places} == {100}


def test_H11_a_hundred_thousand_requests_are_shared_90_to_10_within_three_sigma() -> None:
    random = Random(90_10)
    choice = Weighted([("A", 90.0), ("B", 10.0)])
    drawn = Counter(choice.choose(random.random) for _ in range(100_000))
    assert abs(drawn["B"] - 10_000) <= 3 * sqrt(100_000 * 0.9 * 0.1)


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_H11_random_routing_is_even_within_three_sigma(count: int) -> None:
    random = Random(count)
    places = [Place(load) for load in range(count)]
    drawn = Counter(id(choose_target(places, "RANDOM", random.random)) for _ in range(20_000))
    allowed = 3 * sqrt(20_000 * (1 / count) * (1 - 1 / count))
    assert all(abs(drawn[id(place)] - 20_000 / count) <= allowed for place in places)


@pytest.mark.parametrize("count", [3, 20])
def test_H11_least_outstanding_requests_spares_a_slow_target(count: int) -> None:
    """A target that takes ten times as long gets about a tenth, and nobody's queue grows."""
    random = Random(count)
    places = [Place() for _ in range(count)]
    ends: list[tuple[int, Place]] = []
    taken: Counter[int] = Counter()
    for now in range(4_000):
        for end in [each for each in ends if each[0] <= now]:
            ends.remove(end)
            end[1].outstanding -= 1
        chosen = choose_target(places, "LEAST_OUTSTANDING_REQUESTS", random.random)
        assert chosen is not None
        chosen.outstanding += 1
        taken[places.index(chosen)] += 1
        ends.append((now + (10 * count if chosen is places[0] else count), chosen))
    others = sum(taken.values()) - taken[0]
    assert taken[0] < 0.4 * others / (count - 1)
    assert max(place.outstanding for place in places) <= 6


def test_random_routing_reaches_every_target() -> None:
    random = Random(7)
    places = [Place(load) for load in (0, 100, 5)]
    got = Counter(
        places.index(choose_target(places, "RANDOM", random.random) or places[0]) for _ in range(300)
    )
    assert min(got.values()) > 60
