"""What is decided for an endpoint, over whatever the driver may show. Updates to another fleet: `test_updating`."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.endpoints import EndpointSpec, EndpointState, Fleet, Slot
from clary.domain.failures import LONGEST_REASON, deployment_problem
from clary.domain.instances import Artifact, Failure, InstanceId, InstanceStatus, Phase
from clary.domain.places import LONGEST_DELAY_S, MOST_FAILURES, STEADY_S, InstanceRow
from clary.domain.plans import Plan, Seen
from clary.domain.rollout import decide
from control.world import NOW, World, fleet, in_service, variant


def test_an_endpoint_is_in_service_only_when_every_instance_is_routed() -> None:
    world = World(fleet("f", variant("a", 2), variant("b")))
    world.step()
    assert len(world.rows) == 3
    first, *rest = world.phases
    world.phases[first] = "ready"
    plan = world.step()
    assert (plan.outcome, plan.traffic, world.status) == ("continue", None, "Creating")
    for id_ in rest:
        world.phases[id_] = "ready"
    plan = world.step()
    assert (plan.outcome, world.status, world.routed) == ("promote", "InService", set(world.rows))
    assert world.step().again_after_s is None


@pytest.mark.parametrize("phase", ["exited", "missing", "unhealthy"])
def test_a_dead_instance_is_unrouted_at_once_and_replaced(phase: Phase) -> None:
    world = in_service(variant("a", 2))
    dead, alive = sorted(world.rows)
    world.phases[dead] = phase
    plan = world.step()
    assert world.routed == {alive}
    assert [new.slot.incarnation for new in plan.create] == [1]
    assert plan.retire == (dead,)
    assert world.status == "InService"
    world.calm(4)
    assert len(world.routed) == 2
    assert dead not in world.rows


def test_an_instance_that_keeps_dying_is_replaced_later_and_later() -> None:
    world = in_service(variant())
    delays = []
    for _ in range(10):
        (id_,) = world.routed or world.ready()
        world.phases[id_], world.ready_since[id_] = "exited", world.now  # it was not ready for long
        plan = world.step()
        delays += [new.delay_s for new in plan.create]
        assert plan.again_after_s is not None
        world.calm(3)
    assert delays[0] == 0.0
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_S
    assert world.status == "InService"


def test_one_that_had_been_ready_for_long_is_replaced_at_once() -> None:
    world = in_service(variant())
    (id_,) = world.rows
    world.rows[id_] = replace(world.rows[id_], failures=7)
    seen = world.seen()
    status = InstanceStatus(id_, "exited", ready_at=(NOW - timedelta(hours=1)).timestamp())
    (new,) = decide(replace(seen, statuses={id_: status})).create
    assert (new.failures, new.delay_s) == (1, 0.0)


def test_one_that_served_for_a_while_is_replaced_at_once_however_often() -> None:
    world = in_service(variant())
    for count in range(1, 8):
        (id_,) = world.routed or world.ready()
        world.ready_since[id_] = world.now - timedelta(seconds=STEADY_S)
        world.phases[id_] = "exited"
        plan = world.step()
        assert [(new.failures, new.delay_s) for new in plan.create] == [(count, 0.0)]
        assert ("v" in plan.troubles) == (count > MOST_FAILURES)
        world.calm(3)


def test_a_creation_fails_fast_and_leaves_nothing() -> None:
    world = World(fleet("f", variant("a", 3)))
    world.step()
    first, *_ = world.phases
    world.phases[first] = "exited"
    plan = world.step()
    assert plan.outcome == "fail"
    assert world.status == "Creating"  # Failed is shown when nothing is left
    for _ in range(3):
        world.step()
    assert (world.status, world.rows) == ("Failed", {})
    assert world.step() == Plan()


def test_a_lost_instance_is_tried_again_before_a_creation_fails() -> None:
    world = World(fleet())
    world.step()
    for attempt in range(MOST_FAILURES):
        assert world.state.problem is None, attempt
        (id_,) = [row.id for row in world.rows.values() if row.is_wanted]
        world.phases[id_] = "missing"
        world.step()
        world.now += timedelta(seconds=LONGEST_DELAY_S)
        world.step()
    assert world.state.problem is not None


def test_gpus_that_are_not_there_fail_the_creation() -> None:
    world = World(fleet("f", variant(accelerators=1)))
    world.calm(3)
    assert world.status == "Failed"
    assert world.state.problem is not None
    assert "InsufficientInstanceCapacity" in world.state.problem.reason
    enough = World(fleet("f", variant(accelerators=1)), accelerators=1)
    enough.calm(4)
    assert enough.status == "InService"


def test_new_numbers_keep_the_fleet() -> None:
    world = in_service(variant("a", 2))
    before = set(world.rows)
    world.status, world.wanted = "Updating", fleet("f", variant("a", 3, weight=0.5))
    world.calm(4)
    assert (world.status, len(world.routed)) == ("InService", 3)
    assert before < set(world.rows)
    world.status, world.wanted = "Updating", fleet("f", variant("a", 1))
    world.calm(4)
    assert (world.status, len(world.rows)) == ("InService", 1)
    assert set(world.rows) < before


def test_the_same_numbers_again_are_in_service_again() -> None:
    world = in_service(variant())
    world.status = "Updating"
    world.step()
    assert world.status == "InService"


def test_a_failed_update_goes_back_and_never_stops_serving() -> None:
    world = in_service(variant("a", 2))
    serving = set(world.routed)
    world.status, world.wanted = "Updating", fleet("g", variant("a", 2))
    world.step()
    new = next(id_ for id_ in world.phases if id_ not in serving)
    world.phases[new] = "exited"
    world.calm(4)
    assert (world.status, world.routed, set(world.rows)) == ("InService", serving, serving)
    assert world.wanted.id == "f"
    assert world.state.problem is not None


def test_deleting_withdraws_first_and_leaves_nothing() -> None:
    world = in_service(variant("a", 2))
    world.status = "Deleting"
    plan = world.step()
    assert (plan.traffic, len(plan.retire)) == (None, 2)
    world.step()
    world.step()
    assert world.is_gone


PHASES: list[Phase] = ["starting", "ready", "unhealthy", "stopping", "exited", "missing"]
FLEETS = st.builds(
    lambda id_, counts: fleet(id_, *(variant(f"v{n}", count) for n, count in enumerate(counts))),
    st.sampled_from("fg"),
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), first=FLEETS)
def test_whatever_happens_it_converges(data: st.DataObject, first: Fleet) -> None:
    """Random phases and random updates; then calm: one fleet, all of it routed, nothing else."""
    world = World(first)
    for _ in range(data.draw(st.integers(0, 8), label="steps")):
        for id_ in list(world.phases):
            if data.draw(st.integers(0, 3), label="strikes") == 0:
                world.phases[id_] = data.draw(st.sampled_from(PHASES), label=id_)
        if world.status == "InService" and data.draw(st.booleans(), label="updates"):
            world.status, world.wanted = "Updating", data.draw(FLEETS, label="to")
        world.step()
        assert {id_ for id_ in world.routed if world.phases.get(id_) != "ready"} == set()
    is_failing = world.state.problem is not None and world.state.fleet is None
    for id_, phase in world.phases.items():
        if phase == "stopping":
            world.phases[id_] = "exited"
    world.calm()
    if is_failing or world.status == "Failed":
        assert (world.status, world.rows) == ("Failed", {})
        return
    assert world.status == "InService"
    assert world.routed == set(world.rows)
    assert len(world.rows) == sum(v.count for v in world.wanted.variants)
    assert decide(world.seen()).again_after_s is None


def test_the_newest_incarnation_stands_in_a_place() -> None:
    rows = tuple(
        InstanceRow(InstanceId(f"i{n}"), Slot("f", "v", 0, n), True, True, "ready", 0, NOW) for n in (0, 1)
    )
    statuses = {row.id: InstanceStatus(row.id, "ready", address="unix:/x") for row in rows}
    spec = EndpointSpec(fleet(), NOW)
    plan = decide(Seen("e", "InService", spec, EndpointState(fleet=fleet()), rows, statuses, NOW))
    assert plan.retire == (InstanceId("i0"),)
    assert plan.traffic is not None
    assert [t.instance_id for t in plan.traffic.variants[0].targets] == ["i1"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("PingTimeout", "The primary container for production variant v did not pass the ping health check."),
        ("OutOfMemory", "The primary container for production variant v did not pass the ping health check."),
        (
            "ArtifactMissing",
            'Failed to download model data for container "container_1" from URL: "s3://b/k".',
        ),
        ("ImageNotSupported", "The image 'image' does not exist."),
        ("EnvironmentFailed", "Request to service failed."),
    ],
)
def test_Z01_a_failure_reason_begins_as_sagemakers_does(code: str, sentence: str) -> None:
    failed = replace(variant(), artifacts=(Artifact("s3://b/k"),))
    status = InstanceStatus(InstanceId("i"), "exited", failure=Failure(code, "It did this.", exit_code=3))
    reason = deployment_problem("e", failed, status).reason
    assert reason.startswith(sentence)
    assert "It did this." in reason
    assert "Exit code 3." in reason
    assert reason.endswith("Run: clary why e")


def test_Z01_the_command_of_a_failure_reason_finds_a_server_elsewhere() -> None:
    status = InstanceStatus(InstanceId("i"), "exited", failure=Failure("Exited", "It did this."))
    reason = deployment_problem("e", variant(), status, " --data-dir /elsewhere").reason
    assert reason.endswith("Run: clary why e --data-dir /elsewhere")


@given(st.text(max_size=3000), st.lists(st.text(max_size=600), max_size=30), st.integers(0, 1 << 40))
def test_Z01_a_failure_reason_always_fits(reason: str, log: list[str], peak: int) -> None:
    failure = Failure("OutOfMemory", reason, tuple(log), memory_peak_bytes=peak, memory_limit_bytes=peak)
    status = InstanceStatus(InstanceId("i"), "exited", failure=failure)
    text = deployment_problem("e" * 63, variant("v" * 63), status).reason
    assert len(text) <= LONGEST_REASON
    assert text.endswith("Run: clary why " + "e" * 63)


def test_Z02_stopping_and_starting_everything_is_no_failure_however_often() -> None:
    world = in_service(variant("a", 1))
    for _ in range(6):
        row = max(world.rows.values(), key=lambda row: row.slot.incarnation)
        world.rows[row.id] = replace(row, phase="ready")  # what control had last written down
        world.phases.clear()
        assert [new.delay_s for new in world.step().create] == [0.0]
        world.step()
        world.bring_up()
        world.step()
        assert len(world.routed) == 1
