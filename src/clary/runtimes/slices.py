"""Large inputs, cut up and predicted on several threads: for libraries that leave Python while they predict.

It knows no model: what predicts is handed in with every call, so that nothing here keeps an unloaded model alive.
"""

from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Predict = Callable[["array[float]"], list[float]]


class Slices:
    """From twice `rows` rows on an input is cut up; with one thread never."""

    def __init__(self, threads: int, rows: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rows") if threads > 1 else None
        self._rows = rows

    def predict(self, predict: Predict, values: "array[float]", features: int) -> list[float]:
        """Scores of all rows, in their order. Raises what `predict` raises."""
        size = self._rows * features
        if self._pool is None or len(values) < 2 * size:
            return predict(values)
        slices = [values[start : start + size] for start in range(0, len(values), size)]
        return [score for part in self._pool.map(predict, slices) for score in part]
