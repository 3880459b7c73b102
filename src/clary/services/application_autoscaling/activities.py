"""What was done about targets, and why."""

from clary.domain.scaling import (
    INSTANCE_COUNT,
    NAMESPACE,
    SCALING_ACTIVITY_KIND,
    Activity,
    NotScaled,
    activities_parent,
    activity_id,
)
from clary.services.application_autoscaling import kinds
from clary.store import Resource, Store, Transaction
from clary.wire.operations import Call, operation
from clary.wire.shapes import application_autoscaling as shapes


class Activities:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("DescribeScalingActivities")
    def describe_scaling_activities(
        self, call: Call, params: shapes.DescribeScalingActivitiesRequest
    ) -> shapes.DescribeScalingActivitiesResponse:
        """Newest first. Times when nothing was scaled are told only on demand."""
        with self._store.read() as tx:
            found = _found(tx, call, params)
        shown: list[shapes.ScalingActivity] = []
        keys = []
        for resource in found:
            activity = resource.spec_as(Activity)
            if activity.not_scaled and not params.get("IncludeNotScaledActivities"):
                continue
            shown.append(_shown(resource, activity))
            keys.append(resource.uid)
        items, more = kinds.page(shown, keys, params)
        answer: shapes.DescribeScalingActivitiesResponse = {"ScalingActivities": items}
        if more:
            answer["NextToken"] = more["NextToken"]
        return answer


def _found(tx: Transaction, call: Call, params: shapes.DescribeScalingActivitiesRequest) -> list[Resource]:
    if "ResourceId" not in params or params["ServiceNamespace"] != NAMESPACE:
        return kinds.all_of(tx, call, SCALING_ACTIVITY_KIND, params)[::-1]
    if params.get("ScalableDimension", INSTANCE_COUNT) != INSTANCE_COUNT:
        return []
    parent = activities_parent(call.account, call.region, params["ResourceId"])
    return tx.resources.children(parent, SCALING_ACTIVITY_KIND)


def _shown(resource: Resource, activity: Activity) -> shapes.ScalingActivity:
    shown: shapes.ScalingActivity = {
        "ActivityId": activity_id(resource.uid),
        "ServiceNamespace": NAMESPACE,
        "ResourceId": activity.resource_id,
        "ScalableDimension": INSTANCE_COUNT,
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.started_at,
        "StatusCode": resource.status,
    }
    if activity.ended_at is not None:
        shown["EndTime"] = activity.ended_at
    if activity.message:
        shown["StatusMessage"] = activity.message
    if activity.not_scaled:
        shown["NotScaledReasons"] = [_reason(each) for each in activity.not_scaled]
    return shown


def _reason(given: NotScaled) -> shapes.NotScaledReason:
    reason: shapes.NotScaledReason = {"Code": given.code}
    if given.current is not None:
        reason["CurrentCapacity"] = given.current
    if given.least is not None:
        reason["MinCapacity"] = given.least
    if given.most is not None:
        reason["MaxCapacity"] = given.most
    return reason
