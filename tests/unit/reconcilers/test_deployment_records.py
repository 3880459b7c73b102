"""What a deployment's record keeps."""

from clary.domain.deployments import DEPLOYMENT_KIND, DeploymentRecord, DeploymentStep
from clary.reconcilers import deployment_records
from clary.reconcilers.deployment_records import MOST_STEPS
from control.harness import ACCOUNT, REGION, Control


def record(control: Control) -> DeploymentRecord:
    with control.store.read() as tx:
        found = tx.resources.get("d")
        assert found is not None
        return found.state_as(DeploymentRecord)


def test_Z03_the_first_and_the_newest_steps_are_kept(control: Control) -> None:
    with control.store.write() as tx:
        tx.resources.insert(
            uid="d",
            account=ACCOUNT,
            region=REGION,
            kind=DEPLOYMENT_KIND,
            arn="arn",
            name="e/d",
            status="in-progress",
            spec={},
            state=DeploymentRecord(),
        )
    now = control.clock.now()
    for first in range(0, 1000, 50):
        steps = [DeploymentStep(now, f"step {n}") for n in range(first, first + 50)]
        with control.store.write() as tx:
            deployment_records.append(tx, "d", steps, None, now)
    kept = [step.step for step in record(control).steps]
    assert len(kept) == MOST_STEPS
    assert (kept[0], kept[149], kept[150], kept[-1]) == ("step 0", "step 149", "step 850", "step 999")


def test_Z03_a_record_of_another_kind_is_left_alone(control: Control) -> None:
    control.endpoint()
    with control.store.write() as tx:
        found = tx.resources.find(ACCOUNT, REGION, "endpoint", "e")
        assert found is not None
        deployment_records.append(tx, found.uid, (), "succeeded", control.clock.now())
        assert tx.resources.get(found.uid) == found
