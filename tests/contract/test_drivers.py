"""What every driver promises (`drivers/base.py`), over each of them: `local` with a real host process."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from clary.domain.instances import Container, Failure, InstanceSpec
from clary.drivers.base import Driver, DriverError
from clary.drivers.fake import FakeDriver, Plan
from clary.drivers.load import DRIVERS
from engines.harness import IMAGE, TestEngine, container_spec
from hosting.harness import (
    HostProcess,
    rungs_here,
    running_host,
    toy_pair,
    toy_spec,
    until,
    until_phase,
)


class Rig(Protocol):
    """A driver, and the instances each can have to misbehave."""

    driver: Driver

    def good(self, number: int) -> InstanceSpec: ...

    def exits(self, number: int) -> InstanceSpec:
        """Ends with exit code 3 while it starts."""

    def never_ready(self, number: int, within_s: float) -> InstanceSpec:
        """Runs, and never passes its ping; `within_s` is its startup timeout."""

    def stubborn(self, number: int) -> InstanceSpec:
        """Becomes ready, and does not end on SIGTERM."""

    def of_two(self, number: int, first: str = "serve", second: str = "serve") -> InstanceSpec:
        """An instance of two containers, `first` and `second`: each serves, or does `exit`, `unwell` as above."""

    def disconnect(self) -> None: ...


class LocalRig:
    def __init__(self, host: HostProcess) -> None:
        self._host = host
        self.driver: Driver = host.driver

    def good(self, number: int) -> InstanceSpec:
        return toy_spec(number)

    def exits(self, number: int) -> InstanceSpec:
        return toy_spec(number, "exit:3")

    def never_ready(self, number: int, within_s: float) -> InstanceSpec:
        return toy_spec(number, "unwell", startup_timeout_s=within_s)

    def stubborn(self, number: int) -> InstanceSpec:
        return toy_spec(number, "stubborn")

    def of_two(self, number: int, first: str = "serve", second: str = "serve") -> InstanceSpec:
        words = {"serve": "serve", "exit": "exit:3", "unwell": "unwell"}
        return toy_pair(number, words[first], words[second])

    def disconnect(self) -> None:
        self._host.kill()


class ContainerRig(LocalRig):
    """The same driver and host over images of the user's own."""

    def good(self, number: int) -> InstanceSpec:
        return self._spec(number, "serve")

    def exits(self, number: int) -> InstanceSpec:
        return self._spec(number, "exit:3")

    def never_ready(self, number: int, within_s: float) -> InstanceSpec:
        return self._spec(number, "unwell", startup_timeout_s=within_s)

    def stubborn(self, number: int) -> InstanceSpec:
        return self._spec(number, "stubborn")

    def of_two(self, number: int, first: str = "serve", second: str = "serve") -> InstanceSpec:
        """One of the frameworks, and one of the user's own."""
        spec = toy_pair(number, first)
        own = Container("second", IMAGE, {"DO": second})
        return replace(spec, containers=(spec.containers[0], own))

    def _spec(self, number: int, do: str, **changes: object) -> InstanceSpec:
        return container_spec(number, do, network_isolated=True, **changes)


class FakeRig:
    def __init__(self) -> None:
        self._fake = FakeDriver()
        self._fake.plan(self._plan)
        self.driver: Driver = self._fake

    def good(self, number: int) -> InstanceSpec:
        return toy_spec(number)

    def exits(self, number: int) -> InstanceSpec:
        return toy_spec(number, "exit")

    def never_ready(self, number: int, within_s: float) -> InstanceSpec:
        return toy_spec(number, "unwell")

    def stubborn(self, number: int) -> InstanceSpec:
        return toy_spec(number, "stubborn")

    def of_two(self, number: int, first: str = "serve", second: str = "serve") -> InstanceSpec:
        return toy_pair(number, first, second)

    def disconnect(self) -> None:
        self._fake.unreachable = True

    def _plan(self, spec: InstanceSpec) -> Plan:
        do, container = spec.environment.get("TOY_DO", "serve"), ""
        for each in spec.containers:
            if each.environment["TOY_DO"] != "serve":
                do, container = each.environment["TOY_DO"], each.name
        if do == "exit":
            failure = Failure("Exited", "it exited with code 3", exit_code=3, container=container)
            return Plan(until="starting", failure=failure)
        if do == "unwell":
            return Plan(until="starting", failure=Failure("PingTimeout", "HTTP 503"))
        return Plan(stays_when_stopped=do == "stubborn")


