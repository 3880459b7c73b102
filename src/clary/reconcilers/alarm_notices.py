"""The alarm action that tells a topic: CloudWatch's own JSON, put on its way in the transaction of the change."""

import json
from collections.abc import Callable
from typing import Any

from clary.domain.alarm_evaluation import stamp
from clary.domain.alarms import AlarmSpec, AlarmState, StateChange
from clary.domain.arns import parse_arn
from clary.domain.notices import Notice
from clary.store import Resource, Transaction
from clary.store.notices import find_topic, publish
from clary.telemetry.statistics import percentile

LONGEST_SUBJECT = 100


class AlarmNotices:
    """Takes topics' ARNs. Told once, when the state changes."""

    repeats = False

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id

    def takes(self, arn: str) -> bool:
        parts = parse_arn(arn)
        return parts is not None and parts.service == "sns" and ":" not in parts.resource

    def fire(
        self, tx: Transaction, alarm: Resource, spec: AlarmSpec, arn: str, change: StateChange
    ) -> str | None:
        if find_topic(tx, arn) is None:
            return "the topic does not exist"
        subject = f'{change.new}: "{alarm.name}" in {alarm.region}'
        publish(
            tx,
            Notice(
                type="Notification",
                id=self._new_id(),
                topic_arn=arn,
                subject=subject
                if len(subject) <= LONGEST_SUBJECT
                else subject[: LONGEST_SUBJECT - 3] + "...",
                message=json.dumps(told(alarm, spec, change), ensure_ascii=False),
                at=change.at,
            ),
        )
        return None


def told(alarm: Resource, spec: AlarmSpec, change: StateChange) -> dict[str, Any]:
    """What the message says."""
    message: dict[str, Any] = {
        "AlarmName": alarm.name,
        "AlarmDescription": spec.description or None,
        "AWSAccountId": alarm.account,
        "AlarmConfigurationUpdatedTimestamp": stamp(alarm.state_as(AlarmState).configured_at),
        "NewStateValue": change.new,
        "NewStateReason": change.reason,
        "StateChangeTime": stamp(change.at),
        "Region": alarm.region,
        "AlarmArn": alarm.arn,
        "OldStateValue": change.old,
        "OKActions": list(spec.ok_actions),
        "AlarmActions": list(spec.alarm_actions),
        "InsufficientDataActions": list(spec.insufficient_data_actions),
    }
    if spec.rule:
        return message | {"AlarmRule": spec.rule}
    return message | {"Trigger": _trigger(spec)}


def _trigger(spec: AlarmSpec) -> dict[str, Any]:
    trigger: dict[str, Any] = {"MetricName": spec.metric, "Namespace": spec.namespace}
    if percentile(spec.statistic) is None:
        trigger |= {"StatisticType": "Statistic", "Statistic": spec.statistic.upper()}
    else:
        trigger |= {"StatisticType": "ExtendedStatistic", "ExtendedStatistic": spec.statistic}
    trigger |= {
        "Unit": spec.unit,
        "Dimensions": [{"value": value, "name": name} for name, value in spec.dimensions],
        "Period": spec.period_s,
        "EvaluationPeriods": spec.evaluation_periods,
        "ComparisonOperator": spec.comparison,
        "Threshold": spec.threshold,
        "TreatMissingData": spec.missing_data,
        "EvaluateLowSampleCountPercentile": "ignore" if spec.ignores_low_samples else "",
    }
    if spec.datapoints_to_alarm is not None:
        trigger["DatapointsToAlarm"] = spec.datapoints_to_alarm
    return trigger
