"""StepScalingPolicyConfiguration, read: steps that leave no distance from the threshold out and none in two."""

import itertools
import math
from collections.abc import Sequence
from typing import cast

from clary.domain.faults import validation
from clary.domain.scaling import Adjustment, Aggregation, Step, Stepping
from clary.services.application_autoscaling.tracking import read_cooldown
from clary.wire.shapes import application_autoscaling as shapes

MOST_STEPS = 20


def read_stepping(config: shapes.StepScalingPolicyConfiguration) -> Stepping:
    if "AdjustmentType" not in config:
        raise validation("AdjustmentType is required for a step scaling policy.")
    adjustment = cast(Adjustment, config["AdjustmentType"])
    steps = [_step(given) for given in config.get("StepAdjustments", [])]
    if not steps:
        raise validation("At least one StepAdjustment is required: without one the policy could never scale.")
    if len(steps) > MOST_STEPS:
        raise validation(f"A policy has at most {MOST_STEPS} step adjustments.")
    least_change = config.get("MinAdjustmentMagnitude")
    if least_change is not None and (adjustment != "PercentChangeInCapacity" or least_change < 1):
        raise validation(
            "MinAdjustmentMagnitude must be a positive number and is for PercentChangeInCapacity only."
        )
    if adjustment == "ExactCapacity" and any(step.amount < 0 for step in steps):
        raise validation("An ExactCapacity must not be negative.")
    if adjustment != "ExactCapacity" and all(step.amount == 0 for step in steps):
        raise validation("Every ScalingAdjustment is 0: the policy could never scale.")
    return Stepping(
        adjustment,
        _ordered(steps),
        least_change or 0,
        read_cooldown(config.get("Cooldown"), "Cooldown"),
        cast(Aggregation, config.get("MetricAggregationType", "Average")),
    )


def _step(given: shapes.StepAdjustment) -> Step:
    step = Step(
        given.get("MetricIntervalLowerBound"),
        given.get("MetricIntervalUpperBound"),
        given["ScalingAdjustment"],
    )
    if any(bound is not None and not math.isfinite(bound) for bound in (step.lower, step.upper)):
        raise validation("The bounds of a StepAdjustment must be finite numbers.")
    if step.lower is not None and step.upper is not None and step.lower >= step.upper:
        raise validation("MetricIntervalUpperBound must be greater than MetricIntervalLowerBound.")
    return step


def _ordered(steps: Sequence[Step]) -> tuple[Step, ...]:
    ordered = sorted(steps, key=lambda step: float("-inf") if step.lower is None else step.lower)
    if len([step for step in steps if step.lower is None]) > 1:
        raise validation("At most one StepAdjustment may be without MetricIntervalLowerBound.")
    if len([step for step in steps if step.upper is None]) > 1:
        raise validation("At most one StepAdjustment may be without MetricIntervalUpperBound.")
    for before, after in itertools.pairwise(ordered):
        if before.upper is None or after.lower is None or before.upper > after.lower:
            raise validation("The intervals of StepAdjustments must not overlap.")
        if before.upper < after.lower:
            raise validation(
                f"The intervals of StepAdjustments must not leave a gap: between {before.upper:g} and {after.lower:g} "
                "nothing would be done."
            )
    return tuple(ordered)
