"""PutMetricData: what a user writes is what GetMetricStatistics reads."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from clary.domain.faults import Fault
from clary.domain.principals import assumed_role
from clary.services.cloudwatch.metrics import Metrics
from clary.services.cloudwatch.publishing import Publishing
from clary.telemetry.store import MetricStore, MetricsUnavailable
from clary.testing.clock import FakeClock
from clary.wire.operations import Call
from clary.wire.shapes import cloudwatch as shapes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALL = Call(
    service="cloudwatch",
    operation="PutMetricData",
    account="123456789012",
    region="us-east-1",
    principal=assumed_role("123456789012", "r", "s", "AKIA"),
    request_id="1",
    received_at=NOW,
)


class Service:
    def __init__(self, path: Path) -> None:
        self.clock = FakeClock(NOW)
        self.store = MetricStore(path, self.clock)
        self.publishing = Publishing(self.store, self.clock)
        self.metrics = Metrics(self.store, self.clock)

    def put(self, *datums: dict[str, Any], namespace: str = "Flow", **members: object) -> None:
        request = {"Namespace": namespace, "MetricData": list(datums)} | members
        self.publishing.put_metric_data(CALL, cast(shapes.PutMetricDataInput, request))

    def read(self, statistics: tuple[str, ...], extended: tuple[str, ...] = ()) -> list[shapes.Datapoint]:
        request: shapes.GetMetricStatisticsInput = {
            "Namespace": "Flow",
            "MetricName": "m",
            "StartTime": NOW - timedelta(hours=1),
            "EndTime": NOW + timedelta(hours=1),
            "Period": 60,
            "Statistics": list(statistics),
            "ExtendedStatistics": list(extended),
        }
        return self.metrics.get_metric_statistics(CALL, request)["Datapoints"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "metrics.db")
    yield service
    service.store.close()


def test_single_values(service: Service) -> None:
    service.put({"MetricName": "m", "Value": 2.0}, {"MetricName": "m", "Value": -4.0})
    (point,) = service.read(("SampleCount", "Sum", "Minimum", "Maximum"))
    assert [point[key] for key in ("SampleCount", "Sum", "Minimum", "Maximum")] == [2, -2, -4, 2]
    assert point["Unit"] == "None"


def test_values_with_counts(service: Service) -> None:
    service.put({"MetricName": "m", "Values": [1.0, 10.0], "Counts": [9.0, 1.0], "Unit": "Count"})
    (point,) = service.read(("SampleCount", "Sum"), ("p50", "p100"))
    assert (point["SampleCount"], point["Sum"], point["Unit"]) == (10, 19, "Count")
    assert point["ExtendedStatistics"] == {
        "p50": pytest.approx(1, rel=0.02),
        "p100": pytest.approx(10, rel=0.02),
    }


def test_statistic_sets_have_no_percentiles(service: Service) -> None:
    given = {"SampleCount": 3.0, "Sum": 6.0, "Minimum": 1.0, "Maximum": 3.0}
    service.put({"MetricName": "m", "StatisticValues": given})
    (point,) = service.read(("SampleCount", "Sum", "Minimum", "Maximum"), ("p50",))
    assert {key: point[key] for key in ("SampleCount", "Sum", "Minimum", "Maximum")} == given
    assert point["ExtendedStatistics"] == {}


def test_a_time_of_its_own(service: Service) -> None:
    service.put({"MetricName": "m", "Value": 1.0, "Timestamp": NOW - timedelta(seconds=130)})
    (point,) = service.read(("Sum",))
    assert point["Timestamp"] == NOW - timedelta(seconds=180)


@pytest.mark.parametrize(
    ("datum", "code"),
    [
        ({"Value": float("nan")}, "InvalidParameterValue"),
        ({"Value": float("inf")}, "InvalidParameterValue"),
        ({"Value": 1e300}, "InvalidParameterValue"),
        ({"Value": 1.0, "Timestamp": NOW - timedelta(days=15)}, "InvalidParameterValue"),
        ({"Value": 1.0, "Timestamp": NOW + timedelta(hours=3)}, "InvalidParameterValue"),
        ({"Value": 1.0, "StorageResolution": 5}, "InvalidParameterValue"),
        ({"Value": 1.0, "Values": [1.0]}, "InvalidParameterCombination"),
        ({}, "InvalidParameterCombination"),
        ({"Values": []}, "InvalidParameterValue"),
        ({"Values": [1.0] * 151}, "InvalidParameterValue"),
        ({"Values": [1.0], "Counts": [1.0, 2.0]}, "InvalidParameterValue"),
        ({"Values": [1.0], "Counts": [-1.0]}, "InvalidParameterValue"),
        (
            {"StatisticValues": {"SampleCount": 0.0, "Sum": 0.0, "Minimum": 0.0, "Maximum": 0.0}},
            "InvalidParameterValue",
        ),
        (
            {"StatisticValues": {"SampleCount": 1.0, "Sum": 0.0, "Minimum": 2.0, "Maximum": 0.0}},
            "InvalidParameterValue",
        ),
    ],
)
def test_a_bad_datum_refuses_the_whole_call(service: Service, datum: dict[str, object], code: str) -> None:
    with pytest.raises(Fault) as caught:
        service.put({"MetricName": "m", "Value": 1.0}, {"MetricName": "m"} | datum)
    assert caught.value.code == code
    assert service.read(("Sum",)) == []


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"namespace": "AWS/SageMaker"}, "InvalidParameterValue"),
        ({"MetricData": []}, "MissingParameter"),
        ({"MetricData": [{"MetricName": "m", "Value": 1.0}] * 1001}, "InvalidParameterValue"),
        ({"EntityMetricData": [{}]}, "ValidationException"),
    ],
)
def test_refusals(service: Service, members: dict[str, Any], code: str) -> None:
    with pytest.raises(Fault) as caught:
        service.put({"MetricName": "m", "Value": 1.0}, **members)
    assert caught.value.code == code


def test_a_store_that_does_not_answer_is_said(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(points: object) -> None:
        raise MetricsUnavailable("database or disk is full")

    monkeypatch.setattr(service.store, "put", full)
    with pytest.raises(Fault) as caught:
        service.put({"MetricName": "m", "Value": 1.0})
    assert (caught.value.code, caught.value.status) == ("ServiceUnavailable", 503)
