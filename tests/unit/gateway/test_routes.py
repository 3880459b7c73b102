"""The route table: what is found, what is kept over a change, and when a target is idle."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.gateway.plans import TargetState
from clary.gateway.routes import RouteTable
from clary.telemetry.metrics import Recorder


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def key(name: str) -> EndpointKey:
    return EndpointKey("1", "r", name)


def route(name: str, generation: int, *instances: str) -> EndpointRoute:
    targets = tuple(Target(InstanceId(i), f"unix:/none/{i}") for i in instances)
    return EndpointRoute(key(name), name, "uid", generation, (VariantRoute("All", 1.0, targets),))


def with_table(test: Callable[[RouteTable], None]) -> None:
    async def run() -> None:
        test(RouteTable(Recorder("test", Noon()), asyncio.get_running_loop()))

    work: Coroutine[None, None, None] = run()
    asyncio.run(work)


def targets(table: RouteTable, name: str) -> list[TargetState]:
    plan = table.find(key(name))
    return [] if plan is None else plan.variants["All"].plans[0].targets


instances_or_none = st.lists(st.sampled_from(["i-1", "i-2", "i-3"]), max_size=3, unique=True) | st.none()
steps = st.lists(st.tuples(st.sampled_from("abc"), instances_or_none), max_size=12)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_after_any_changes_the_table_holds_what_control_holds(
    changes: list[tuple[str, list[str] | None]],
) -> None:
    def check(table: RouteTable) -> None:
        wanted: dict[str, EndpointRoute] = {}
        for version, (name, instances) in enumerate(changes, 1):
            if instances is None:
                wanted.pop(name, None)
                table.change(version, [], [key(name)])
            else:
                wanted[name] = route(name, version, *(f"{name}-{instance}" for instance in instances))
                table.change(version, [wanted[name]], [])
            for letter in "abc":
                found = [target.instance_id for target in targets(table, letter)]
                there = wanted[letter].variants[0].targets if letter in wanted else ()
                assert found == [target.instance_id for target in there]
        again = RouteTable(Recorder("test", Noon()), asyncio.get_running_loop())
        again.replace(99, wanted.values())
        assert all((again.find(key(n)) is None) == (table.find(key(n)) is None) for n in "abc")

    with_table(check)


def test_H05_a_target_that_stays_keeps_its_connections_and_counts() -> None:
    def check(table: RouteTable) -> None:
        table.replace(1, [route("a", 1, "i-1", "i-2")])
        first = targets(table, "a")[0]
        first.outstanding = 3
        table.change(2, [route("a", 2, "i-1", "i-3")], [])
        assert targets(table, "a")[0] is first
        assert table.outstanding == 3

    with_table(check)


def test_H05_a_snapshot_removes_what_it_does_not_hold() -> None:
    def check(table: RouteTable) -> None:
        table.replace(1, [route("a", 1, "i-1"), route("b", 1, "i-2")])
        table.replace(7, [route("b", 1, "i-2")])
        assert table.find(key("a")) is None
        assert table.find(key("b")) is not None
        assert table.version == 7

    with_table(check)


def test_H05_a_retired_target_is_idle_when_its_last_request_has_ended() -> None:
    def check(table: RouteTable) -> None:
        told: list[str] = []
        table.replace(1, [route("a", 1, "i-1")])
        target = targets(table, "a")[0]
        target.outstanding = 2
        table.change(2, [], [key("a")])
        table.when_idle([InstanceId("i-1")], lambda: told.append("idle"))
        forget = table.when_idle([InstanceId("i-1")], lambda: told.append("never"))
        forget()
        target.release()
        assert told == []
        assert table.busy([InstanceId("i-1"), InstanceId("i-2")]) == {"i-1"}
        target.release()
        assert told == ["idle"]
        assert table.outstanding == 0

    with_table(check)


def test_H05_what_is_idle_is_told_at_once() -> None:
    def check(table: RouteTable) -> None:
        told: list[str] = []
        table.replace(1, [route("a", 1, "i-1")])
        table.when_idle([InstanceId("i-1"), InstanceId("i-unknown")], lambda: told.append("idle"))
        assert told == ["idle"]

    with_table(check)
