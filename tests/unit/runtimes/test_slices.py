"""Large inputs are cut up at whole rows, and their scores come in the rows' order."""

import threading
from array import array

import pytest

from clary.runtimes.slices import Slices


def doubled(values: "array[float]") -> list[float]:
    return [2.0 * value for value in values]


def test_scores_come_in_the_order_of_the_rows() -> None:
    given: list[list[float]] = []

    def predict(values: "array[float]") -> list[float]:
        given.append(values.tolist())
        return doubled(values)

    values = array("d", range(26))  # thirteen rows of two
    assert Slices(3, rows=4).predict(predict, values, 2) == doubled(values)
    assert sorted(map(len, given)) == [2, 8, 8, 8]
    assert all(each[0] % 8 == 0 for each in given), "each begins at its own rows"


@pytest.mark.parametrize(("threads", "rows"), [(1, 100), (3, 7)])
def test_one_thread_and_small_inputs_stay_where_they_are(threads: int, rows: int) -> None:
    def predict(values: "array[float]") -> list[float]:
        assert threading.current_thread() is asked_in
        return doubled(values)

    asked_in = threading.current_thread()
    values = array("d", range(rows))
    assert Slices(threads, rows=4).predict(predict, values, 1) == doubled(values)


def test_what_predicts_may_fail() -> None:
    def predict(values: "array[float]") -> list[float]:
        raise ValueError("no such rows")

    with pytest.raises(ValueError, match="no such rows"):
        Slices(2, rows=1).predict(predict, array("d", range(4)), 1)
