"""Alarms as CloudWatch shows them."""

from collections.abc import Mapping

from clary.domain.alarms import AlarmSpec, AlarmState
from clary.store import Resource
from clary.telemetry.statistics import percentile
from clary.wire.shapes import cloudwatch as shapes


def metric_alarm(alarm: Resource) -> shapes.MetricAlarm:
    spec, state = alarm.spec_as(AlarmSpec), alarm.state_as(AlarmState)
    shown: shapes.MetricAlarm = {
        "AlarmName": alarm.name,
        "AlarmArn": alarm.arn,
        "AlarmConfigurationUpdatedTimestamp": state.configured_at,
        "ActionsEnabled": spec.actions_enabled,
        "OKActions": list(spec.ok_actions),
        "AlarmActions": list(spec.alarm_actions),
        "InsufficientDataActions": list(spec.insufficient_data_actions),
        "StateValue": alarm.status,
        "StateReason": state.reason,
        "StateUpdatedTimestamp": state.updated_at,
        "StateTransitionedTimestamp": state.transitioned_at,
        "MetricName": spec.metric,
        "Namespace": spec.namespace,
        "Dimensions": [{"Name": name, "Value": value} for name, value in spec.dimensions],
        "Period": spec.period_s,
        "EvaluationPeriods": spec.evaluation_periods,
        "Threshold": spec.threshold,
        "ComparisonOperator": spec.comparison,
        "TreatMissingData": spec.missing_data,
    }
    if percentile(spec.statistic) is None:
        shown["Statistic"] = spec.statistic
    else:
        shown["ExtendedStatistic"] = spec.statistic
        shown["EvaluateLowSampleCountPercentile"] = "ignore" if spec.ignores_low_samples else "evaluate"
    if spec.description:
        shown["AlarmDescription"] = spec.description
    if spec.unit is not None:
        shown["Unit"] = spec.unit
    if spec.datapoints_to_alarm is not None:
        shown["DatapointsToAlarm"] = spec.datapoints_to_alarm
    if state.reason_data:
        shown["StateReasonData"] = state.reason_data
    return shown


def composite_alarm(alarm: Resource) -> shapes.CompositeAlarm:
    spec, state = alarm.spec_as(AlarmSpec), alarm.state_as(AlarmState)
    shown: shapes.CompositeAlarm = {
        "AlarmName": alarm.name,
        "AlarmArn": alarm.arn,
        "AlarmConfigurationUpdatedTimestamp": state.configured_at,
        "AlarmRule": spec.rule,
        "ActionsEnabled": spec.actions_enabled,
        "OKActions": list(spec.ok_actions),
        "AlarmActions": list(spec.alarm_actions),
        "InsufficientDataActions": list(spec.insufficient_data_actions),
        "StateValue": alarm.status,
        "StateReason": state.reason,
        "StateUpdatedTimestamp": state.updated_at,
        "StateTransitionedTimestamp": state.transitioned_at,
    }
    if spec.description:
        shown["AlarmDescription"] = spec.description
    if state.reason_data:
        shown["StateReasonData"] = state.reason_data
    return shown


def tag_map(tags: list[shapes.Tag]) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}
