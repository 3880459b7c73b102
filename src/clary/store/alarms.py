"""Alarms in the store: written, deleted and moved to another state, each with its history and its actions.

CloudWatch's operations, target tracking and the evaluation all change alarms, and each does it inside a transaction
of its own. What an alarm sets in motion is written in the transaction that changes its state, so that neither happens
without the other: an `AlarmAction` therefore only writes rows and wishes.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, cast

from clary.domain.alarms import (
    ALARM_KIND,
    INITIAL_REASON,
    AlarmSpec,
    AlarmState,
    AlarmStatus,
    StateChange,
    alarm_arn,
)
from clary.store.database import Transaction
from clary.store.resources import Resource


class AlarmAction(Protocol):
    """What some ARNs in an alarm's actions mean."""

    @property
    def repeats(self) -> bool:
        """Whether it is fired again at every evaluation while the state lasts, and not only when it changes."""

    def takes(self, arn: str) -> bool:
        """Whether this is the action that the ARN names."""

    def fire(
        self, tx: Transaction, alarm: Resource, spec: AlarmSpec, arn: str, change: StateChange
    ) -> str | None:
        """Writes what follows, in the transaction that holds the change; nothing happens outside the store.

        Why it could not, in a few words for the alarm's history; None when it did.
        """


def find_alarm(tx: Transaction, account: str, region: str, name: str) -> Resource | None:
    """The alarm of exactly this name: alarms' names keep their case."""
    found = tx.resources.find(account, region, ALARM_KIND, name)
    return found if found is not None and found.name == name else None


def put_alarm(
    tx: Transaction, uid: str, account: str, region: str, spec: AlarmSpec, now: datetime
) -> Resource:
    """Makes an alarm, with this uid, or gives the one of that name a new spec: it keeps its state.

    Raises `DuplicateName` where another alarm's name differs in case only.
    """
    before = find_alarm(tx, account, region, spec.name)
    if before is not None:
        state = dataclasses.replace(before.state_as(AlarmState), configured_at=now)
        written = tx.resources.update(before, spec=spec, state=state)
        _note_configuration(tx, written, spec, "Update")
        return written
    written = tx.resources.insert(
        uid=uid,
        account=account,
        region=region,
        kind=ALARM_KIND,
        arn=alarm_arn(region, account, spec.name),
        name=spec.name,
        status="INSUFFICIENT_DATA",
        spec=spec,
        state=AlarmState(INITIAL_REASON, "", now, now, now),
    )
    _note_configuration(tx, written, spec, "Create")
    return written


def delete_alarm(tx: Transaction, account: str, region: str, name: str) -> bool:
    """Whether there was one."""
    found = find_alarm(tx, account, region, name)
    if found is None:
        return False
    _note_configuration(tx, found, found.spec_as(AlarmSpec), "Delete")
    tx.resources.delete(found.uid)
    return True


def change_state(
    tx: Transaction,
    alarm: Resource,
    new: AlarmStatus,
    reason: str,
    reason_data: str,
    now: datetime,
    actions: Sequence[AlarmAction],
    *,
    is_set: bool = False,
) -> Resource:
    """Puts the alarm, as it was read, into a state and fires what it has for it. `is_set`: somebody said so.

    The state it has already only gets the new reason. Raises `StaleResource`.
    """
    spec, before = alarm.spec_as(AlarmSpec), alarm.state_as(AlarmState)
    is_change = alarm.status != new
    state = dataclasses.replace(
        before,
        reason=reason,
        reason_data=reason_data,
        updated_at=now,
        transitioned_at=now if is_change else before.transitioned_at,
        set_at=now if is_set else None,
    )
    written = tx.resources.update(alarm, status=new, state=state)
    if not is_change:
        return written
    old = cast(AlarmStatus, alarm.status)
    _note_change(tx, alarm, spec, before, state, new)
    change = StateChange(old, new, reason, reason_data, now)
    for arn in spec.actions(new):
        _fire(tx, written, spec, arn, change, actions)
    return written


