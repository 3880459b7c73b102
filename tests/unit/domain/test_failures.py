"""FailureReason of updates that were rolled back. Those of instances: `test_rollout`."""

from hypothesis import given
from hypothesis import strategies as st

from clary.domain.failures import (
    LONGEST_REASON,
    alarm_problem,
    deployment_problem,
    overdue_problem,
    rollback_problem,
)
from clary.domain.instances import Failure, InstanceId, InstanceStatus
from control.world import variant


def test_D05_the_reason_names_the_alarms() -> None:
    reason = alarm_problem("e", {"errors": "ALARM", "latency": "deleted"}).reason
    assert reason.splitlines() == [
        "Deployment failed: one or more alarms configured for the deployment are in ALARM state.",
        "Alarm errors: ALARM; alarm latency: deleted.",
        "Run: clary why e",
    ]
    assert "no longer exist" in alarm_problem("e", {"errors": "deleted"}).reason


def test_D05_the_reason_says_why_the_alarm_is_in_its_state() -> None:
    crossed = "Threshold Crossed: 1 datapoint [3.0 (21/11/26 09:00:00)] was greater than the threshold (1.0)."
    problem = alarm_problem("e", {"errors": "ALARM"}, reasons={"errors": crossed, "other": "no matter"})
    assert problem.reason.splitlines()[1] == f"Alarm errors: ALARM ({crossed[:-1]})."


def test_D05_the_reason_names_the_limit_and_the_stage() -> None:
    reason = overdue_problem("e", 600.0, "baking").reason
    assert "MaximumExecutionTimeoutInSeconds is 600; it had come to the stage baking." in reason


@given(st.lists(st.text(min_size=1, max_size=255), min_size=1, max_size=10), st.text(max_size=2000))
def test_D06_a_reason_always_fits_and_ends_with_what_to_do(alarms: list[str], said: str) -> None:
    name = "e" * 63
    update = alarm_problem(name, dict.fromkeys(alarms, "ALARM"))
    status = InstanceStatus(InstanceId("i"), "exited", failure=Failure("Exited", said, ("x" * 500,) * 9))
    back = deployment_problem(name, variant("v" * 63), status)
    for problem in (update, rollback_problem(update, back)):
        assert len(problem.reason) <= LONGEST_REASON
        assert problem.reason.endswith(f"Run: clary why {name}")
