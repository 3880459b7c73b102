"""PutMetricData: a user's own metrics, into the same store as the platform's."""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from clary.domain.clock import Clock
from clary.domain.faults import not_supported
from clary.links.metrics import WINDOW_S, MetricPoint
from clary.services.cloudwatch.faults import bad_combination, bad_value, missing, using_store
from clary.telemetry.sketches import Sketch, bucket, merge
from clary.telemetry.store import MetricStore
from clary.wire.operations import Call, operation
from clary.wire.shapes import cloudwatch as shapes

MOST_DATUMS = 1000
MOST_VALUES = 150
OLDEST = timedelta(days=14)
NEWEST = timedelta(hours=2)
LARGEST = 2.0**360
"""CloudWatch's bound on a value's magnitude."""


class Publishing:
    def __init__(self, store: MetricStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @operation("PutMetricData")
    def put_metric_data(self, call: Call, request: shapes.PutMetricDataInput) -> None:
        if request["Namespace"].startswith("AWS/"):
            raise bad_value("The value AWS/ for parameter Namespace is invalid.")
        if request.get("EntityMetricData"):
            raise not_supported("The member EntityMetricData of PutMetricData")
        datums = request.get("MetricData", [])
        if not datums:
            raise missing("The parameter MetricData is required.")
        if len(datums) > MOST_DATUMS:
            raise bad_value(f"The collection MetricData must not have a size greater than {MOST_DATUMS}.")
        now = self._clock.now()
        # All are read before any is kept: one bad datum refuses the whole call.
        points = [
            _point(call, request["Namespace"], datum, f"MetricData.member.{number}", now)
            for number, datum in enumerate(datums, 1)
        ]
        with using_store():
            self._store.put(points)


def _point(call: Call, namespace: str, datum: shapes.MetricDatum, where: str, now: datetime) -> MetricPoint:
    time = datum.get("Timestamp", now)
    if not now - OLDEST <= time <= now + NEWEST:
        raise bad_value(
            f"The parameter {where}.Timestamp must specify a time no more than two weeks in the past"
            " and no more than two hours in the future."
        )
    if datum.get("StorageResolution", 60) not in (1, 60):
        raise bad_value(f"The parameter {where}.StorageResolution must be a value in the set [ 1, 60 ].")
    count, total, minimum, maximum, sketch = _observed(datum, where)
    return MetricPoint(
        account=call.account,
        region=call.region,
        namespace=namespace,
        name=datum["MetricName"],
        dimensions=tuple(sorted((pair["Name"], pair["Value"]) for pair in datum.get("Dimensions", []))),
        unit=datum.get("Unit", "None"),
        window_start=int(time.timestamp()) // WINDOW_S * WINDOW_S,
        count=count,
        sum=total,
        minimum=minimum,
        maximum=maximum,
        sketch=sketch,
    )


def _observed(datum: shapes.MetricDatum, where: str) -> tuple[float, float, float, float, Sketch]:
    """Count, sum, minimum, maximum and sketch of a datum, in whichever of the three forms it came."""
    given = [member for member in ("Value", "Values", "StatisticValues") if member in datum]
    if len(given) > 1:
        raise bad_combination(
            f"The parameters {where}.{given[0]} and {where}.{given[1]} are mutually exclusive"
            " and you have specified both."
        )
    if "StatisticValues" in datum:
        return _from_statistics(datum["StatisticValues"], f"{where}.StatisticValues")
    if "Values" in datum:
        return _from_values(list(_counted(datum, where)))
    if "Value" in datum:
        return _from_values([(_checked(datum["Value"], f"{where}.Value"), 1)])
    raise bad_combination(
        f"At least one of the parameters {where}.Value, {where}.Values or {where}.StatisticValues"
        " must be specified."
    )


def _counted(datum: shapes.MetricDatum, where: str) -> Iterator[tuple[float, float]]:
    values = datum["Values"]
    counts = datum.get("Counts", [1] * len(values))
    if not values or len(values) > MOST_VALUES:
        raise bad_value(f"The collection {where}.Values must have between 1 and {MOST_VALUES} values.")
    if len(counts) != len(values):
        raise bad_value(f"The parameters {where}.Values and {where}.Counts must be of the same size.")
    for number, (value, count) in enumerate(zip(values, counts, strict=True), 1):
        if _checked(count, f"{where}.Counts.member.{number}") <= 0:
            raise bad_value(
                f"The value {count} for parameter {where}.Counts.member.{number} must be positive."
            )
        yield _checked(value, f"{where}.Values.member.{number}"), count


def _from_values(counted: list[tuple[float, float]]) -> tuple[float, float, float, float, Sketch]:
    sketch: Sketch = {}
    for value, count in counted:
        merge(sketch, {bucket(value): count})
    values = [value for value, _ in counted]
    total = sum(value * count for value, count in counted)
    return sum(count for _, count in counted), total, min(values), max(values), sketch


def _from_statistics(given: shapes.StatisticSet, where: str) -> tuple[float, float, float, float, Sketch]:
    count, total = (
        _checked(given["SampleCount"], f"{where}.SampleCount"),
        _checked(given["Sum"], f"{where}.Sum"),
    )
    low, high = _checked(given["Minimum"], f"{where}.Minimum"), _checked(given["Maximum"], f"{where}.Maximum")
    if count <= 0:
        raise bad_value(f"The value {count} for parameter {where}.SampleCount must be greater than 0.")
    if low > high:
        raise bad_value(f"The parameter {where}.Maximum must be greater than or equal to {where}.Minimum.")
    # Percentiles are known only where all values are the same one.
    return count, total, low, high, {bucket(low): count} if low == high else {}


def _checked(value: float, where: str) -> float:
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise bad_value(f"The value {value} for parameter {where} is invalid.")
    return value
