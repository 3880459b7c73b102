"""Autoscaling's records: scalable targets, their policies and scheduled actions, and what was done about them.

All four are resources. A scalable target's name is its ResourceId, `endpoint/ENDPOINT/variant/VARIANT`: whoever must
know whether a variant is scaled looks for that name among the kind `scalable-target`. Policies and scheduled actions
have the target's ARN as their parent; activities have `activities_parent`, and outlive the target.

Source of the behaviour: Application Auto Scaling User Guide.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from clary.domain.alarms import AlarmSpec
from clary.domain.arns import Arn

SCALABLE_TARGET_KIND = "scalable-target"
SCALING_POLICY_KIND = "scaling-policy"
SCHEDULED_ACTION_KIND = "scheduled-action"
SCALING_ACTIVITY_KIND = "scaling-activity"

NAMESPACE = "sagemaker"
INSTANCE_COUNT = "sagemaker:variant:DesiredInstanceCount"

ACTIVITIES_KEPT_FOR = timedelta(weeks=6)
MOST_ACTIVITIES = 1000
"""Of one ResourceId."""

DEFAULT_COOLDOWN_S = 300

Timing = Literal["fast", "aws"]

ActivityStatus = Literal["Pending", "InProgress", "Successful", "Overridden", "Unfulfilled", "Failed"]

Adjustment = Literal["ChangeInCapacity", "PercentChangeInCapacity", "ExactCapacity"]

Aggregation = Literal["Average", "Minimum", "Maximum"]


class VariantName(NamedTuple):
    endpoint: str
    variant: str


@dataclass(frozen=True, slots=True)
class Suspended:
    scaling_in: bool = False
    scaling_out: bool = False
    scheduled: bool = False


@dataclass(frozen=True, slots=True)
class ScalableTarget:
    """The spec of a scalable target. `endpoint` is written as the endpoint itself is."""

    resource_id: str
    endpoint: str
    variant: str
    min_capacity: int
    max_capacity: int
    role_arn: str
    suspended: Suspended = Suspended()


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the capacity that came into force. `before`: what the policy started from, a cool-down earlier."""

    at: datetime
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class TargetState:
    """What is under way, and what cool-downs count from. Stored before it is acted on."""

    activity: str = ""  # the uid of the activity under way
    wanted: int = 0  # the capacity it brings
    base: int | None = (
        None  # what the policy that asked for it started from; None: limits did, without cool-down
    )
    last_out: Change | None = None  # by a policy
    last_in: Change | None = None
    limits: tuple[int, int] | None = None  # those that the capacity was last held to
    not_scaled: tuple[str, str, str] | None = None  # policy, alarm and code of what was noted last
    retry_at: datetime | None = None  # after a refusal
    refusals: int = 0  # one after the other, with no success between them


@dataclass(frozen=True, slots=True)
class Tracking:
    """A target tracking policy. Cool-downs in seconds; `predefined` is empty for a customized metric."""

    target: float
    namespace: str
    metric: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str
    unit: str | None
    high_alarm: str
    low_alarm: str
    predefined: str = ""
    scales_in: bool = True
    out_cooldown_s: int = DEFAULT_COOLDOWN_S
    in_cooldown_s: int = DEFAULT_COOLDOWN_S

    @property
    def is_counted(self) -> bool:
        """Whether it tracks invocations per instance: capacity follows from the count of all of them then."""
        return (self.namespace, self.metric, self.statistic) == (
            "AWS/SageMaker",
            "InvocationsPerInstance",
            "Sum",
        )


@dataclass(frozen=True, slots=True)
class Step:
    """An interval of the distance from the alarm's threshold, None for an open end, and what is done in it."""

    lower: float | None
    upper: float | None
    amount: int


@dataclass(frozen=True, slots=True)
class Stepping:
    """A step scaling policy."""

    adjustment: Adjustment
    steps: tuple[Step, ...]
    least_change: int = 0  # MinAdjustmentMagnitude
    cooldown_s: int = DEFAULT_COOLDOWN_S
    aggregation: Aggregation = "Average"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """The spec of a scaling policy. `config` is what was asked for, as Describe shows it."""

    name: str
    resource_id: str
    tracking: Tracking | None = None
    stepping: Stepping | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Which alarms set off a step scaling policy: the name of each, and the state in which it does."""

    triggers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScheduledAction:
    """The spec of a scheduled action. `anchor` is what a rate counts from."""

    name: str
    resource_id: str
    schedule: str
    anchor: datetime
    time_zone: str = ""
    start: datetime | None = None
    end: datetime | None = None
    min_capacity: int | None = None
    max_capacity: int | None = None


@dataclass(frozen=True, slots=True)
class ScheduledState:
    """Up to when the schedule has been looked at: what was due until then is done."""

    seen_until: datetime


@dataclass(frozen=True, slots=True)
class NotScaled:
    code: str
    current: int | None = None
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Activity:
    """The spec of a scaling activity; its resource's status is the StatusCode."""

    resource_id: str
    description: str
    cause: str
    started_at: datetime
    ended_at: datetime | None = None
    message: str = ""
    not_scaled: tuple[NotScaled, ...] = ()


