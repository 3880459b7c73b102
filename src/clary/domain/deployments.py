"""How an endpoint moves from one fleet to the next: the policy that was asked for, and how far it has come.

Blue is the fleet in force, green the one that is deployed. Traffic follows green's activated capacity: with k of a
variant's N green instances activated, green has the share k/N of that variant's traffic.

Source of the behaviour: SageMaker Developer Guide, "deployment guardrails".
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Strategy = Literal["ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING"]

DEPLOYMENT_KIND = "deployment"
"""Deployment records are resources of this kind; `parent` is the endpoint's ARN, `name` `ENDPOINT/ID`."""


@dataclass(frozen=True, slots=True)
class CapacitySize:
    """So many instances, or so many percent of a variant's instances, rounded up: at least one."""

    type: Literal["INSTANCE_COUNT", "CAPACITY_PERCENT"]
    value: int

    def of(self, total: int) -> int:
        """In instances, of a variant that has `total`; never more than those."""
        wanted = self.value if self.type == "INSTANCE_COUNT" else math.ceil(total * self.value / 100)
        return min(total, max(1, wanted))


@dataclass(frozen=True, slots=True)
class DeploymentPolicy:
    """DeploymentConfig, read. Times in seconds. `step` is the canary, a linear step or a rolling batch."""

    strategy: Strategy = "ALL_AT_ONCE"
    step: CapacitySize | None = None
    wait_s: float = 0.0
    termination_wait_s: float = 0.0
    maximum_execution_s: float | None = None
    rollback_step: CapacitySize | None = None  # rolling: None restores everything at once
    alarms: tuple[str, ...] = ()


AT_ONCE = DeploymentPolicy()
"""What SageMaker does where nothing is asked for: blue/green, all at once, no baking."""

Stage = Literal[
    "provisioning",  # green (or the next batch) starts; traffic is untouched
    "activating",  # traffic moves one step
    "baking",  # traffic stays; alarms are watched
    "terminating",  # everything runs on green; blue waits out TerminationWaitInSeconds
    "rolling-back",  # all traffic goes back to blue
]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment under way, as the endpoint's state keeps it. Every field is stored before it is acted on."""

    id: str
    started_at: datetime
    stage: Stage = "provisioning"
    stage_since: datetime | None = None
    activated: dict[str, int] = field(default_factory=dict)  # variant → green instances that take traffic
    retained: dict[str, int] = field(default_factory=dict)  # rolling: variant → blue instances that are kept
    is_traced: bool = True  # green's metrics carry EndpointConfigName too
    reason: str = ""  # why it is rolled back


Verdict = Literal["in-progress", "succeeded", "rolled-back", "rollback-failed", "failed", "superseded"]


@dataclass(frozen=True, slots=True)
class DeploymentStep:
    """One thing that was done, with what was seen: instances ready, alarms' states, weights, reasons."""

    at: datetime
    step: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeploymentRequest:
    """The spec of a deployment record: who asked for what."""

    id: str
    endpoint_name: str
    operation: str  # CreateEndpoint, UpdateEndpoint
    requested_by: str  # the caller's ARN
    from_config: str  # empty for a creation
    to_config: str
    changes: tuple[
        str, ...
    ]  # the difference, a line each: `AllTraffic.instance_type: ml.m5.large → ml.m5.xlarge`
    policy: DeploymentPolicy
    started_at: datetime


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """The state of a deployment record: what came of it. Its resource's status is the verdict."""

    verdict: Verdict = "in-progress"
    reason: str = ""
    steps: tuple[DeploymentStep, ...] = ()
    ended_at: datetime | None = None
