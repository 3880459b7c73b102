"""DeploymentConfig: read, and refused where SageMaker would refuse it or where it could never succeed.

`read_policy` judges what stands in the request alone; `check_fleet` what only the fleet that is to come can tell,
because sizes are shares of a variant's instances; `require_alarms` what only the store knows.
"""

import math

from clary.domain.deployments import AT_ONCE, CapacitySize, DeploymentPolicy, Strategy
from clary.domain.endpoints import Fleet, Variant
from clary.domain.faults import Fault, validation
from clary.store import Transaction
from clary.store.alarms import find_alarm
from clary.wire.operations import Call
from clary.wire.shapes import sagemaker as shapes

_LARGEST_PERCENT = 50
_SMALLEST_PERCENT = {"CanarySize": 1, "LinearStepSize": 10, "MaximumBatchSize": 5}

_STEP_MEMBERS: dict[Strategy, str] = {
    "CANARY": "CanarySize",
    "LINEAR": "LinearStepSize",
    "ROLLING": "MaximumBatchSize",
}
_ALONE = " A variant of one instance takes a size of type CAPACITY_PERCENT, and is moved whole."


def read_policy(config: shapes.DeploymentConfig | None) -> DeploymentPolicy:
    """The policy that was asked for; without one, everything at once. Raises ValidationException."""
    if not config:
        return AT_ONCE
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    alarms = _alarm_names(config.get("AutoRollbackConfiguration"))
    if blue_green is not None and rolling is not None:
        raise _invalid("Specify either BlueGreenUpdatePolicy or RollingUpdatePolicy, not both.")
    if rolling is not None:
        return _rolling(rolling, alarms)
    if blue_green is not None:
        return _blue_green(blue_green, alarms)
    return DeploymentPolicy(alarms=alarms)


def check_fleet(policy: DeploymentPolicy, fleet: Fleet) -> None:
    """Raises ValidationException when the policy cannot be followed with this fleet."""
    for variant in fleet.variants:
        _check_count(policy, variant)
    waits_s = max(_waits_s(policy, variant.count) for variant in fleet.variants)
    if policy.maximum_execution_s is not None and policy.maximum_execution_s <= waits_s:
        raise _invalid(
            f"MaximumExecutionTimeoutInSeconds {policy.maximum_execution_s:.0f} must be larger than all waits of the "
            f"deployment together, which are {waits_s:.0f} seconds: WaitIntervalInSeconds after each of "
            f"{_most_shifts(policy, fleet)} traffic shift(s), and TerminationWaitInSeconds."
        )


def require_alarms(tx: Transaction, call: Call, policy: DeploymentPolicy) -> None:
    """Raises ValidationException when an alarm is not there: nobody would ever roll back because of it."""
    absent = [n for n in policy.alarms if find_alarm(tx, call.account, call.region, n) is None]
    if absent:
        raise _invalid(
            f"AutoRollbackConfiguration names CloudWatch alarms that do not exist in {call.region}: "
            f"{', '.join(absent)}. Create them with PutMetricAlarm first."
        )


def _blue_green(asked: shapes.BlueGreenUpdatePolicy, alarms: tuple[str, ...]) -> DeploymentPolicy:
    routing = asked["TrafficRoutingConfiguration"]
    strategy: Strategy
    match routing["Type"]:
        case "CANARY":
            strategy, size = "CANARY", routing.get("CanarySize")
        case "LINEAR":
            strategy, size = "LINEAR", routing.get("LinearStepSize")
        case _:
            strategy, size = "ALL_AT_ONCE", None
    wanted = _STEP_MEMBERS.get(strategy)
    for member in ("CanarySize", "LinearStepSize"):
        if member in routing and member != wanted:
            raise _invalid(f"{member} does not belong to traffic routing of type {routing['Type']}.")
    if wanted is not None and size is None:
        raise _invalid(f"{wanted} must be specified for traffic routing of type {routing['Type']}.")
    return DeploymentPolicy(
        strategy=strategy,
        step=None if wanted is None or size is None else _size(wanted, size, _SMALLEST_PERCENT[wanted]),
        wait_s=float(routing.get("WaitIntervalInSeconds", 0)),
        termination_wait_s=float(asked.get("TerminationWaitInSeconds", 0)),
        maximum_execution_s=_timeout_s(asked.get("MaximumExecutionTimeoutInSeconds")),
        alarms=alarms,
    )


