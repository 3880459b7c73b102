"""A thousand random stories of an endpoint in virtual time; and that the laws they are held to can be broken.

More of them: `python -m control.simulator 100000 --jobs 4` in the folder `tests`.
"""

import pytest

from control import simulator
from control.simulator import GUARANTEES, Guarantee

PARTS, SEEDS = 10, 100


@pytest.mark.parametrize("part", range(PARTS))
def test_H14_no_story_breaks_a_law(part: int) -> None:
    summary = simulator.run_many(part * SEEDS, SEEDS)
    assert summary.broken == {}
    assert summary.verdicts.keys() >= {"succeeded", "rolled-back", "failed"}, "the stories are too tame"


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_H14_without_a_guarantee_a_law_is_seen_broken(guarantee: Guarantee) -> None:
    for first in range(0, 200, 20):
        if simulator.run_many(first, 20, without=guarantee).broken:
            return
    pytest.fail("nobody would notice")


def test_the_same_seed_tells_the_same_story() -> None:
    assert simulator.run(7) == simulator.run(7)