RIGS = [
    *(("local", rung) for rung in rungs_here()),
    ("local", "container"),
    *((name, "") for name in sorted(DRIVERS) if name != "local"),
]


@pytest.fixture(scope="module")
def container_host(engine: TestEngine) -> Iterator[HostProcess]:
    """One for all of them: containers take long enough to start."""
    with running_host(container_engine=str(engine.socket)) as host:
        yield host


@pytest.fixture(params=RIGS, ids=lambda rig: "-".join(filter(None, rig)))
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    name, rung = request.param
    if rung == "container":
        engine, host = request.getfixturevalue("engine"), request.getfixturevalue("container_host")
        yield ContainerRig(host)
        host.resume()
        host.driver.remove([status.instance_id for status in host.driver.list()])
        engine.until_empty()
    elif name == "local":
        with running_host(sandbox=rung) as host:
            yield LocalRig(host)
    elif name == "fake":
        yield FakeRig()
    else:
        pytest.fail(f"the contract suite has no rig for the driver {name}")


def test_an_instance_that_nobody_started_is_missing(rig: Rig) -> None:
    spec = rig.good(1)
    assert rig.driver.inspect([spec.instance_id])[spec.instance_id].phase == "missing"
    assert rig.driver.list() == []


def test_a_started_instance_becomes_ready_and_says_where(rig: Rig) -> None:
    spec = rig.good(1)
    rig.driver.start(spec)
    status = until_phase(rig.driver, spec.instance_id, "ready")
    assert status.address.startswith(("unix:", "tcp:"))
    assert "@sha256:" in status.resolved_image
    assert status.failure is None
    assert [each.instance_id for each in rig.driver.list()] == [spec.instance_id]


def test_starting_twice_starts_one(rig: Rig) -> None:
    spec = rig.good(1)
    first = rig.driver.start(spec)
    assert rig.driver.start(spec) == first
    ready = until_phase(rig.driver, spec.instance_id, "ready")
    assert rig.driver.start(spec) == first
    assert rig.driver.inspect([spec.instance_id])[spec.instance_id] == ready
    assert len(rig.driver.list()) == 1


def test_an_instance_that_ended_is_not_started_again(rig: Rig) -> None:
    spec = rig.exits(1)
    rig.driver.start(spec)
    ended = until_phase(rig.driver, spec.instance_id, "exited")
    rig.driver.start(spec)
    assert rig.driver.inspect([spec.instance_id])[spec.instance_id] == ended


def test_an_end_nobody_asked_for_is_a_failure_with_its_exit_code(rig: Rig) -> None:
    spec = rig.exits(1)
    rig.driver.start(spec)
    status = until_phase(rig.driver, spec.instance_id, "exited")
    assert status.failure is not None
    assert (status.failure.code, status.failure.exit_code) == ("Exited", 3)
    assert "code 3" in status.failure.reason


def test_an_instance_that_never_passes_its_ping_fails_with_the_last_answer(rig: Rig) -> None:
    reasons: list[str] = []
    for number, within_s in enumerate((0.2, 5.0, 60.0), 1):
        spec = rig.never_ready(number, within_s)
        rig.driver.start(spec)
        status = until_phase(rig.driver, spec.instance_id, "exited")
        assert status.failure is not None
        assert status.failure.code == "PingTimeout"
        reasons.append(status.failure.reason)
        if "HTTP 503" in reasons[-1]:  # else it had no turn yet, on a busy machine
            break
    assert "HTTP 503" in reasons[-1], reasons


def test_a_stopped_instance_ends_without_a_failure(rig: Rig) -> None:
    spec = rig.good(1)
    rig.driver.start(spec)
    until_phase(rig.driver, spec.instance_id, "ready")
    rig.driver.stop([spec.instance_id], grace_s=30)
    assert until_phase(rig.driver, spec.instance_id, "exited").failure is None
    rig.driver.stop([spec.instance_id], grace_s=30)
    assert rig.driver.inspect([spec.instance_id])[spec.instance_id].phase == "exited"


