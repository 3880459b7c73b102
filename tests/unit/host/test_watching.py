"""When pings say that an instance is unwell: after several in a row, never after one."""

from pathlib import Path

import pytest

from clary.domain.instances import Failure, InstanceId, InstanceSpec, LogTarget
from clary.host import watching
from clary.host.probing import Answer
from clary.host.records import Instance
from clary.host.watching import FAILURES_TO_BE_UNHEALTHY, Pace, _Probing
from clary.links.instances import State
from clary.testing.clock import FakeClock

WELL, SLOW = Answer(True, "HTTP 200"), Answer(False, "no answer within 2 s")


class Told:
    def __init__(self) -> None:
        self.news: list[str] = []

    def became_ready(self, instance: Instance) -> None:
        self.news.append("ready")

    def became_unhealthy(self, instance: Instance, answer: str) -> None:
        self.news.append(f"unhealthy: {answer}")

    def end_because(self, instance: Instance, failure: Failure) -> None:
        self.news.append(failure.code)

    def has_ended(self, instance: Instance, probe: str) -> None:
        self.news.append("ended")


@pytest.mark.parametrize(
    ("answers", "news"),
    [
        ([SLOW, WELL], ["ready"]),
        ([SLOW, SLOW, WELL, SLOW, SLOW, WELL], ["ready", "ready"]),
        ([SLOW] * FAILURES_TO_BE_UNHEALTHY, ["unhealthy: no answer within 2 s"]),
    ],
    ids=["one is nothing", "they must come in a row", "three"],
)
def test_H10_only_pings_that_fail_in_a_row_make_an_instance_unhealthy(
    tmp_path: Path, answers: list[Answer], news: list[str]
) -> None:
    told = Told()
    spec = InstanceSpec(InstanceId("i"), "serve", "image", LogTarget("1", "r", "g", "s"))
    probing = _Probing(Instance(spec, tmp_path, State("ready", 0.0)), told, Pace(5.0, 2.0), FakeClock())
    for answer in answers:
        probing.last = answer
        probing._judge(waited_s=1000.0)
    assert told.news == news
    assert watching.FAILURES_TO_BE_UNHEALTHY == 3