def _rolling(asked: shapes.RollingUpdatePolicy, alarms: tuple[str, ...]) -> DeploymentPolicy:
    back = asked.get("RollbackMaximumBatchSize")
    return DeploymentPolicy(
        strategy="ROLLING",
        step=_size("MaximumBatchSize", asked["MaximumBatchSize"], _SMALLEST_PERCENT["MaximumBatchSize"]),
        wait_s=float(asked["WaitIntervalInSeconds"]),
        maximum_execution_s=_timeout_s(asked.get("MaximumExecutionTimeoutInSeconds")),
        rollback_step=None if back is None else _size("RollbackMaximumBatchSize", back, 1, 100),
        alarms=alarms,
    )


def _size(
    member: str, asked: shapes.CapacitySize, smallest: int, largest: int = _LARGEST_PERCENT
) -> CapacitySize:
    value = asked["Value"]
    if asked["Type"] == "INSTANCE_COUNT":
        return CapacitySize("INSTANCE_COUNT", value)
    if not smallest <= value <= largest:
        raise _invalid(
            f"{member} must be {_between(smallest, largest)} of the variant's total instance count; it is {value}%."
        )
    return CapacitySize("CAPACITY_PERCENT", value)


def _alarm_names(rollback: shapes.AutoRollbackConfig | None) -> tuple[str, ...]:
    """Each once, in the order they were given."""
    return tuple(
        dict.fromkeys(
            alarm["AlarmName"] for alarm in (rollback or {}).get("Alarms", []) if "AlarmName" in alarm
        )
    )


def _timeout_s(asked: int | None) -> float | None:
    return None if asked is None else float(asked)


def _check_count(policy: DeploymentPolicy, variant: Variant) -> None:
    """A step given in instances keeps to the same limits as one in percent, of every variant."""
    step, member = policy.step, _STEP_MEMBERS.get(policy.strategy, "")
    if step is not None and step.type == "INSTANCE_COUNT":
        smallest = _SMALLEST_PERCENT[member]
        if not smallest * variant.count <= 100 * step.value <= _LARGEST_PERCENT * variant.count:
            raise _invalid(
                f"{member} must be {_between(smallest, _LARGEST_PERCENT)} of the variant's total instance count; "
                f"{step.value} of the {variant.count} instance(s) of variant {variant.name} are "
                f"{100 * step.value / variant.count:.0f}%.{_ALONE if variant.count == 1 else ''}"
            )
    back = policy.rollback_step
    if back is not None and back.type == "INSTANCE_COUNT" and back.value > variant.count:
        raise _invalid(
            f"RollbackMaximumBatchSize {back.value} is more than the {variant.count} instance(s) of variant "
            f"{variant.name}."
        )


def _waits_s(policy: DeploymentPolicy, count: int) -> float:
    return _shifts(policy, count) * policy.wait_s + policy.termination_wait_s


def _most_shifts(policy: DeploymentPolicy, fleet: Fleet) -> int:
    return max(_shifts(policy, variant.count) for variant in fleet.variants)


def _shifts(policy: DeploymentPolicy, count: int) -> int:
    """How often traffic moves until all of a variant's instances take it."""
    if policy.step is None:
        return 1
    first = policy.step.of(count)
    if policy.strategy == "CANARY":
        return 1 if first >= count else 2
    return math.ceil(count / first)


def _between(smallest: int, largest: int) -> str:
    return f"at most {largest}%" if smallest == 1 else f"between {smallest}% and {largest}%"


def _invalid(why: str) -> Fault:
    return validation(f"Invalid DeploymentConfig: {why}")
