"""PutMetricAlarm and PutCompositeAlarm, read into specs; what cannot be is refused in CloudWatch's words.

Whatever an alarm may be on AWS and is not here is refused by name: math over metrics, anomaly bands, PromQL.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from clary.domain.alarm_rules import BadRule, names_in, parse_rule
from clary.domain.alarms import AlarmSpec, Comparison, MissingData
from clary.domain.arns import parse_arn
from clary.domain.faults import not_supported
from clary.services.cloudwatch import statistics
from clary.services.cloudwatch.faults import bad_combination, invalid
from clary.store.alarms import AlarmAction
from clary.telemetry.statistics import percentile
from clary.wire.operations import Call
from clary.wire.shapes import cloudwatch as shapes

_SHORT_PERIODS = (10, 20, 30)
_DAY, _WEEK = 86_400, 7 * 86_400

_NOT_BUILT = (
    "Metrics",
    "ThresholdMetricId",
    "EvaluationWindow",
    "EvaluationCriteria",
    "EvaluationInterval",
    "WarmUpConfiguration",
    "ActionConfiguration",
    "ActionsSuppressor",
    "ActionsSuppressorWaitPeriod",
    "ActionsSuppressorExtensionPeriod",
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def metric_alarm(
    call: Call, request: shapes.PutMetricAlarmInput, actions: Sequence[AlarmAction]
) -> AlarmSpec:
    _check_members(call.operation, request)
    for member in (
        "MetricName",
        "Namespace",
        "ComparisonOperator",
        "EvaluationPeriods",
        "Threshold",
        "Period",
    ):
        if member not in request:
            raise invalid(f"The parameter {member} is required for an alarm on a metric.")
    return AlarmSpec(
        name=_name(request["AlarmName"]),
        description=request.get("AlarmDescription", ""),
        namespace=request["Namespace"],
        metric=request["MetricName"],
        dimensions=_dimensions(request.get("Dimensions", [])),
        statistic=_statistic(request),
        unit=request.get("Unit"),
        period_s=_period(request),
        evaluation_periods=request["EvaluationPeriods"],
        datapoints_to_alarm=_datapoints(request),
        threshold=_threshold(request["Threshold"]),
        comparison=_comparison(request["ComparisonOperator"]),
        missing_data=_missing_data(request.get("TreatMissingData", "missing")),
        ignores_low_samples=_ignores_low_samples(request),
        actions_enabled=request.get("ActionsEnabled", True),
        **_actions(call, request, actions),
    )


def composite_alarm(
    call: Call, request: shapes.PutCompositeAlarmInput, actions: Sequence[AlarmAction]
) -> AlarmSpec:
    _check_members(call.operation, request)
    try:
        names = names_in(parse_rule(request["AlarmRule"]))
    except BadRule as error:
        raise invalid(f"AlarmRule is not valid: {error}.") from error
    if request["AlarmName"] in names:
        raise invalid(f"The alarm {request['AlarmName']} must not be part of its own AlarmRule.")
    return AlarmSpec(
        name=_name(request["AlarmName"]),
        description=request.get("AlarmDescription", ""),
        rule=request["AlarmRule"],
        actions_enabled=request.get("ActionsEnabled", True),
        **_actions(call, request, actions),
    )


def _check_members(operation: str, request: Mapping[str, Any]) -> None:
    for member in _NOT_BUILT:
        if member in request:
            raise not_supported(f"The member {member} of {operation}")


def _name(name: str) -> str:
    if _CONTROLS.search(name):
        raise invalid("The alarm's name must not contain control characters.")
    return name


def _dimensions(dimensions: Sequence[shapes.Dimension]) -> tuple[tuple[str, str], ...]:
    pairs = tuple(sorted((each["Name"], each["Value"]) for each in dimensions))
    if len({name for name, _ in pairs}) < len(pairs):
        raise invalid("The names of Dimensions must be unique.")
    return pairs


def _statistic(request: shapes.PutMetricAlarmInput) -> str:
    if ("Statistic" in request) == ("ExtendedStatistic" in request):
        raise bad_combination(
            "Exactly one of the parameters Statistic and ExtendedStatistic must be specified."
        )
    name = request.get("Statistic") or request["ExtendedStatistic"]
    statistics.find(name, invalid)
    if "ExtendedStatistic" in request and percentile(name) is None:
        raise invalid(f"The value {name} for parameter ExtendedStatistic is not supported.")
    return name


def _period(request: shapes.PutMetricAlarmInput) -> int:
    period = request["Period"]
    if period not in _SHORT_PERIODS and period % 60:
        raise invalid("Period must be 10, 20, 30 or a multiple of 60.")
    longest, words = (_DAY, "one day") if period < 3600 else (_WEEK, "seven days")
    if period * request["EvaluationPeriods"] > longest:
        raise invalid(
            f"Metrics cannot be checked across more than {words}"
            f" (EvaluationPeriods * Period must be <= {longest})."
        )
    return period


def _datapoints(request: shapes.PutMetricAlarmInput) -> int | None:
    needed = request.get("DatapointsToAlarm")
    if needed is not None and needed > request["EvaluationPeriods"]:
        raise invalid("DatapointsToAlarm must not be greater than EvaluationPeriods.")
    return needed


def _threshold(value: float) -> float:
    if not abs(value) <= 2.0**360:  # not a number, too
        raise invalid(f"The value {value} for parameter Threshold is out of range.")
    return float(value)


def _comparison(name: str) -> Comparison:
    if name not in get_args(Comparison):
        raise not_supported(f"The ComparisonOperator {name} of PutMetricAlarm, an anomaly detection band,")
    return cast(Comparison, name)


def _missing_data(name: str) -> MissingData:
    if name not in get_args(MissingData):
        raise invalid(
            f"The value {name} for parameter TreatMissingData must be one of"
            f" [{', '.join(get_args(MissingData))}]."
        )
    return cast(MissingData, name)


def _ignores_low_samples(request: shapes.PutMetricAlarmInput) -> bool:
    value = request.get("EvaluateLowSampleCountPercentile")
    if value is None:
        return False
    if value not in ("evaluate", "ignore"):
        raise invalid(
            f"The value {value} for parameter EvaluateLowSampleCountPercentile must be one of [evaluate, ignore]."
        )
    if "ExtendedStatistic" not in request:
        raise bad_combination("EvaluateLowSampleCountPercentile is only allowed with a percentile.")
    return value == "ignore"


def _actions(call: Call, request: Mapping[str, Any], actions: Sequence[AlarmAction]) -> dict[str, Any]:
    by_state = {
        "alarm_actions": request.get("AlarmActions", []),
        "ok_actions": request.get("OKActions", []),
        "insufficient_data_actions": request.get("InsufficientDataActions", []),
    }
    for arns in by_state.values():
        for arn in arns:
            _check_action(call, arn, actions)
    return {name: tuple(dict.fromkeys(arns)) for name, arns in by_state.items()}


def _check_action(call: Call, text: str, actions: Sequence[AlarmAction]) -> None:
    arn = parse_arn(text)
    if arn is None:
        raise invalid(f"Invalid arn syntax: {text}")
    if not any(action.takes(text) for action in actions):
        raise not_supported(f"The alarm action {text}")
    if arn.region != call.region:
        raise invalid(f"Invalid region {arn.region} specified. Only {call.region} is supported.")
    if arn.account != call.account:
        raise not_supported(f"The alarm action {text} in another account")