def repeat_actions(tx: Transaction, alarm: Resource, now: datetime, actions: Sequence[AlarmAction]) -> None:
    """Fires what is repeated while the alarm's state lasts. An alarm that changed since it was read is left alone."""
    current = tx.resources.get(alarm.uid)
    if current is None or current.version != alarm.version:
        return
    spec, state = alarm.spec_as(AlarmSpec), alarm.state_as(AlarmState)
    status = cast(AlarmStatus, alarm.status)
    change = StateChange(status, status, state.reason, state.reason_data, now)
    for arn, action in repeated_actions(spec, status, actions):
        action.fire(tx, alarm, spec, arn, change)


def repeated_actions(
    spec: AlarmSpec, status: AlarmStatus, actions: Sequence[AlarmAction]
) -> list[tuple[str, AlarmAction]]:
    return [
        (arn, action)
        for arn in spec.actions(status)
        if (action := _taker(actions, arn)) is not None and action.repeats
    ]


def _fire(
    tx: Transaction,
    alarm: Resource,
    spec: AlarmSpec,
    arn: str,
    change: StateChange,
    actions: Sequence[AlarmAction],
) -> None:
    action = _taker(actions, arn)
    why_not = "this server does not know it" if action is None else action.fire(tx, alarm, spec, arn, change)
    data: dict[str, Any] = {
        "actionState": "Failed" if why_not else "Succeeded",
        "notificationResource": arn,
        "stateUpdateTimestamp": int(change.at.timestamp() * 1000),
    }
    if why_not:
        summary = f"Failed to execute action {arn}: {why_not}"
        _note(tx, alarm, spec, "Action", summary, data | {"error": why_not})
    else:
        _note(tx, alarm, spec, "Action", f"Successfully executed action {arn}", data)


def _taker(actions: Iterable[AlarmAction], arn: str) -> AlarmAction | None:
    return next((action for action in actions if action.takes(arn)), None)


def _note_change(
    tx: Transaction,
    alarm: Resource,
    spec: AlarmSpec,
    before: AlarmState,
    after: AlarmState,
    new: AlarmStatus,
) -> None:
    data = {
        "oldState": _told(alarm.status, before),
        "newState": _told(new, after),
    }
    _note(tx, alarm, spec, "StateUpdate", f"Alarm updated from {alarm.status} to {new}", data)


def _told(status: str, state: AlarmState) -> dict[str, Any]:
    told: dict[str, Any] = {"stateValue": status, "stateReason": state.reason}
    if state.reason_data:
        try:
            told["stateReasonData"] = json.loads(state.reason_data)
        except ValueError:  # a person's, from SetAlarmState
            told["stateReasonData"] = state.reason_data
    return told


_CONFIGURATION_WORDS = {"Create": "created", "Update": "updated", "Delete": "deleted"}


def _note_configuration(tx: Transaction, alarm: Resource, spec: AlarmSpec, type: str) -> None:
    word = _CONFIGURATION_WORDS[type]
    data = {"type": type, f"{word}Alarm": _configuration(spec)}
    _note(tx, alarm, spec, "ConfigurationUpdate", f'Alarm "{spec.name}" {word}', data)


def _configuration(spec: AlarmSpec) -> dict[str, Any]:
    """The alarm as CloudWatch's history shows it."""
    shown: dict[str, Any] = {
        "alarmName": spec.name,
        "alarmDescription": spec.description or None,
        "actionsEnabled": spec.actions_enabled,
        "okActions": spec.ok_actions,
        "alarmActions": spec.alarm_actions,
        "insufficientDataActions": spec.insufficient_data_actions,
    }
    if spec.rule:
        return shown | {"alarmRule": spec.rule}
    return shown | {
        "metricName": spec.metric,
        "namespace": spec.namespace,
        "statistic": spec.statistic,
        "dimensions": [{"name": name, "value": value} for name, value in spec.dimensions],
        "period": spec.period_s,
        "unit": spec.unit,
        "evaluationPeriods": spec.evaluation_periods,
        "datapointsToAlarm": spec.datapoints_to_alarm,
        "threshold": spec.threshold,
        "comparisonOperator": spec.comparison,
        "treatMissingData": spec.missing_data,
    }


def _note(
    tx: Transaction,
    alarm: Resource,
    spec: AlarmSpec,
    type: Any,
    summary: str,
    data: Mapping[str, Any],
) -> None:
    tx.alarm_history.add(
        alarm.account, alarm.region, alarm.name, spec.type, type, summary, {"version": "1.0", **data}
    )