def test_an_instance_stopped_while_it_starts_ends(rig: Rig) -> None:
    specs = [rig.good(number) for number in range(1, 6)]
    for spec in specs:
        rig.driver.start(spec)
        rig.driver.stop([spec.instance_id], grace_s=30)
    for status in until(rig.driver, [spec.instance_id for spec in specs], lambda s: s.phase == "exited"):
        assert status.failure is None


def test_stopping_and_removing_what_is_unknown_is_no_error(rig: Rig) -> None:
    id = rig.good(1).instance_id
    rig.driver.stop([id], grace_s=1)
    rig.driver.remove([id])
    assert rig.driver.inspect([id])[id].phase == "missing"


def test_a_removed_instance_is_missing_and_may_be_started_anew(rig: Rig) -> None:
    spec = rig.good(1)
    rig.driver.start(spec)
    until_phase(rig.driver, spec.instance_id, "ready")
    rig.driver.remove([spec.instance_id])
    rig.driver.remove([spec.instance_id])
    assert rig.driver.inspect([spec.instance_id])[spec.instance_id].phase == "missing"
    assert rig.driver.list() == []
    rig.driver.start(spec)
    until_phase(rig.driver, spec.instance_id, "ready")


def test_removing_ends_even_what_ignores_a_stop(rig: Rig) -> None:
    spec = rig.stubborn(1)
    rig.driver.start(spec)
    until_phase(rig.driver, spec.instance_id, "ready")
    rig.driver.stop([spec.instance_id], grace_s=3600)
    assert until_phase(rig.driver, spec.instance_id, "stopping").is_live
    rig.driver.remove([spec.instance_id])
    assert rig.driver.list() == []


def test_C01_an_instance_of_two_containers_is_one_with_an_address_for_each(rig: Rig) -> None:
    spec = rig.of_two(1)
    handle = rig.driver.start(spec)
    assert rig.driver.start(spec) == handle
    status = until_phase(rig.driver, spec.instance_id, "ready")
    assert len(set(status.addresses)) == 2
    assert status.address == status.addresses[0]
    assert len(status.resolved_images) == 2
    assert status.ready_at is not None
    assert rig.driver.list() == [status]
    rig.driver.stop([spec.instance_id], grace_s=30)
    assert until_phase(rig.driver, spec.instance_id, "exited").failure is None
    rig.driver.remove([spec.instance_id])
    assert rig.driver.list() == []


def test_C01_a_container_that_ends_ends_its_instance_and_is_named(rig: Rig) -> None:
    spec = rig.of_two(1, second="exit")
    rig.driver.start(spec)
    status = until_phase(rig.driver, spec.instance_id, "exited")
    assert status.failure is not None
    assert (status.failure.container, status.failure.code, status.failure.exit_code) == (
        "second",
        "Exited",
        3,
    )
    assert status.ready_at is None
    rig.driver.remove([spec.instance_id])
    assert rig.driver.list() == []


def test_C01_an_instance_is_not_ready_before_its_last_container_is(rig: Rig) -> None:
    spec = rig.of_two(1, first="unwell")
    rig.driver.start(spec)
    status = until_phase(rig.driver, spec.instance_id, "starting", "exited")
    assert (status.address, status.addresses) == ("", ())
    rig.driver.remove([spec.instance_id])
    assert rig.driver.inspect([spec.instance_id])[spec.instance_id].phase == "missing"


def test_waiting_tells_of_changes_and_of_their_absence(rig: Rig) -> None:
    seen = rig.driver.wait(0, 0)
    assert rig.driver.wait(seen, 0) == seen
    rig.driver.start(rig.good(1))
    later = rig.driver.wait(seen, 60)
    assert later > seen


def test_nobody_can_tell_is_not_missing(rig: Rig) -> None:
    spec = rig.good(1)
    rig.disconnect()
    with pytest.raises(DriverError):
        rig.driver.inspect([spec.instance_id])
    with pytest.raises(DriverError):
        rig.driver.start(spec)
    with pytest.raises(DriverError):
        rig.driver.list()
