"""Who is ended for the disk, and who is not: over the own limit, first to blame for the last room, or nobody."""

from dataclasses import replace
from pathlib import Path

import pytest

from clary.domain.endpoints import Variant
from clary.domain.failures import deployment_problem
from clary.domain.instances import Failure, InstanceId, InstanceSpec, InstanceStatus, LogTarget
from clary.host import failures
from clary.host.disk_usage import Written
from clary.host.disk_watch import EVERY_S, LATELY_S, PATIENCE_S, DiskLimits, DiskWatch, Room
from clary.host.records import Instance
from clary.links.instances import State
from clary.testing.clock import FakeClock
from control.harness import Control

MIB = 1 << 20
GIB = 1 << 30
LIMIT = 30 * GIB
RESERVE = GIB


def spec_of(name: str, **changes: object) -> InstanceSpec:
    spec = InstanceSpec(InstanceId(name), "serve", "image", LogTarget("1", "r", "g/e", "s"))
    return replace(spec, **changes)  # type: ignore[arg-type]


class World:
    """A disk of 100 GiB, half of it free, and instances that have written what a test says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.room = Room(50 * GIB, 100 * GIB)
        self.instances: dict[str, Instance] = {}
        self.sizes: dict[str, Written] = {}
        self.ended: dict[str, Failure] = {}
        self.looks = 0
        self.watch = DiskWatch(
            self, self.units, lambda: self.room, DiskLimits(LIMIT, RESERVE), self.clock, self.measure
        )

    def add(self, name: str, **changes: object) -> Instance:
        self.instances[name] = Instance(spec_of(name, **changes), Path("nowhere"), State("ready", 0.0))
        self.sizes[name] = Written(0, 1)
        return self.instances[name]

    def wrote(self, name: str, size_bytes: int, files: int = 1) -> None:
        before = self.sizes[name]
        self.sizes[name] = Written(before.size_bytes + size_bytes, files)
        self.room = replace(self.room, free_bytes=self.room.free_bytes - size_bytes)

    def units(self) -> list[list[Instance]]:
        found: dict[str, list[Instance]] = {}
        for each in self.instances.values():
            found.setdefault(each.spec.member_of or each.id, []).append(each)
        return [*found.values()]

    def measure(self, instance: Instance, enough: Written) -> Written:
        self.looks += 1
        return self.sizes[instance.id]

    def end_because(self, instance: Instance, failure: Failure) -> None:
        self.ended.setdefault(instance.id, failure)
        instance.state = replace(instance.state, failure=failure)

    def look(self, after_s: float = 0.25) -> None:
        self.clock.advance(after_s)
        self.watch.check()

    def gone(self, name: str) -> None:
        """Its end has been seen and what it wrote is removed."""
        instance = self.instances.pop(name)
        instance.ended.set()
        self.room = replace(self.room, free_bytes=self.room.free_bytes + self.sizes.pop(name).size_bytes)


@pytest.fixture
def world() -> World:
    world = World()
    for name in ("quiet", "busy"):
        world.add(name)
    world.look()
    return world


def test_H08_who_writes_more_than_its_disk_is_ended_with_the_numbers(world: World) -> None:
    world.wrote("busy", LIMIT)
    world.look()
    assert world.ended == {}
    world.wrote("busy", 100 * MIB)
    world.look()
    assert [*world.ended] == ["busy"]
    failure = world.ended["busy"]
    assert failure.code == "OutOfDisk"
    assert "30,820 MiB are written, and it has 30,720 MiB" in failure.reason
    assert "instance_disk_bytes, or VolumeSizeInGB" in failure.reason


def test_H08_the_size_a_variant_asked_for_is_the_limit(world: World) -> None:
    world.add("large", volume_bytes=60 * GIB)
    world.add("small", volume_bytes=GIB)
    world.wrote("large", 40 * GIB)
    world.wrote("small", GIB + 100 * MIB)
    world.look()
    assert [*world.ended] == ["small"]
    assert "(VolumeSizeInGB)" in world.ended["small"].reason


def test_H08_empty_files_are_limited_too(world: World) -> None:
    world.wrote("busy", 64 * MIB, files=LIMIT // (16 << 10) + 1)
    world.look()
    assert [*world.ended] == ["busy"]
    assert "1,966,081 files" in world.ended["busy"].reason


def test_H08_containers_of_one_instance_share_its_disk_and_the_fullest_is_ended(world: World) -> None:
    for name, size in (("m-1", 12 * GIB), ("m-2", 20 * GIB)):
        world.add(name, member_of="m", member_count=2, container=name)
        world.wrote(name, size)
    world.look()
    assert [*world.ended] == ["m-2"]
    assert "the most of 2 containers" in world.ended["m-2"].reason


def test_H08_who_takes_the_last_room_is_ended_and_the_others_are_not(world: World) -> None:
    world.wrote("quiet", 20 * GIB)
    world.look(EVERY_S)
    world.look(LATELY_S)
    world.look(EVERY_S)
    world.wrote("quiet", 100 * MIB)
    world.wrote("busy", 29 * GIB)
    world.look()
    assert [*world.ended] == ["busy"]
    assert world.ended["busy"].code == "OutOfDisk"
    assert "924 MiB were free, and the last 1,024 MiB are kept" in world.ended["busy"].reason
    assert "disk_reserve_bytes" in world.ended["busy"].reason


def test_H08_for_what_others_write_no_instance_is_ended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.wrote("quiet", 20 * GIB)
    world.look(EVERY_S)
    world.look(LATELY_S)
    world.look(EVERY_S)
    world.room = replace(world.room, free_bytes=0)
    for _ in range(3):
        world.look()
    assert world.ended == {}
    assert [record.message for record in caplog.records].count(
        "the disk is nearly full, and not for what instances have written lately"
    ) == 1


def test_H08_who_only_started_while_others_filled_the_disk_goes_on(world: World) -> None:
    world.add("starting")
    world.wrote("starting", 300 * MIB)
    world.room = replace(world.room, free_bytes=100 * MIB)
    for _ in range(3):
        world.look()
    assert world.ended == {}
    world.wrote("starting", 70 * MIB)
    world.look()
    assert [*world.ended] == ["starting"]


def test_H08_slowly_or_at_once_who_takes_the_last_room_is_found(world: World) -> None:
    world.room = replace(world.room, free_bytes=RESERVE - MIB)
    for _ in range(100):
        world.look(EVERY_S)
        world.wrote("busy", MIB)
    assert [*world.ended] == ["busy"]


def test_H08_one_at_a_time_is_ended_for_the_reserve(world: World) -> None:
    world.add("other")
    world.wrote("other", 20 * GIB)
    world.wrote("busy", 29 * GIB + 512 * MIB)
    world.look()
    world.look()
    assert [*world.ended] == ["busy"]
    world.gone("busy")
    world.look()
    assert [*world.ended] == ["busy"]


def test_H08_who_writes_on_is_ended_next_where_the_first_does_not_go(world: World) -> None:
    world.add("other")
    world.room = replace(world.room, free_bytes=3 * GIB)
    world.look(EVERY_S)
    world.look(LATELY_S)
    world.look(EVERY_S)
    world.wrote("other", GIB)
    world.wrote("busy", GIB + 512 * MIB)
    world.look()
    world.wrote("other", 100 * MIB)
    world.look()
    assert [*world.ended] == ["busy"]
    world.look(PATIENCE_S)
    assert [*world.ended] == ["busy", "other"]


def test_H08_nobody_is_looked_at_while_the_free_room_stays(world: World) -> None:
    before = world.looks
    for _ in range(100):
        world.look(0.25)
    assert world.looks == before
    world.wrote("busy", 65 * MIB)
    world.look()
    assert world.looks == before + 2
    world.look(EVERY_S)
    assert world.looks == before + 4


def test_H08_a_look_that_takes_long_is_followed_by_a_pause(world: World) -> None:
    def slowly(instance: Instance, enough: Written) -> Written:
        world.clock.advance(5.0)
        return world.measure(instance, enough)

    world.watch._measure = slowly
    world.wrote("busy", GIB)
    world.look()
    before = world.looks
    world.wrote("busy", GIB)
    world.look(20.0)
    assert world.looks == before
    world.look(30.0)
    assert world.looks == before + 2


def test_a_small_disk_keeps_a_twentieth() -> None:
    assert DiskLimits(LIMIT, RESERVE).reserve(Room(0, 96 * MIB)) == 96 * MIB // 20
    assert DiskLimits(LIMIT, 0).reserve(Room(0, 96 * MIB)) == 0


def test_no_limit_is_no_limit() -> None:
    instance = World().add("i")
    assert not Written(1 << 50, 1 << 40).exceeds(DiskLimits(0, 0).of(instance))


def test_H08_the_size_of_the_variant_reaches_its_instances(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.model()
    control.config("c", {"VolumeSizeInGB": 5})
    control.config("d")
    control.endpoint("e", "c")
    control.endpoint("f", "d")
    control.settle(1)
    with control.store.read() as tx:
        specs = [tx.instances.spec(id_) for id_ in control.held]
    assert sorted(spec.volume_bytes for spec in specs if spec) == [0, 5 * GIB]
    control.close()


@pytest.mark.parametrize("volume_bytes", [0, 512 * GIB])
def test_Z01_the_failure_reason_holds_all_of_it(volume_bytes: int) -> None:
    spec = spec_of("i", volume_bytes=volume_bytes)
    variant = Variant("AllTraffic", "m", "image", "ml.m5.large", 2, 8 * GIB, 0, 1.0, 1)
    for failure in (
        failures.over_disk(spec, 524_300 * MIB, 524_288 * MIB),
        failures.too_many_files(spec, 33_554_433, 33_554_432),
        failures.took_last_room(spec, 524_288 * MIB, 1000 * MIB, 1024 * MIB),
    ):
        seen = InstanceStatus(spec.instance_id, "exited", failure=failure)
        reason = deployment_problem("e", variant, seen).reason
        assert failure.reason[4:] in reason
