"""Alarms, written: made, deleted, put into a state, their actions switched on and off.

What an alarm's state is, the evaluation finds out; it looks at a new alarm within a second.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from clary.domain.alarm_rules import BadRule, names_in, parse_rule
from clary.domain.alarms import ALARM_KIND, AlarmSpec, AlarmStatus, alarm_arn
from clary.domain.clock import Clock
from clary.domain.faults import Fault, not_supported
from clary.services.cloudwatch.alarm_requests import composite_alarm, metric_alarm
from clary.services.cloudwatch.alarm_views import tag_map
from clary.services.cloudwatch.faults import invalid
from clary.services.cloudwatch.tags import check_count
from clary.store import DuplicateName, Resource, Store, Transaction
from clary.store.alarms import AlarmAction, change_state, delete_alarm, find_alarm, put_alarm
from clary.wire.operations import Call, operation
from clary.wire.shapes import cloudwatch as shapes


class Alarms:
    def __init__(
        self, store: Store, clock: Clock, new_uid: Callable[[], str], actions: Sequence[AlarmAction]
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_uid = new_uid
        self._actions = actions

    @operation("PutMetricAlarm")
    def put_metric_alarm(self, call: Call, request: shapes.PutMetricAlarmInput) -> None:
        spec = metric_alarm(call, request, self._actions)
        with self._store.write() as tx:
            self._put(tx, call, spec, tag_map(request.get("Tags", [])))

    @operation("PutCompositeAlarm")
    def put_composite_alarm(self, call: Call, request: shapes.PutCompositeAlarmInput) -> None:
        spec = composite_alarm(call, request, self._actions)
        with self._store.write() as tx:
            children = {name: find_alarm(tx, call.account, call.region, name) for name in _names(spec.rule)}
            absent = [name for name, child in children.items() if child is None]
            if absent:
                raise invalid(f"The alarm rule names alarms that do not exist: [{', '.join(absent)}]")
            _check_cycles(tx, call, spec)
            self._put(tx, call, spec, tag_map(request.get("Tags", [])))

    @operation("DeleteAlarms")
    def delete_alarms(self, call: Call, request: shapes.DeleteAlarmsInput) -> None:
        """Names of alarms that are not there are passed over."""
        names = list(dict.fromkeys(request["AlarmNames"]))
        with self._store.write(on_full_disk=True) as tx:
            found = [alarm for name in names if (alarm := find_alarm(tx, call.account, call.region, name))]
            if sum(alarm.spec_as(AlarmSpec).rule != "" for alarm in found) > 1:
                raise invalid("At most one composite alarm can be deleted in one call.")
            depending = {name for each in _composites(tx, call, names) for name in _names(each.rule)}
            for alarm in found:
                if alarm.name in depending:
                    raise Fault(
                        "ResourceConflict",
                        f"Cannot delete {alarm.name} as there are composite alarm(s) depending on it.",
                        409,
                    )
                delete_alarm(tx, call.account, call.region, alarm.name)

    @operation("SetAlarmState")
    def set_alarm_state(self, call: Call, request: shapes.SetAlarmStateInput) -> None:
        data = request.get("StateReasonData", "")
        if data and not _is_json(data):
            raise Fault("InvalidFormat", "StateReasonData is not valid JSON.")
        with self._store.write() as tx:
            alarm = find_alarm(tx, call.account, call.region, request["AlarmName"])
            if alarm is None:
                raise Fault("ResourceNotFound", f"The alarm {request['AlarmName']} does not exist.", 404)
            status = cast(AlarmStatus, request["StateValue"])
            now = self._clock.now()
            change_state(tx, alarm, status, request["StateReason"], data, now, self._actions, is_set=True)

    @operation("EnableAlarmActions")
    def enable_alarm_actions(self, call: Call, request: shapes.EnableAlarmActionsInput) -> None:
        self._switch(call, request["AlarmNames"], is_on=True)

    @operation("DisableAlarmActions")
    def disable_alarm_actions(self, call: Call, request: shapes.DisableAlarmActionsInput) -> None:
        self._switch(call, request["AlarmNames"], is_on=False)

    def _put(self, tx: Transaction, call: Call, spec: AlarmSpec, tags: Mapping[str, str]) -> None:
        before = find_alarm(tx, call.account, call.region, spec.name)
        if before is not None and before.spec_as(AlarmSpec).type != spec.type:
            raise invalid(f"The alarm {spec.name} exists already and is of another type.")
        try:
            alarm = put_alarm(tx, self._new_uid(), call.account, call.region, spec, self._clock.now())
        except DuplicateName as error:
            raise not_supported(
                f"An alarm {spec.name} beside one whose name differs from it in upper and lower case only"
            ) from error
        if before is None:  # as on AWS: those of an alarm that is there are TagResource's
            check_count(tags)
            tx.tags.put(alarm.uid, tags)

    def _switch(self, call: Call, names: Iterable[str], *, is_on: bool) -> None:
        with self._store.write() as tx:
            for name in dict.fromkeys(names):
                alarm = find_alarm(tx, call.account, call.region, name)
                if alarm is not None:
                    spec = dataclasses.replace(alarm.spec_as(AlarmSpec), actions_enabled=is_on)
                    put_alarm(tx, alarm.uid, call.account, call.region, spec, self._clock.now())


def _composites(tx: Transaction, call: Call, but: Sequence[str] = ()) -> list[AlarmSpec]:
    """The composite alarms of the caller's account and region, except those of these names."""
    return [
        spec
        for alarm in tx.resources.all(ALARM_KIND)
        if (alarm.account, alarm.region) == (call.account, call.region) and alarm.name not in but
        if (spec := alarm.spec_as(AlarmSpec)).rule
    ]


def _check_cycles(tx: Transaction, call: Call, spec: AlarmSpec) -> None:
    rules = {each.name: each.rule for each in _composites(tx, call)} | {spec.name: spec.rule}
    reached: set[str] = set()
    waiting = _names(spec.rule)
    while waiting:
        name = waiting.pop()
        if name == spec.name:
            raise invalid(f"The alarm rule makes {spec.name} depend on itself.")
        if name not in reached and name in rules:
            reached.add(name)
            waiting += _names(rules[name])


def _names(rule: str) -> list[str]:
    try:
        return names_in(parse_rule(rule)) if rule else []
    except BadRule:  # written by another version of this server
        return []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def arn_of(call: Call, name: str) -> str:
    return alarm_arn(call.region, call.account, name)


def child_names(alarm: Resource) -> list[str]:
    """The alarms that a composite alarm's rule names."""
    return _names(alarm.spec_as(AlarmSpec).rule)
