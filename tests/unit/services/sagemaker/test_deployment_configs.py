"""DeploymentConfig: what is read from it, and every rule that refuses one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.domain.deployments import AT_ONCE, CapacitySize, DeploymentPolicy
from clary.domain.endpoints import Fleet, Variant
from clary.domain.faults import Fault
from clary.services.sagemaker.deployment_configs import check_fleet, read_policy


def size(value: int, type_: str = "CAPACITY_PERCENT") -> dict[str, object]:
    return {"Type": type_, "Value": value}


def blue_green(type_: str, *, wait: int = 0, **members: Any) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        name: members.pop(name) for name in ("CanarySize", "LinearStepSize") if name in members
    }
    routing: dict[str, Any] = {"Type": type_, "WaitIntervalInSeconds": wait, **sizes}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **members}}


def rolling(batch: dict[str, object], **members: Any) -> dict[str, Any]:
    policy = {"MaximumBatchSize": batch, "WaitIntervalInSeconds": 5} | members
    return {"RollingUpdatePolicy": policy}


def alarms(*names: str) -> dict[str, Any]:
    return {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in names]}}


def fleet(*counts: int) -> Fleet:
    def variant(number: int, count: int) -> Variant:
        return Variant(f"V{number}", "m", "image", "ml.m5.large", 2, 8 << 30, 0, weight=1.0, count=count)

    return Fleet("f", "c", tuple(variant(number, count) for number, count in enumerate(counts)))


def read(config: Any) -> DeploymentPolicy:
    return read_policy(config)


def test_D01_without_a_policy_everything_moves_at_once() -> None:
    assert read(None) == read({}) == AT_ONCE
    assert read(alarms("b", "a", "b")) == DeploymentPolicy(alarms=("b", "a"))


def test_D02_D03_D04_D06_every_member_of_a_blue_green_policy_is_read() -> None:
    config = blue_green(
        "CANARY",
        wait=60,
        CanarySize=size(10),
        TerminationWaitInSeconds=30,
        MaximumExecutionTimeoutInSeconds=600,
    )
    assert read(config | alarms("a")) == DeploymentPolicy(
        "CANARY", CapacitySize("CAPACITY_PERCENT", 10), 60.0, 30.0, 600.0, None, ("a",)
    )
    assert read(blue_green("LINEAR", LinearStepSize=size(2, "INSTANCE_COUNT"))) == DeploymentPolicy(
        "LINEAR", CapacitySize("INSTANCE_COUNT", 2)
    )
    assert read(blue_green("ALL_AT_ONCE", wait=7)) == DeploymentPolicy(wait_s=7.0)


def test_D01_every_member_of_a_rolling_policy_is_read() -> None:
    config = rolling(size(5), RollbackMaximumBatchSize=size(100), MaximumExecutionTimeoutInSeconds=28800)
    assert read(config) == DeploymentPolicy(
        "ROLLING",
        CapacitySize("CAPACITY_PERCENT", 5),
        5.0,
        maximum_execution_s=28800.0,
        rollback_step=CapacitySize("CAPACITY_PERCENT", 100),
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (blue_green("ALL_AT_ONCE") | rolling(size(10)), "not both"),
        (blue_green("CANARY"), "CanarySize must be specified"),
        (blue_green("LINEAR"), "LinearStepSize must be specified"),
        (blue_green("LINEAR", CanarySize=size(10)), "CanarySize does not belong to .* LINEAR"),
        (
            blue_green("ALL_AT_ONCE", LinearStepSize=size(10)),
            "LinearStepSize does not belong to .* ALL_AT_ONCE",
        ),
        (blue_green("CANARY", CanarySize=size(51)), "CanarySize must be at most 50%"),
        (blue_green("LINEAR", LinearStepSize=size(9)), "LinearStepSize must be between 10% and 50%"),
        (blue_green("LINEAR", LinearStepSize=size(51)), "LinearStepSize must be between 10% and 50%"),
        (rolling(size(4)), "MaximumBatchSize must be between 5% and 50%"),
        (
            rolling(size(10), RollbackMaximumBatchSize=size(101)),
            "RollbackMaximumBatchSize must be at most 100%",
        ),
    ],
)
def test_D01_what_the_request_alone_shows_to_be_wrong_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(Fault, match=f"Invalid DeploymentConfig: .*{words}") as refused:
        read(config)
    assert refused.value.code == "ValidationException"


@pytest.mark.parametrize(
    ("config", "counts", "words"),
    [
        (
            blue_green("CANARY", CanarySize=size(1, "INSTANCE_COUNT")),
            (1,),
            "1 of the 1 .* V0 are 100%.* CAPACITY_PERCENT",
        ),
        (blue_green("CANARY", CanarySize=size(2, "INSTANCE_COUNT")), (4, 3), "2 of the 3 .* V1 are 67%"),
        (blue_green("LINEAR", LinearStepSize=size(1, "INSTANCE_COUNT")), (11,), "1 of the 11 .* are 9%"),
        (rolling(size(3, "INSTANCE_COUNT")), (5,), "3 of the 5"),
        (
            rolling(size(1, "INSTANCE_COUNT"), RollbackMaximumBatchSize=size(3, "INSTANCE_COUNT")),
            (2,),
            "more than the 2",
        ),
    ],
)
def test_D03_D04_steps_in_instances_keep_to_the_limits_of_every_variant(
    config: dict[str, Any], counts: tuple[int, ...], words: str
) -> None:
    with pytest.raises(Fault, match=words):
        check_fleet(read(config), fleet(*counts))


@pytest.mark.parametrize(
    ("config", "counts", "waits_s"),
    [
        (blue_green("ALL_AT_ONCE", wait=500, TerminationWaitInSeconds=100), (3,), 600),
        (blue_green("CANARY", wait=250, CanarySize=size(10), TerminationWaitInSeconds=100), (10,), 600),
        (blue_green("LINEAR", wait=150, LinearStepSize=size(30)), (10,), 600),
        (blue_green("LINEAR", wait=300, LinearStepSize=size(30)), (1, 2), 600),
        (rolling(size(50), WaitIntervalInSeconds=300), (4,), 600),
    ],
)
def test_D06_a_deployment_that_cannot_end_in_its_time_is_refused(
    config: dict[str, Any], counts: tuple[int, ...], waits_s: int
) -> None:
    (policy,) = config.values()
    policy["MaximumExecutionTimeoutInSeconds"] = waits_s
    with pytest.raises(Fault, match=f"which are {waits_s} seconds"):
        check_fleet(read(config), fleet(*counts))
    policy["MaximumExecutionTimeoutInSeconds"] = waits_s + 1
    check_fleet(read(config), fleet(*counts))


@given(
    st.sampled_from(("CANARY", "LINEAR")),
    st.integers(10, 50),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
def test_D03_D04_a_step_in_percent_fits_any_fleet(strategy: str, percent: int, counts: list[int]) -> None:
    sizes: dict[str, Any] = {{"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}[strategy]: size(percent)}
    check_fleet(read(blue_green(strategy, **sizes)), fleet(*counts))
