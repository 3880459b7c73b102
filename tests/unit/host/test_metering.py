"""What the host tells about its instances: SageMaker's names, units and ranges."""

from dataclasses import replace
from pathlib import Path

from clary.domain.instances import InstanceId, InstanceSpec, LogTarget
from clary.host.groups import members_of
from clary.host.limits import Usage
from clary.host.metering import Metering
from clary.host.records import Instance
from clary.links.instances import State
from clary.links.processes import ProcessIdentity
from clary.testing.clock import FakeClock
from hosting.harness import toy_pair

GIB = 1 << 30


def instance(name: str, group: str = "/aws/sagemaker/Endpoints/e") -> Instance:
    spec = InstanceSpec(
        instance_id=InstanceId(name),
        role="serve",
        image="",
        log=LogTarget("123456789012", "eu-central-1", group, f"v/{name}"),
        memory_bytes=GIB,
        vcpus=2,
    )
    return Instance(spec, Path("/nowhere"), State("ready", 0.0), minder=ProcessIdentity(1, 1))


def figures(metering: Metering) -> dict[str, tuple[float, float]]:
    """Metric → how many observations, and their sum."""
    (batch,) = metering.take("", 0)
    found: dict[str, tuple[float, float]] = {}
    for point in batch.points:
        count, total = found.get(point.name, (0.0, 0.0))
        found[point.name] = (count + point.count, total + point.sum)
    return found


def test_L02_each_instance_is_one_observation_of_its_variant(tmp_path: Path) -> None:
    clock = FakeClock()
    metering = Metering("host", tmp_path, clock, 900, exact=lambda pid: GIB // 4)
    a, b, job = instance("i-a"), instance("i-b"), instance("i-j", "/aws/sagemaker/TrainingJobs")
    for each in (a, b, job):
        metering.observe((each, Usage(0, {10: 1.0, 11: 5.0})))
    clock.advance(5)
    metering.observe((a, Usage(GIB // 2, {10: 9.0, 12: 2.0})))  # 11 ended, 12 is new: 8 s + 2 s of 5
    metering.observe((b, Usage(3 * GIB, {10: 1.0})))  # shared pages counted thrice
    metering.observe((job, Usage(GIB, {10: 2.0})))
    metering.drain({a.id, b.id}.__contains__)
    found = figures(metering)
    assert found["CPUUtilization"] == (2.0, 200.0)
    assert found["MemoryUtilization"] == (2.0, 75.0)
    count, disk = found["DiskUtilization"]
    assert count == 2.0
    assert 0 < disk < 200
    (batch,) = metering.take("", 0)
    assert {point.dimensions for point in batch.points} == {(("EndpointName", "e"), ("VariantName", "v"))}
    assert {point.unit for point in batch.points} == {"Percent"}


def test_L02_an_instance_that_was_gone_begins_anew(tmp_path: Path) -> None:
    clock = FakeClock()
    metering = Metering("host", tmp_path, clock, 900)
    a = instance("i-a")
    metering.observe((a, Usage(0, {10: 1.0})))
    metering.drain(lambda _: False)
    clock.advance(5)
    metering.observe((a, Usage(0, {10: 4.0})))
    metering.drain(lambda _: True)
    assert metering.take("", 0) == []


def test_C01_containers_of_one_instance_are_one_observation_and_each_its_own(tmp_path: Path) -> None:
    clock = FakeClock()
    metering = Metering("host", tmp_path, clock, 900)
    pair = [
        Instance(
            replace(member, memory_bytes=GIB), tmp_path, State("ready", 0.0), minder=ProcessIdentity(1, 1)
        )
        for member in members_of(toy_pair(1))
    ]
    for seconds in (1.0, 6.0):
        metering.observe(
            (pair[0], Usage(GIB // 2, {10: seconds})), (pair[1], Usage(GIB // 4, {11: 2 * seconds}))
        )
        clock.advance(5)
    metering.drain(lambda _: True)
    (batch,) = metering.take("", 0)
    found = {(p.name, dict(p.dimensions).get("ContainerName", "")): p.sum for p in batch.points}
    assert [found["CPUUtilization", name] for name in ("", "first", "second")] == [300.0, 100.0, 200.0]
    assert [found["MemoryUtilization", name] for name in ("", "first", "second")] == [75.0, 50.0, 25.0]
    assert ("DiskUtilization", "first") not in found


def test_U05_what_was_measured_before_a_reset_is_thrown_away(tmp_path: Path) -> None:
    clock = FakeClock()
    metering = Metering("host", tmp_path, clock, 900)
    metering.hold(instance("i-a"), 3)
    metering.drain(lambda id: True)
    metering.hold(instance("i-a"), 4)
    clock.advance(1)
    moment = int(clock.now().timestamp() * 1000)
    assert metering.take("", 0, moment) == []
    metering.hold(instance("i-b"), 5)
    metering.drain(lambda id: True)
    (batch,) = metering.take("", 0, moment)
    assert (batch.since_ms, [point.sum for point in batch.points]) == (moment, [5])
