"""The pages of the experiments: a row for each, of the run in which it was last tried.

A page is written anew whenever one of its experiments was run; the rows of the others stay as they stand there, with
the date, the seed and the numbers of their own run.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.chaos.experiment import Experiment
from benchmarks.report import Table, write

INTRODUCTION = (
    "Every experiment runs twice: with Clary as it is, and with the guarantee behind the promise taken away, which\n"
    "the experiment must notice. How they are made: `benchmarks/chaos/`. `python -m benchmarks.chaos NAME …` runs\n"
    "some; with the variables in the last column it makes the same choices by chance."
)
COLUMNS = ("experiment", "what is done", "promise", "result", "guarantee taken away: noticed", "run")
LONGEST = 400


def enter(
    path: Path, title: str, experiments: Sequence[Experiment], found: Mapping[str, tuple[str, str, str]]
) -> None:
    """`found` maps experiments just run to result, what was seen of the sabotage, and the run."""
    before = _standing(path)
    table = Table("Experiments", COLUMNS)
    for experiment in experiments:
        cells = found.get(experiment.name) or before.get(experiment.name)
        if cells is not None:
            table.rows.append(
                (experiment.name, experiment.done, experiment.promise, *(_cell(cell) for cell in cells))
            )
    write(path, title, "make chaos", [table], INTRODUCTION)


def run_of(seed: int) -> str:
    """When, and what it takes to repeat it."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith("CHAOS_")}
    words = " ".join(f"{name}={value}" for name, value in sorted({**chosen, "CHAOS_SEED": str(seed)}.items()))
    return f"{datetime.now(UTC):%Y-%m-%d}, `{words}`"


def _standing(path: Path) -> dict[str, tuple[str, str, str]]:
    """The rows of the page as it is. One without its run is from before runs stood there."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
    return {row[0]: (row[3], row[4], row[5] if len(row) > 5 else "") for row in rows if len(row) > 4}


def _cell(text: str) -> str:
    """One line, short enough for a table, with nothing that ends a cell."""
    line = " ".join(text.split()).replace("|", "¦")
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
