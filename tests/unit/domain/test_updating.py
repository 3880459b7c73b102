"""Updates to another fleet: which instance takes which traffic at every stage, and every way back."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.deployments import CapacitySize, Strategy
from clary.domain.failures import overdue_problem
from clary.domain.places import MOST_FAILURES
from clary.domain.rollout import decide
from control.world import World, fleet, in_service, policy, variant

GREEN = fleet("g", variant("a", 4))


def updating(strategy: Strategy = "CANARY", step: int | str = 1, **how: object) -> World:
    world = in_service(variant("a", 4))
    world.update(GREEN, policy(strategy, step, **{"wait_s": 60.0, **how}))  # type: ignore[arg-type]
    world.settle()
    return world


def test_H14_all_at_once_moves_everything_when_all_of_it_is_ready() -> None:
    world = in_service(variant("a", 2))
    old = set(world.routed)
    world.update(GREEN)
    world.step()
    assert world.routed == old
    for id_ in [id_ for id_ in world.phases if id_.startswith("g/")][:3]:
        world.phases[id_] = "ready"
    world.step()
    assert (world.status, world.routed) == ("Updating", old)
    world.bring_up()
    world.calm(4)
    assert (world.status, world.serving(), len(world.rows)) == ("InService", {"g": 4}, 4)
    assert world.state.fleet == GREEN
    assert world.state.deployment is None
    assert world.steps[-4:] == [
        "deployment began",
        "new instances ready",
        "traffic shifted",
        "in service",
    ]


def test_D02_a_canary_bakes_before_and_after_the_rest_follows() -> None:
    world = updating()
    assert (world.shares, world.serving()) == ({"f": 0.75, "g": 0.25}, {"f": 4, "g": 1})
    world.pass_time(59)
    assert world.step().again_after_s == 1.0
    world.pass_time(1)
    world.settle()
    assert (world.shares, world.status) == ({"g": 1.0}, "Updating")
    assert len([row for row in world.rows.values() if row.is_wanted]) == 8  # blue stays to the end
    world.pass_time(60)
    world.settle()
    assert (world.status, world.serving(), set(world.rows)) == ("InService", {"g": 4}, world.routed)


def test_D03_a_linear_shift_ends_with_the_remainder() -> None:
    world = updating("LINEAR", "30%")
    shares = [world.shares["g"]]
    while world.status == "Updating":
        world.pass_time(60)
        world.settle()
        shares.append(world.shares["g"])
    assert shares == [0.5, 1.0, 1.0]  # 30 % of four is two instances
    big = in_service(variant("a", 10))
    big.update(fleet("g", variant("a", 10)), policy("LINEAR", "30%", wait_s=1.0))
    big.settle()
    shares = [big.shares["g"]]
    while big.status == "Updating":
        big.pass_time(1)
        big.settle()
        shares.append(big.shares["g"])
    assert shares == [0.3, 0.6, 0.9, 1.0, 1.0]


def test_D04_a_rolling_update_replaces_batch_by_batch() -> None:
    world = updating("ROLLING", "25%")
    seen = [dict(world.serving())]
    while world.status == "Updating":
        world.pass_time(60)
        world.settle()
        seen.append(dict(world.serving()))
    assert seen == [{"f": 3, "g": 1}, {"f": 2, "g": 2}, {"f": 1, "g": 3}, {"g": 4}, {"g": 4}]
    assert world.most_rows <= 6  # four, a batch, and what is just ending


def test_D01_the_old_fleet_waits_out_its_termination() -> None:
    world = updating("ALL_AT_ONCE", "", wait_s=0.0, termination_wait_s=300.0)
    assert world.shares == {"g": 1.0}
    assert world.state.deployment is not None
    assert world.state.deployment.stage == "terminating"
    assert len(world.ready()) == 8
    world.pass_time(300)
    world.settle()
    assert (world.status, len(world.rows)) == ("InService", 4)


@pytest.mark.parametrize("stage", ["provisioning", "baking", "terminating"])
def test_D05_an_alarm_rolls_back_at_every_stage(stage: str) -> None:
    world = in_service(variant("a", 4))
    old = set(world.routed)
    world.alarms = {"errors": "OK"}
    world.update(GREEN, policy("CANARY", 1, wait_s=60.0, termination_wait_s=60.0, alarms=("errors",)))
    world.step()
    for n in range({"provisioning": 0, "baking": 1, "terminating": 3}[stage]):
        world.pass_time(60 if n else 0)
        world.settle()
    assert world.state.deployment is not None
    assert world.state.deployment.stage == stage
    plan = decide(world.seen())
    assert plan.again_after_s is not None
    assert plan.again_after_s <= 1.0
    world.alarms["errors"] = "ALARM"
    world.step()
    assert world.status == "RollingBack"
    world.step()
    assert (world.status, world.routed) == ("InService", old)
    assert world.state.problem is not None
    assert world.state.problem.reason.startswith("Deployment failed: one or more alarms")
    assert "errors: ALARM" in world.state.problem.reason
    world.calm(3)
    assert set(world.rows) == old


def test_D05_an_alarm_that_is_in_alarm_at_the_start_fails_the_update_before_anything_moves() -> None:
    world = in_service(variant("a", 4))
    world.alarms = {"errors": "ALARM"}
    world.update(GREEN, policy(alarms=("errors",)))
    before = set(world.rows)
    world.calm(3)
    assert (world.status, set(world.rows), world.routed) == ("InService", before, before)
    assert world.wanted.id == "f"


@pytest.mark.parametrize(("state", "goes_on"), [("OK", True), ("INSUFFICIENT_DATA", True), (None, False)])
def test_D05_no_data_is_no_reason_but_an_alarm_that_is_gone_is(state: str | None, goes_on: bool) -> None:
    world = in_service(variant("a", 1))
    world.alarms = {} if state is None else {"errors": state}
    world.update(fleet("g", variant("a", 1)), policy(alarms=("errors",)))
    world.calm(4)
    assert (world.state.fleet == world.wanted, world.wanted.id) == (True, "g" if goes_on else "f")


def test_D05_an_update_that_takes_too_long_is_rolled_back() -> None:
    world = in_service(variant("a", 1))
    world.update(fleet("g", variant("a", 1)), policy(maximum_execution_s=600.0))
    world.step()
    world.pass_time(601)
    world.step()
    world.step()
    assert world.status == "InService"
    assert world.state.problem is not None
    assert "maximum execution timeout" in world.state.problem.reason


def test_D05_a_green_fleet_that_cannot_start_never_gets_a_request() -> None:
    world = in_service(variant("a", 2))
    serving = set(world.routed)
    world.update(GREEN, policy("CANARY", 1))
    world.step()
    new = next(id_ for id_ in world.phases if id_ not in serving)
    world.phases[new] = "exited"
    world.step()
    assert (world.status, world.routed) == ("RollingBack", serving)
    world.calm(4)
    assert (world.status, world.routed, set(world.rows)) == ("InService", serving, serving)
    assert world.wanted.id == "f"
    assert world.state.problem is not None


def test_D05_one_that_worked_may_die_twice_while_it_bakes_and_not_three_times() -> None:
    world = updating("CANARY", 2, wait_s=3600.0)
    for death in range(1, MOST_FAILURES + 1):
        assert world.status == "Updating", death
        (first,) = [id_ for id_ in world.routed if id_.startswith("g/a/0/")]
        world.phases[first] = "exited"
        world.step()
        world.pass_time(2.0)
        world.settle()
    assert world.status == "InService"
    assert world.wanted.id == "f"


def test_H14_while_a_canary_instance_is_replaced_another_one_takes_its_part() -> None:
    world = updating("CANARY", 1)
    (canary,) = [id_ for id_ in world.routed if id_.startswith("g/")]
    world.phases[canary] = "exited"
    world.step()
    assert (world.shares, world.serving()) == ({"f": 0.75, "g": 0.25}, {"f": 4, "g": 1})
    assert canary not in world.routed


def test_H14_what_is_missing_of_green_is_served_by_blue_meanwhile() -> None:
    world = updating("CANARY", 2)
    world.pass_time(60)
    world.settle()
    assert world.shares == {"g": 1.0}
    world.phases["g/a/0/0"] = "unhealthy"  # type: ignore[index]
    world.step()
    assert world.shares == {"g": 0.75, "f": 0.25}
    world.pass_time(60)
    assert world.step().outcome == "continue"  # nothing moves on before it is whole again
    world.settle()
    assert (world.status, world.shares) == ("InService", {"g": 1.0})


def test_H14_blue_is_kept_whole_during_an_update() -> None:
    world = updating("CANARY", 1)
    world.phases["f/a/2/0"] = "exited"  # type: ignore[index]
    world.settle()
    assert world.serving() == {"f": 4, "g": 1}


def test_D06_a_rolling_update_goes_back_step_by_step() -> None:
    size = CapacitySize("INSTANCE_COUNT", 1)
    world = in_service(variant("a", 4))
    world.alarms = {"errors": "OK"}
    world.update(GREEN, policy("ROLLING", 1, wait_s=60.0, rollback_step=size, alarms=("errors",)))
    world.settle()
    world.pass_time(60)
    world.settle()
    assert world.serving() == {"f": 2, "g": 2}
    world.alarms["errors"] = "ALARM"
    world.step()
    assert (world.status, world.serving()) == ("RollingBack", {"f": 2, "g": 2})
    mixes = []
    while world.status == "RollingBack":
        assert sum(world.serving().values()) >= 4
        mixes.append(tuple(sorted(world.serving().items())))
        world.bring_up()
        world.step()
    assert (("f", 3), ("g", 1)) in mixes
    assert (world.status, world.serving(), world.wanted.id) == ("InService", {"f": 4}, "f")
    world.calm(3)
    assert len(world.rows) == 4


def test_D06_a_rollback_that_fails_leaves_the_mix_serving_and_the_next_update_repairs_it() -> None:
    world = updating("ROLLING", 2)
    assert world.serving() == {"f": 2, "g": 2}
    world.phases["g/a/0/0"] = "exited"  # type: ignore[index]
    for _ in range(MOST_FAILURES):  # green dies again and again
        world.step()
        for id_, phase in world.phases.items():
            if id_.startswith("g/a/0/") and phase in ("starting", "ready"):
                world.ready_since[id_] = world.now
                world.phases[id_] = "exited"
        world.pass_time(5)
    world.step()
    assert world.status == "RollingBack"
    for _ in range(4):  # and blue cannot be started again
        world.step()
        for id_, phase in world.phases.items():
            if id_.startswith("f/") and phase == "starting":
                world.phases[id_] = "exited"
    assert world.status == "UpdateRollbackFailed"
    assert world.state.problem is not None
    assert "so did its rollback" in world.state.problem.reason
    assert world.serving() == {"f": 2, "g": 1}  # one of them is dead just now
    world.calm(3)
    assert world.status == "UpdateRollbackFailed"
    assert world.serving() == {"f": 4, "g": 2}  # what could not be started is tried again
    assert world.shares == {"f": 0.5, "g": 0.5}
    world.update(fleet("h", variant("a", 4)), policy("CANARY", 1, wait_s=60.0))
    world.settle()
    assert world.shares == {"f": 0.375, "g": 0.375, "h": 0.25}
    world.pass_time(60)
    world.settle()
    world.pass_time(60)
    world.settle()
    assert (world.status, world.serving()) == ("InService", {"h": 4})
    assert world.state.leftover is None
    assert len(world.rows) == 4


def test_D06_a_repair_that_fails_keeps_the_mix() -> None:
    world = in_service(variant("a", 2))
    left = fleet("g", variant("a", 2))
    world.update(left, policy("ROLLING", 1, wait_s=60.0))
    world.settle()
    assert world.state.deployment is not None
    world.status = "RollingBack"
    deployment = replace(world.state.deployment, stage="rolling-back", retained={"a": 1})
    world.state = replace(world.state, problem=overdue_problem("e", 600.0, "baking"), deployment=deployment)
    for _ in range(4):
        world.step()
        for id_, phase in world.phases.items():
            if id_.startswith("f/") and phase == "starting":
                world.phases[id_] = "exited"
    assert world.status == "UpdateRollbackFailed"
    world.calm(2)
    world.update(fleet("h", variant("a", 1)), policy())
    world.step()
    world.phases["h/a/0/0"] = "exited"  # type: ignore[index]
    world.step()
    world.calm(3)
    assert world.status == "UpdateRollbackFailed"
    assert world.serving() == {"f": 2, "g": 1}


def test_H11_a_failed_change_of_numbers_goes_back_to_the_old_ones() -> None:
    world = in_service(variant("a", 2))
    old = set(world.routed)
    world.update(fleet("f", variant("a", 3, weight=0.5)))
    world.step()
    world.phases["f/a/2/0"] = "exited"  # type: ignore[index]
    world.step()
    assert world.status == "RollingBack"
    world.step()
    assert (world.status, world.routed) == ("InService", old)
    assert world.wanted.variants[0].count == 2
    world.calm(2)
    assert set(world.rows) == old


def test_an_instance_of_a_place_that_was_given_up_is_never_taken_for_a_new_one() -> None:
    world = in_service(variant("a", 2))
    world.update(fleet("f", variant("a", 1)))
    world.calm(3)
    world.update(fleet("f", variant("a", 2)))
    world.calm(3)
    assert set(world.rows) == {"f/a/0/0", "f/a/1/1"}


def test_D08_a_shadow_gets_copies_and_fails_for_itself() -> None:
    world = World(fleet("f", variant("a", 1), shadows=(variant("s", 1, weight=0.5),)))
    world.step()
    world.bring_up("f/a")
    assert world.step().outcome == "continue"  # its first start is waited for
    world.phases["f/s/0/0"] = "exited"  # type: ignore[index]
    assert world.step().outcome == "promote"
    assert world.traffic is not None
    (shadow,) = world.traffic.shadows
    assert (shadow.name, shadow.weight, shadow.targets) == ("s", 0.5, ())
    assert [route.name for route in world.traffic.variants] == ["a"]
    world.calm(3)
    assert world.status == "InService"
    assert world.traffic is not None
    assert len(world.traffic.shadows[0].targets) == 1
    for _ in range(6):  # whatever becomes of it, the endpoint stays in service
        for id_ in [id_ for id_ in world.phases if id_.startswith("f/s")]:
            world.phases[id_] = "exited"
        world.step()
        assert world.status == "InService"


def test_D08_shadows_follow_when_everything_runs_on_the_new_fleet() -> None:
    world = in_service(variant("a", 2), shadows=(variant("s", 1, weight=0.25),))
    world.update(fleet("g", variant("a", 2), shadows=(variant("t", 1),)), policy("CANARY", 1, wait_s=60.0))
    world.settle()
    assert world.traffic is not None
    assert [shadow.name for shadow in world.traffic.shadows] == ["s"]
    world.pass_time(60)
    world.settle()
    assert [shadow.name for shadow in world.traffic.shadows] == ["t"]


COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=3)
WEIGHTS = st.floats(0.0, 10.0)
POLICIES = st.one_of(
    st.just(policy()),
    st.builds(lambda n: policy("CANARY", n, wait_s=10.0), st.sampled_from([1, "10%", "50%"])),
    st.builds(lambda n: policy("LINEAR", n, wait_s=10.0), st.sampled_from([1, "10%", "30%", "50%"])),
    st.builds(lambda n: policy("ROLLING", n, wait_s=10.0), st.sampled_from([1, "5%", "30%", "50%"])),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), old=COUNTS, new=COUNTS, how=POLICIES)
def test_H14_an_undisturbed_update_converges_and_never_drops_capacity(
    data: st.DataObject, old: list[int], new: list[int], how: object
) -> None:
    names = data.draw(st.permutations("abcd"), label="names")
    before = [variant(f"v{n}", count, data.draw(WEIGHTS)) for n, count in enumerate(old)]
    after = [variant(f"v{name}", c, data.draw(WEIGHTS)) for name, c in zip(names, new, strict=False)]
    after = [replace(v, name=f"v{n}") if data.draw(st.booleans()) else v for n, v in enumerate(after)]
    after = list({v.name: v for v in after}.values())
    world = in_service(*before)
    world.update(fleet("g", *after), how)  # type: ignore[arg-type]
    totals = {v.name: v.count for v in before}
    for _ in range(200):
        world.step()
        world.bring_up()
        world.now += timedelta(seconds=5)
        _check_shares(world)
        for v in after:
            if v.name in totals and world.traffic is not None:
                routed = [t for r in world.traffic.variants if r.name == v.name for t in r.targets]
                assert len(routed) >= min(v.count, totals[v.name])
        if world.status == "InService":
            break
    assert world.status == "InService"
    world.calm(3)
    assert world.routed == set(world.rows)
    assert len(world.rows) == sum(v.count for v in after)
    assert decide(world.seen()).again_after_s is None


def _check_shares(world: World) -> None:
    assert world.traffic is not None
    shares: dict[str, float] = {}
    for route in world.traffic.variants:
        assert route.share > 0.0
        assert route.weight >= 0.0
        shares[route.name] = shares.get(route.name, 0.0) + route.share
    assert all(abs(total - 1.0) < 1e-9 for total in shares.values())
