"""Scheduled actions: at certain times a target gets other limits."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from clary.domain.clock import Clock
from clary.domain.faults import validation
from clary.domain.scaling import (
    INSTANCE_COUNT,
    NAMESPACE,
    SCALABLE_TARGET_KIND,
    SCHEDULED_ACTION_KIND,
    ScalableTarget,
    ScheduledAction,
    ScheduledState,
    action_arn,
)
from clary.domain.scheduled_scaling import next_run
from clary.domain.schedules import FIRST_YEAR, LAST_YEAR, BadSchedule
from clary.services.application_autoscaling import kinds
from clary.services.application_autoscaling.targets import check_limits
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import application_autoscaling as shapes

MOST_ACTIONS = 200


class ScheduledActions:
    def __init__(self, store: Store, clock: Clock, new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    @operation("PutScheduledAction")
    def put_scheduled_action(
        self, call: Call, params: shapes.PutScheduledActionRequest
    ) -> shapes.PutScheduledActionResponse:
        """Makes a scheduled action, or changes what is given of the one of that name."""
        kinds.check_scaled(params)
        now = self._clock.now()
        with self._store.write() as tx:
            target = kinds.require_target(tx, call, params, "registered")
            siblings = tx.resources.children(target.arn, SCHEDULED_ACTION_KIND)
            before = next((a for a in siblings if _spec_of(a).name == params["ScheduledActionName"]), None)
            if before is None and len(siblings) >= MOST_ACTIONS:
                raise kinds.too_many("scheduled actions", MOST_ACTIONS)
            spec = _read(params, None if before is None else _spec_of(before), now)
            _check(spec, target.spec_as(ScalableTarget), now)
            if before is None:
                self._insert(tx, call, target, spec, now)
            else:
                tx.resources.update(before, spec=spec, state=ScheduledState(now))
            tx.work.wish(SCALABLE_TARGET_KIND, target.uid)
        return {}

    @operation("DeleteScheduledAction")
    def delete_scheduled_action(
        self, call: Call, params: shapes.DeleteScheduledActionRequest
    ) -> shapes.DeleteScheduledActionResponse:
        name = params["ScheduledActionName"]
        with self._store.write(on_full_disk=True) as tx:
            target = kinds.require_target(tx, call, params, "found")
            for action in tx.resources.children(target.arn, SCHEDULED_ACTION_KIND):
                if _spec_of(action).name == name:
                    tx.resources.delete(action.uid)
                    return {}
        raise kinds.object_not_found(
            f"No scheduled action found for {kinds.place(params)}, scheduled action name: {name}"
        )

    @operation("DescribeScheduledActions")
    def describe_scheduled_actions(
        self, call: Call, params: shapes.DescribeScheduledActionsRequest
    ) -> shapes.DescribeScheduledActionsResponse:
        names, wanted = set(params.get("ScheduledActionNames", [])), params.get("ResourceId", "").lower()
        with self._store.read() as tx:
            resources = kinds.all_of(tx, call, SCHEDULED_ACTION_KIND, params)
        found = [(action, _spec_of(action)) for action in resources]
        found = [
            (action, spec)
            for action, spec in found
            if (not names or spec.name in names) and wanted in ("", spec.resource_id.lower())
        ]
        keys = [action.uid for action, _ in found]
        items, more = kinds.page([_shown(action, spec) for action, spec in found], keys, params)
        answer: shapes.DescribeScheduledActionsResponse = {"ScheduledActions": items}
        if more:
            answer["NextToken"] = more["NextToken"]
        return answer

    def _insert(
        self, tx: Transaction, call: Call, target: Resource, spec: ScheduledAction, now: datetime
    ) -> None:
        uid = self._new_id()
        tx.resources.insert(
            uid=uid,
            account=call.account,
            region=call.region,
            kind=SCHEDULED_ACTION_KIND,
            arn=action_arn(call.region, call.account, uid, spec.resource_id, spec.name),
            name=uid,  # names belong to a target and keep their case
            parent=target.arn,
            status="",
            spec=spec,
            state=ScheduledState(now),
        )


def _read(
    params: shapes.PutScheduledActionRequest, before: ScheduledAction | None, now: datetime
) -> ScheduledAction:
    if before is None:
        if "Schedule" not in params:
            raise validation("Schedule is required for a new scheduled action.")
        before = ScheduledAction(params["ScheduledActionName"], params["ResourceId"], params["Schedule"], now)
    limits: Mapping[str, Any] = params.get("ScalableTargetAction", {})
    spec = replace(
        before,
        schedule=params.get("Schedule", before.schedule),
        time_zone=params.get("Timezone", before.time_zone),
        start=params.get("StartTime", before.start),
        end=params.get("EndTime", before.end),
        min_capacity=limits.get("MinCapacity", before.min_capacity),
        max_capacity=limits.get("MaxCapacity", before.max_capacity),
    )
    return replace(spec, anchor=spec.start or now)


def _check(spec: ScheduledAction, target: ScalableTarget, now: datetime) -> None:
    if spec.min_capacity is None and spec.max_capacity is None:
        raise validation("ScalableTargetAction must have MinCapacity, MaxCapacity or both.")
    check_limits(
        target.min_capacity if spec.min_capacity is None else spec.min_capacity,
        target.max_capacity if spec.max_capacity is None else spec.max_capacity,
    )
    if spec.start is not None and spec.end is not None and spec.start >= spec.end:
        raise validation("StartTime must be before EndTime.")
    if spec.end is not None and spec.end <= now:
        raise validation("EndTime must not be in the past.")
    for member, moment in (("StartTime", spec.start), ("EndTime", spec.end)):
        if moment is not None and not FIRST_YEAR < moment.year <= LAST_YEAR:
            raise validation(f"{member} must lie between the years {FIRST_YEAR} and {LAST_YEAR}.")
    try:
        due = next_run(spec, now)
    except BadSchedule as error:
        raise validation(f"Invalid schedule {spec.schedule}: {error}.") from None
    if due is None:
        raise validation(f"The schedule {spec.schedule} is in the past or never comes: it could never act.")


def _spec_of(action: Resource) -> ScheduledAction:
    return action.spec_as(ScheduledAction)


def _shown(action: Resource, spec: ScheduledAction) -> shapes.ScheduledAction:
    shown: shapes.ScheduledAction = {
        "ScheduledActionName": spec.name,
        "ScheduledActionARN": action.arn,
        "ServiceNamespace": NAMESPACE,
        "Schedule": spec.schedule,
        "ResourceId": spec.resource_id,
        "ScalableDimension": INSTANCE_COUNT,
        "CreationTime": action.created_at,
        "ScalableTargetAction": {},
    }
    if spec.time_zone:
        shown["Timezone"] = spec.time_zone
    if spec.start is not None:
        shown["StartTime"] = spec.start
    if spec.end is not None:
        shown["EndTime"] = spec.end
    if spec.min_capacity is not None:
        shown["ScalableTargetAction"]["MinCapacity"] = spec.min_capacity
    if spec.max_capacity is not None:
        shown["ScalableTargetAction"]["MaxCapacity"] = spec.max_capacity
    return shown
