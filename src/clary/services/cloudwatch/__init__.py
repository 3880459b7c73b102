"""CloudWatch: metrics, read (`metrics`, over `queries`, `periods`, `statistics`) and written (`publishing`);
alarms, written (`alarms`, over `alarm_requests`) and read (`alarm_lists`, over `alarm_views`)."""

from collections.abc import Callable, Mapping, Sequence

from clary.domain.clock import Clock
from clary.services.cloudwatch.alarm_lists import AlarmLists
from clary.services.cloudwatch.alarms import Alarms
from clary.services.cloudwatch.metrics import Metrics
from clary.services.cloudwatch.publishing import Publishing
from clary.services.cloudwatch.tags import Tags
from clary.store import Store
from clary.store.alarms import AlarmAction
from clary.telemetry.store import MetricStore

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "GetMetricData": ("LabelOptions", "MetricDataQueries.Period beside a MetricStat"),
    "PutMetricData": ("MetricData.StorageResolution: everything is kept at five seconds at first",),
}
"""Operation → members that change nothing here."""


def resources(
    metrics: MetricStore,
    clock: Clock,
    store: Store,
    new_uid: Callable[[], str],
    actions: Sequence[AlarmAction],
) -> tuple[object, ...]:
    """Everything that answers an operation of `cloudwatch`. `actions`: what alarms may set in motion."""
    return (
        Metrics(metrics, clock),
        Publishing(metrics, clock),
        Alarms(store, clock, new_uid, actions),
        AlarmLists(store),
        Tags(store),
    )
