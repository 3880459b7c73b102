"""Sticky keys: shares by weight, and as few users moved as a change asks for."""

from collections import Counter
from math import sqrt

from hypothesis import example, given, settings
from hypothesis import strategies as st

from clary.gateway.sticky import choose, preferred, ranked

KEYS = [f"user-{number}" for number in range(20_000)]

weights = st.lists(st.floats(0, 100), min_size=1, max_size=5)
keys = st.text(max_size=20)


def chosen(key: str, by_weight: dict[str, float]) -> str | None:
    return choose(key, ((name, name, weight) for name, weight in by_weight.items()))


def test_H12_keys_are_shared_by_weight_within_three_sigma() -> None:
    got = Counter(chosen(key, {"A": 90, "B": 10}) for key in KEYS)
    assert abs(got["B"] - 2_000) <= 3 * sqrt(20_000 * 0.9 * 0.1)
    three = Counter(chosen(key, {"A": 1, "B": 2, "C": 5}) for key in KEYS)
    for name, part in (("A", 1 / 8), ("B", 2 / 8), ("C", 5 / 8)):
        assert abs(three[name] - 20_000 * part) <= 3 * sqrt(20_000 * part * (1 - part))


def test_H12_a_weight_that_grows_moves_exactly_the_users_it_must() -> None:
    before = {key: chosen(key, {"A": 50, "B": 50}) for key in KEYS}
    after = {key: chosen(key, {"A": 50, "B": 75}) for key in KEYS}
    moved = Counter((before[key], after[key]) for key in KEYS if before[key] != after[key])
    assert set(moved) == {("A", "B")}
    assert abs(moved["A", "B"] - 2_000) <= 3 * sqrt(20_000 * 0.1 * 0.9)  # from 50 % to 60 %


@given(keys, weights, st.data())
@settings(max_examples=100, deadline=None)
def test_H12_only_users_of_the_weight_that_changes_move(
    key: str, given: list[float], data: st.DataObject
) -> None:
    by_name = {str(number): weight for number, weight in enumerate(given)}
    changed = data.draw(st.sampled_from(sorted(by_name)))
    other = {**by_name, changed: data.draw(st.floats(0, 100))}
    before, after = chosen(key, by_name), chosen(key, other)
    assert before == after or changed in (before, after)
    assert chosen(key, dict(reversed(by_name.items()))) == before  # the order means nothing


@given(keys, weights)
@example("user", [5e-324])
@settings(max_examples=60, deadline=None)
def test_H12_only_what_has_weight_is_chosen(key: str, given: list[float]) -> None:
    by_name = {str(number): weight for number, weight in enumerate(given)}
    found = chosen(key, by_name)
    assert (found is None) == (not any(given))
    assert found is None or by_name[found] > 0


@given(keys, st.sets(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_H12_an_instance_that_goes_moves_only_its_own_users(key: str, instances: set[str]) -> None:
    there = [(name, name) for name in sorted(instances)]
    first = preferred(key, there)
    for gone in instances:
        left = [pair for pair in there if pair[0] != gone]
        assert preferred(key, left) == (first if gone != first else preferred(key, left))
        assert gone == first or preferred(key, left) == first
    assert preferred(key, []) is None


@given(st.text(max_size=8), st.lists(st.integers(0, 50), unique=True, max_size=8))
def test_M01_an_order_is_that_of_preference_with_those_before_taken_away(
    key: str, choices: list[int]
) -> None:
    left = [(each, str(each)) for each in choices]
    for each in ranked(key, left):
        assert preferred(key, left) == each
        left.remove((each, str(each)))
    assert left == []
