"""TargetTrackingScalingPolicyConfiguration, read: which metric is tracked, and whether it can ever say anything.

A metric that this server writes is known with its dimensions, statistics and unit, so a policy on one that will never
have a value, or never reach its target, is refused when it is written. What users publish themselves cannot be known.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clary.domain.endpoints import Fleet
from clary.domain.faults import not_supported, validation
from clary.domain.scaling import DEFAULT_COOLDOWN_S, INSTANCE_COUNT, Tracking, VariantName, alarm_names
from clary.wire.shapes import application_autoscaling as shapes

INVOCATIONS = "SageMakerVariantInvocationsPerInstance"
LONGEST_COOLDOWN_S = 86_400


class _Metric(NamedTuple):
    """A metric of this server. `most`: the value it cannot exceed; `by_vcpu`: for each vCPU of the instance."""

    unit: str
    statistics: tuple[str, ...] = ("Average", "Minimum", "Maximum", "SampleCount", "Sum")
    most: float = math.inf
    by_vcpu: bool = False


_OURS: Mapping[str, Mapping[str, _Metric]] = {
    "AWS/SageMaker": {
        "Invocations": _Metric("None"),
        "InvocationsPerInstance": _Metric("None", ("Sum",)),
        "Invocation4XXErrors": _Metric("None"),
        "Invocation5XXErrors": _Metric("None"),
        "InvocationModelErrors": _Metric("None"),
        "ModelLatency": _Metric("Microseconds"),
        "OverheadLatency": _Metric("Microseconds"),
    },
    "/aws/sagemaker/Endpoints": {
        "CPUUtilization": _Metric("Percent", most=100.0, by_vcpu=True),
        "MemoryUtilization": _Metric("Percent", most=100.0),
        "DiskUtilization": _Metric("Percent", most=100.0),
        "GPUUtilization": _Metric("Percent"),
        "GPUMemoryUtilization": _Metric("Percent"),
    },
}

_DIMENSIONS = ({"EndpointName", "VariantName"}, {"EndpointName", "VariantName", "EndpointConfigName"})


def read_tracking(
    config: shapes.TargetTrackingScalingPolicyConfiguration,
    resource_id: str,
    uid: str,
    name: VariantName,
    fleet: Fleet,
) -> Tracking:
    """The policy. `name` is written as the endpoint itself is: metrics are."""
    target = config["TargetValue"]
    if not (math.isfinite(target) and 8.515920e-109 <= target <= 1.174271e108):
        raise validation(f"TargetValue must be a positive number, and it is {target}.")
    predefined = config.get("PredefinedMetricSpecification")
    customized = config.get("CustomizedMetricSpecification")
    if (predefined is None) == (customized is None):
        raise validation(
            "Specify exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification."
        )
    high, low = alarm_names(resource_id, uid)
    dimensions = (("EndpointName", name.endpoint), ("VariantName", name.variant))
    tracking = Tracking(
        target=target,
        namespace="AWS/SageMaker",
        metric="InvocationsPerInstance",
        dimensions=dimensions,
        statistic="Sum",
        unit=None,
        high_alarm=high,
        low_alarm=low,
        predefined=INVOCATIONS,
        scales_in=not config.get("DisableScaleIn", False),
        out_cooldown_s=read_cooldown(config.get("ScaleOutCooldown"), "ScaleOutCooldown"),
        in_cooldown_s=read_cooldown(config.get("ScaleInCooldown"), "ScaleInCooldown"),
    )
    if predefined is not None:
        _check_predefined(predefined)
        return tracking
    assert customized is not None, "one of the two is given"
    tracking = _customized(customized, tracking)
    _check_can_fire(tracking, name, fleet)
    return tracking


def read_cooldown(given: int | None, member: str) -> int:
    if given is None:
        return DEFAULT_COOLDOWN_S
    if not 0 <= given <= LONGEST_COOLDOWN_S:
        raise validation(f"{member} must be between 0 and {LONGEST_COOLDOWN_S} seconds.")
    return given


def _check_predefined(given: shapes.PredefinedMetricSpecification) -> None:
    name = given["PredefinedMetricType"]
    if name == "SageMakerVariantConcurrentRequestsPerModelHighResolution":
        raise not_supported(f"The predefined metric {name}, which has no values here,")
    if name != INVOCATIONS:
        raise validation(
            f"The predefined metric type {name} is not valid for the scalable dimension {INSTANCE_COUNT}; "
            f"{INVOCATIONS} is."
        )
    if given.get("ResourceLabel"):
        raise validation(f"ResourceLabel cannot be specified for the predefined metric {name}.")


def _customized(given: shapes.CustomizedMetricSpecification, tracking: Tracking) -> Tracking:
    if given.get("Metrics"):
        raise not_supported("Metric math in CustomizedMetricSpecification.Metrics")
    for member in ("Namespace", "MetricName", "Statistic"):
        if not given.get(member):
            raise validation(f"CustomizedMetricSpecification.{member} is required.")
    dimensions = tuple(sorted((each["Name"], each["Value"]) for each in given.get("Dimensions", [])))
    if len({key for key, _ in dimensions}) < len(dimensions):
        raise validation("CustomizedMetricSpecification.Dimensions must have different names.")
    return Tracking(
        target=tracking.target,
        namespace=given["Namespace"],
        metric=given["MetricName"],
        dimensions=dimensions,
        statistic=given["Statistic"],
        unit=given.get("Unit"),
        high_alarm=tracking.high_alarm,
        low_alarm=tracking.low_alarm,
        scales_in=tracking.scales_in,
        out_cooldown_s=tracking.out_cooldown_s,
        in_cooldown_s=tracking.in_cooldown_s,
    )


def _check_can_fire(tracking: Tracking, name: VariantName, fleet: Fleet) -> None:
    ours = _OURS.get(tracking.namespace)
    if ours is None:
        if tracking.namespace.lower().startswith(("aws/", "/aws/")):
            raise _never(f"this server writes no metrics in the namespace {tracking.namespace}")
        return
    metric = ours.get(tracking.metric)
    if metric is None:
        raise _never(
            f"there is no metric {tracking.metric} in {tracking.namespace}; there are {_listed(tuple(ours))}"
        )
    if {key for key, _ in tracking.dimensions} not in _DIMENSIONS:
        raise _never(f"{tracking.metric} has values for the dimensions EndpointName and VariantName together")
    measured = dict(tracking.dimensions)
    if measured["EndpointName"] == name.endpoint and fleet.variant(measured["VariantName"]) is None:
        known = _listed([each.name for each in fleet.variants])
        raise _never(f"{name.endpoint} has no variant {measured['VariantName']}; it has {known}")
    if tracking.statistic not in metric.statistics:
        raise _never(f"{tracking.metric} says something as {_listed(metric.statistics)} only")
    if tracking.unit not in (None, metric.unit):
        raise _never(f"{tracking.metric} is written with the unit {metric.unit}")
    variant = fleet.variant(name.variant)
    assert variant is not None, "a target is a variant that is there"
    most = metric.most * (variant.vcpus if metric.by_vcpu else 1)
    if tracking.statistic in ("Average", "Minimum", "Maximum") and tracking.target >= most:
        raise _never(f"{tracking.metric} never exceeds {most:g} on {variant.instance_type}")


def _never(reason: str) -> Exception:
    return validation(f"This policy could never scale out: {reason}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
