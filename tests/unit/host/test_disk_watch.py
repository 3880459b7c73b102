"""Who is ended for the disk, and who is not: over the own limit, first to blame for the last room, or nobody."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from clary.domain.endpoints import Variant
from clary.domain.failures import deployment_problem
from clary.domain.instances import Failure, InstanceId, InstanceSpec, InstanceStatus, LogTarget
from clary.host import disk_watch, failures
from clary.host.disk_growth import LATELY_S
from clary.host.disk_limits import PART_TO_BLAME, DiskLimits, Room
from clary.host.disk_usage import Written
from clary.host.disk_watch import EVERY_S, EVERY_WHEN_SHORT_S, PATIENCE_S, DiskWatch
from clary.host.records import Instance
from clary.links.instances import State
from clary.links.processes import ProcessIdentity
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
        self.unreadable: set[str] = set()
        self.seen_in_part: set[str] = set()
        self.ahead_bytes = 0
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

    def measure(self, instance: Instance, enough: Written, spare_ahead: bool) -> Written:
        self.looks += 1
        if instance.id in self.unreadable:
            raise ValueError("its note is none")
        found = self.sizes[instance.id]
        if instance.id in self.seen_in_part:
            return Written(found.size_bytes // 10, found.files, is_whole=False)
        if spare_ahead:
            return Written(found.size_bytes - self.ahead_bytes, found.files)
        return found

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
    for _ in range(10):
        world.look(EVERY_S)
        world.wrote("busy", 10 * MIB)
    assert [*world.ended] == ["busy"]


def test_H08_on_a_disk_that_is_always_short_who_writes_little_goes_on(world: World) -> None:
    world.room = replace(world.room, free_bytes=RESERVE - MIB)
    for _ in range(300):
        world.look(EVERY_S)
        world.wrote("busy", MIB)
    assert world.ended == {}


def test_H08_who_writes_a_little_while_others_take_the_last_room_goes_on(world: World) -> None:
    world.room = replace(world.room, free_bytes=RESERVE - MIB)
    world.look()
    world.add("started")
    world.wrote("busy", 64 * MIB)
    world.wrote("started", 64 * MIB)
    world.room = replace(world.room, free_bytes=world.room.free_bytes - 720 * MIB)
    for _ in range(3):
        world.look(EVERY_WHEN_SHORT_S)
    assert world.ended == {}


def test_H08_nobody_is_ended_where_room_is_gained(world: World) -> None:
    world.room = replace(world.room, free_bytes=RESERVE // 2)
    world.look()
    world.wrote("busy", 64 * MIB)
    world.room = replace(world.room, free_bytes=world.room.free_bytes + 100 * MIB)
    world.look(EVERY_WHEN_SHORT_S)
    assert world.ended == {}


def test_H08_what_was_written_long_before_is_nobodys_guilt_now(world: World) -> None:
    """The room before is that of the last minutes, however long it is short already."""
    world.add("slow", volume_bytes=100 * GIB)
    world.room = replace(world.room, free_bytes=RESERVE - MIB)
    world.look()
    for _ in range(1000):  # into room that others give back, so that none of the last is gone
        world.sizes["slow"] += Written(30 * MIB)
        world.look(EVERY_S)
    world.room = replace(world.room, free_bytes=RESERVE - 2 * MIB)
    world.look(EVERY_S)
    assert world.ended == {}


def test_H08_a_look_that_saw_only_part_is_no_beginning(world: World) -> None:
    world.add("late")
    world.sizes["late"] = Written(10 * GIB, 1)
    world.seen_in_part.add("late")
    world.room = replace(world.room, free_bytes=RESERVE - MIB)
    world.look()
    world.seen_in_part.clear()
    world.room = replace(world.room, free_bytes=RESERVE - 2 * MIB)
    world.look(EVERY_WHEN_SHORT_S)
    assert world.ended == {}
    world.wrote("late", 70 * MIB)
    world.look()
    assert [*world.ended] == ["late"]


def test_H08_of_what_is_seen_in_part_the_most_that_is_known_counts(world: World) -> None:
    world.room = replace(world.room, free_bytes=3 * GIB)
    for after_s in (EVERY_S, LATELY_S, EVERY_S):
        world.look(after_s)
    world.wrote("busy", GIB + 512 * MIB)
    world.look()
    world.seen_in_part.add("busy")
    world.wrote("busy", 513 * MIB)
    world.look()
    assert [*world.ended] == ["busy"]
    assert "the most (1,536 MiB)" in world.ended["busy"].reason


def test_H08_blocks_held_ready_beyond_the_end_of_files_end_nobody(world: World) -> None:
    world.ahead_bytes = 200 * MIB
    world.wrote("busy", LIMIT + 100 * MIB)
    world.look()
    assert world.ended == {}
    world.wrote("busy", 200 * MIB)
    world.look()
    assert [*world.ended] == ["busy"]


def test_H08_types_with_disks_of_their_own_have_no_limit_unless_asked_for(world: World) -> None:
    world.add("large", instance_type="ml.g5.xlarge")
    world.add("asked", instance_type="ml.g5.xlarge", volume_bytes=GIB)
    world.wrote("large", 40 * GIB)
    world.wrote("asked", 2 * GIB)
    world.look()
    assert [*world.ended] == ["asked"]


def test_H08_one_that_cannot_be_looked_at_takes_nothing_from_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.unreadable.add("quiet")
    for _ in range(3):
        world.wrote("busy", 11 * GIB)
        world.look()
    assert [*world.ended] == ["busy"]
    said = "an instance's disk cannot be looked at"
    assert [record.message for record in caplog.records].count(said) == 1


def test_H08_a_look_that_fails_is_followed_by_a_pause_too(world: World) -> None:
    def fail() -> list[list[Instance]]:
        world.clock.advance(5.0)
        world.looks += 1
        raise OSError("no descriptors left")

    world.watch._units = fail
    before = world.looks
    for _ in range(4):
        world.wrote("busy", GIB)
        with suppress(OSError):
            world.look()
    assert world.looks == before + 1


def test_H08_a_file_system_that_does_not_say_its_size_is_looked_at_once_a_minute(world: World) -> None:
    world.room = Room(0, 0)
    world.look(EVERY_S)
    before = world.looks
    for _ in range(10):
        world.look()
    assert world.looks == before
    assert world.ended == {}


def test_H08_while_room_is_short_and_stays_instances_are_looked_at_now_and_then(world: World) -> None:
    world.room = replace(world.room, free_bytes=RESERVE // 2)
    world.look()
    before = world.looks
    for _ in range(int(EVERY_WHEN_SHORT_S / 0.25) - 1):
        world.look(0.25)
    assert world.looks == before
    world.look(0.25)
    assert world.looks == before + 2
    world.wrote("busy", RESERVE // PART_TO_BLAME // 4)
    world.look(0.25)
    assert world.looks == before + 4


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
    def slowly(instance: Instance, enough: Written, spare_ahead: bool) -> Written:
        world.clock.advance(5.0)
        return world.measure(instance, enough, spare_ahead)

    world.watch._measure = slowly
    world.wrote("busy", GIB)
    world.look()
    before = world.looks
    world.wrote("busy", GIB)
    world.look(20.0)
    assert world.looks == before
    world.look(30.0)
    assert world.looks == before + 2


@pytest.mark.parametrize("note", ["{", "[1]", '{"pid": "1"}', '{"layer": 1}', '{"more": 1}', "\xff"])
def test_H08_a_note_that_is_no_runners_hides_nothing(tmp_path: Path, note: str) -> None:
    """On rung 0 an instance can write where its container's runner would."""
    (tmp_path / "container.json").write_bytes(note.encode("latin-1"))
    (tmp_path / "big").write_bytes(b"x" * MIB)
    instance = Instance(spec_of("i"), tmp_path, State("ready", 0.0), minder=ProcessIdentity(1 << 30, 1))
    assert disk_watch.measure(instance, Written(GIB, 1000), False).size_bytes >= MIB


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