def resource_id(endpoint: str, variant: str) -> str:
    return f"endpoint/{endpoint}/variant/{variant}"


def parse_resource_id(text: str) -> VariantName | None:
    match = re.fullmatch(r"endpoint/([^/]+)/variant/([^/]+)", text)
    return None if match is None else VariantName(match[1], match[2])


def target_arn(region: str, account: str, uid: str) -> str:
    return str(Arn("aws", "application-autoscaling", region, account, f"scalable-target/{uid}"))


def policy_arn(region: str, account: str, uid: str, resource: str, name: str) -> str:
    path = f"scalingPolicy:{_dashed(uid)}:resource/{NAMESPACE}/{resource}:policyName/{name}"
    return str(Arn("aws", "autoscaling", region, account, path))


def policy_uid(arn: str) -> str | None:
    """The uid of the policy that a scaling policy's ARN names; None for another ARN."""
    match = re.match(r"arn:aws:autoscaling:[^:]*:[^:]*:scalingPolicy:([0-9a-f-]{36}):", arn)
    return None if match is None else match[1].replace("-", "")


def action_arn(region: str, account: str, uid: str, resource: str, name: str) -> str:
    path = f"scheduledAction:{_dashed(uid)}:resource/{NAMESPACE}/{resource}:scheduledActionName/{name}"
    return str(Arn("aws", "autoscaling", region, account, path))


def activities_parent(account: str, region: str, resource: str) -> str:
    """What the activities of a ResourceId have as their parent: they outlive the target."""
    return f"{account}:{region}:{resource.lower()}"


def activity_id(uid: str) -> str:
    return _dashed(uid)


def alarm_names(resource: str, uid: str) -> tuple[str, str]:
    """The two alarms of a target tracking policy: high and low."""
    prefix = f"TargetTracking-{resource}"
    return f"{prefix}-AlarmHigh-{_dashed(uid)}", f"{prefix}-AlarmLow-{_dashed(uid)}"


LOW_SHARE = 0.9
LOW_PERIODS = 15
"""Scaling in takes a quarter of an hour below nine tenths of the target."""


def tracking_alarms(tracking: Tracking, arn: str, timing: Timing) -> tuple[AlarmSpec, AlarmSpec]:
    """The alarms that say when there is too much to do and when too little. `arn` is the policy's.

    In AWS's timing three minutes above the target count. In the fast one ten seconds do for what this server counts
    itself, twenty for what it measures, and a minute for what comes from elsewhere, which seldom comes more often.
    """
    period_s, periods = (60, 3) if timing == "aws" else _fast_periods(tracking)
    threshold = tracking.target * period_s / 60 if tracking.is_counted else tracking.target
    high = AlarmSpec(
        name=tracking.high_alarm,
        description=_description(arn),
        namespace=tracking.namespace,
        metric=tracking.metric,
        dimensions=tracking.dimensions,
        statistic=tracking.statistic,
        unit=tracking.unit,
        period_s=period_s,
        evaluation_periods=periods,
        threshold=threshold,
        comparison="GreaterThanThreshold",
        alarm_actions=(arn,),
    )
    low = AlarmSpec(
        name=tracking.low_alarm,
        description=_description(arn),
        namespace=tracking.namespace,
        metric=tracking.metric,
        dimensions=tracking.dimensions,
        statistic=tracking.statistic,
        unit=tracking.unit,
        period_s=60,
        evaluation_periods=LOW_PERIODS,
        threshold=tracking.target * LOW_SHARE,
        comparison="LessThanThreshold",
        # Without requests there are no values: that is little to do, and not nothing known.
        missing_data="breaching" if tracking.is_counted and timing == "fast" else "missing",
        alarm_actions=(arn,),
    )
    return high, low


def _fast_periods(tracking: Tracking) -> tuple[int, int]:
    if tracking.is_counted:
        return 10, 1
    is_ours = tracking.namespace in ("AWS/SageMaker", "/aws/sagemaker/Endpoints")
    if is_ours and tracking.statistic not in ("Sum", "SampleCount"):
        return 10, 2
    return 60, 1


def _description(arn: str) -> str:
    return f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {arn}."


def _dashed(uid: str) -> str:
    return f"{uid[:8]}-{uid[8:12]}-{uid[12:16]}-{uid[16:20]}-{uid[20:]}"
