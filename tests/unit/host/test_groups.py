"""Instances of several containers: what is started for one, and what control sees of it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import pytest

from clary.domain.instances import Failure, InstanceId, InstanceSpec, InstanceStatus, Phase
from clary.host import failures
from clary.host.groups import Groups, Seen, member_id, members_of, merged, unit_of, units
from clary.host.limits import Usage
from clary.host.records import Instance
from clary.host.watching import MemoryWatch
from clary.links.instances import State
from clary.links.processes import ProcessIdentity
from hosting.harness import toy_pair, toy_spec

PAIR = toy_pair(1)
ID = PAIR.instance_id
CRASH = Failure("Exited", "it exited with code 3", exit_code=3)


class Singles:
    """What runs single containers, in memory."""

    def __init__(self) -> None:
        self.running: dict[InstanceId, Seen] = {}

    def start(self, spec: InstanceSpec) -> str:
        self.running.setdefault(spec.instance_id, (spec, InstanceStatus(spec.instance_id, "preparing")))
        return spec.instance_id

    def look(self, ids: Iterable[InstanceId] | None = None) -> Sequence[Seen]:
        return [self.running[id] for id in (self.running if ids is None else ids) if id in self.running]

    def stop(self, ids: Iterable[InstanceId], grace_s: float) -> None:
        for id in ids:
            if id in self.running:
                self.become(id, "stopping")

    def remove(self, ids: Iterable[InstanceId]) -> None:
        for id in ids:
            self.running.pop(id, None)

    def become(self, id: InstanceId, phase: Phase) -> None:
        spec, status = self.running[id]
        ready_at = 1.0 if phase == "ready" else status.ready_at
        self.running[id] = spec, replace(status, phase=phase, ready_at=ready_at)


def pair(first: Phase, second: Phase, **second_says: object) -> list[Seen]:
    a, b = members_of(PAIR)
    return [
        (a, InstanceStatus(a.instance_id, first, address="unix:/1", resolved_image="one@1", started_at=1.0)),
        (
            b,
            replace(
                InstanceStatus(b.instance_id, second, address="unix:/2", resolved_image="two@2"),
                **second_says,  # type: ignore[arg-type]
            ),
        ),
    ]


def test_C01_each_container_is_an_instance_of_its_own() -> None:
    first, second = members_of(PAIR)
    assert [first.instance_id, second.instance_id] == [member_id(ID, 1), member_id(ID, 2)]
    assert second.log.stream == f"{PAIR.log.stream}/second"
    assert (second.container, second.containers, second.image) == ("second", (), PAIR.containers[1].image)
    assert (unit_of(first), second.number, second.member_count) == (ID, 2, 2)
    assert second.environment["TOY_DO"] == "serve"
    ports = {each.environment["SAGEMAKER_BIND_TO_PORT"] for each in (first, second)}
    ranges = {each.environment["SAGEMAKER_SAFE_PORT_RANGE"] for each in (first, second)}
    assert (len(ports), len(ranges)) == (2, 2)
    alone = toy_spec(2)
    assert members_of(alone) == [alone]
    assert unit_of(alone) == alone.instance_id


@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        ("preparing", "ready", "preparing"),
        ("fetching", "starting", "fetching"),
        ("ready", "starting", "starting"),
        ("unhealthy", "starting", "starting"),
        ("ready", "ready", "ready"),
        ("ready", "unhealthy", "unhealthy"),
        ("stopping", "ready", "stopping"),
        ("stopping", "exited", "stopping"),
        ("exited", "exited", "exited"),
        ("exited", "ready", "exited"),
    ],
)
def test_C01_an_instance_is_as_far_as_its_slowest_container(first: Phase, second: Phase, seen: Phase) -> None:
    for members in (pair(first, second), list(reversed(pair(first, second)))):
        status = merged(ID, members)
        assert status.phase == seen
        is_serving = seen in ("ready", "unhealthy")
        assert status.addresses == (("unix:/1", "unix:/2") if is_serving else ())
        assert status.address == ("unix:/1" if is_serving else "")
        assert status.resolved_images == ("one@1", "two@2")


def test_C01_whatever_the_others_do_a_failure_ends_the_instance_and_names_the_container() -> None:
    for phase in ("preparing", "starting", "ready", "unhealthy", "stopping", "exited"):
        status = merged(ID, pair(phase, "exited", failure=CRASH, detail=CRASH.reason))
        assert (status.phase, status.failure) == ("exited", replace(CRASH, container="second"))
        assert status.detail == CRASH.reason


def test_C01_what_was_told_to_stop_is_stopping_until_its_last_container_has_ended() -> None:
    assert merged(ID, pair("exited", "ready"), was_stopped=True).phase == "stopping"
    assert merged(ID, pair("exited", "exited"), was_stopped=True).phase == "exited"


def test_C01_only_an_environment_that_is_built_says_something_while_preparing() -> None:
    assert merged(ID, pair("preparing", "fetching", detail="")).detail == ""
    assert merged(ID, pair("fetching", "preparing", detail="building")).detail == "second: building"
    assert merged(ID, pair("ready", "unhealthy", detail="its ping fails")).detail == "second: its ping fails"


def test_C01_every_phase_of_two_containers_makes_one_of_the_instance() -> None:
    phases: tuple[Phase, ...] = (
        "preparing",
        "fetching",
        "starting",
        "ready",
        "unhealthy",
        "stopping",
        "exited",
    )
    for first, second, was_stopped in product(phases, phases, (False, True)):
        status = merged(ID, pair(first, second), was_stopped=was_stopped)
        assert status.phase in (first, second, "stopping")
        assert (status.phase == "ready") == (first == second == "ready")


def test_C01_a_start_that_was_cut_off_is_no_end_and_is_repeated() -> None:
    singles = Singles()
    groups = Groups(singles)
    first, second = members_of(PAIR)
    singles.start(first)
    singles.become(first.instance_id, "ready")
    assert groups.inspect([ID])[0].phase == "preparing"
    groups.start(PAIR)
    assert len(singles.running) == 2
    singles.become(second.instance_id, "ready")
    (status,) = groups.list()
    assert (status.instance_id, status.phase, status.ready_at) == (ID, "ready", 1.0)
    groups.remove([ID])
    assert (singles.running, groups.inspect([ID])[0].phase) == ({}, "missing")


def test_C01_one_container_and_several_live_side_by_side() -> None:
    singles = Singles()
    groups = Groups(singles)
    alone = toy_spec(7)
    for spec in (PAIR, alone):
        groups.start(spec)
    assert [status.instance_id for status in groups.list()] == [ID, alone.instance_id]
    groups.stop([ID], 1.0)
    assert [status.phase for status in groups.inspect([ID, alone.instance_id])] == ["stopping", "preparing"]
    groups.remove([alone.instance_id])
    assert [status.instance_id for status in groups.list()] == [ID]


class Ended:
    """In the place of `Instances`: who was ended, and why."""

    def __init__(self) -> None:
        self.because: list[tuple[InstanceId, Failure]] = []

    def end_because(self, instance: Instance, failure: Failure) -> None:
        self.because.append((instance.id, failure))

    def became_ready(self, instance: Instance) -> None: ...

    def became_unhealthy(self, instance: Instance, answer: str) -> None: ...

    def has_ended(self, instance: Instance, probe: str) -> None: ...


def test_C01_the_memory_of_an_instance_is_what_all_its_containers_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    spec = replace(PAIR, memory_bytes=1000 << 20)
    running = [
        Instance(each, tmp_path, State("ready", 0.0), minder=ProcessIdentity(number, 1))  # type: ignore[arg-type]
        for number, each in enumerate(members_of(spec), 1)
    ]
    assert units(running) == [running]
    ended = Ended()
    watch = MemoryWatch(ended)
    exact = {1: 300 << 20, 2: 600 << 20}
    monkeypatch.setattr("clary.host.limits.exact_resident_bytes", exact.__getitem__)
    measured = [(each, Usage(700 << 20, {})) for each in running]
    watch.check(measured)
    assert ended.because == []
    exact[1] = 500 << 20
    watch.check(measured)
    ((id, failure),) = ended.because
    assert id == member_id(ID, 2)
    assert failure == failures.out_of_memory(running[1].spec, 600 << 20, 1100 << 20)
    assert "the second container used 600 MiB" in failure.reason
    assert "2 containers that used 1,100 MiB together" in failure.reason
