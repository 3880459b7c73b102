"""The demo's table: scikit-learn's diabetes set, or any CSV file whose last column is to be predicted."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clary.cli import CommandError

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Table:
    """Features (rows × columns) and target of a regression, float32; every fourth row, shuffled, is for testing."""

    name: str
    target: str
    features: Matrix
    values: Matrix

    def split(self) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """Train features, train values, test features, test values; the same split every time."""
        order = np.random.default_rng(7).permutation(len(self.values))
        test, train = order[: len(order) // 4], order[len(order) // 4 :]
        return self.features[train], self.values[train], self.features[test], self.values[test]


def diabetes() -> Table:
    from sklearn.datasets import load_diabetes  # heavy, and only needed without --data

    found = load_diabetes(scaled=False)
    return Table(
        "diabetes", "disease progression", found.data.astype("float32"), found.target.astype("float32")
    )


def from_csv(path: Path) -> Table:
    """Reads a CSV file. Columns of words become whole numbers, in the words' order."""
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error
    if len({len(row) for row in rows}) != 1 or len(rows) < 20 or len(rows[0]) < 2:
        raise CommandError(
            f"{path} is no table of at least 20 rows and 2 columns, each row as long as the others"
        )
    header = rows.pop(0) if not any(_is_number(cell) for cell in rows[0]) else None
    columns = [_column(path, [row[i] for row in rows]) for i in range(len(rows[0]))]
    if not all(_is_number(row[-1]) for row in rows):
        raise CommandError(
            f"the last column of {path} is what the demo predicts, and it holds words: it must hold numbers"
        )
    target = header[-1] if header else "the last column"
    return Table(path.stem, target, np.stack(columns[:-1], axis=1), columns[-1])


def _column(path: Path, cells: list[str]) -> Matrix:
    if all(_is_number(cell) or not cell for cell in cells):
        return np.array([float(cell) if cell else np.nan for cell in cells], dtype="float32")
    codes = {word: code for code, word in enumerate(sorted(set(cells)))}
    if len(codes) > 1000:
        raise CommandError(
            f"a column of {path} holds {len(codes)} different words: that is text, not a category"
        )
    return np.array([codes[cell] for cell in cells], dtype="float32")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
