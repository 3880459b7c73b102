"""CloudWatch's metrics: reading (`metrics`, over `queries`, `periods`, `statistics`) and writing (`publishing`)."""

from collections.abc import Mapping

from clary.domain.clock import Clock
from clary.services.cloudwatch.metrics import Metrics
from clary.services.cloudwatch.publishing import Publishing
from clary.telemetry.store import MetricStore

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "GetMetricData": ("LabelOptions", "MetricDataQueries.Period beside a MetricStat"),
    "PutMetricData": ("MetricData.StorageResolution: everything is kept at five seconds at first",),
}
"""Operation → members that change nothing here."""


def resources(store: MetricStore, clock: Clock) -> tuple[object, ...]:
    """Everything that answers an operation of `cloudwatch`."""
    return (Metrics(store, clock), Publishing(store, clock))
