"""GetMetricStatistics, GetMetricData and ListMetrics keep CloudWatch's rules."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from clary.domain.faults import Fault
from clary.domain.principals import assumed_role
from clary.services.cloudwatch import metrics as module
from clary.services.cloudwatch.metrics import Metrics
from clary.telemetry.metrics import Recorder
from clary.telemetry.store import MetricStore
from clary.testing.clock import FakeClock
from clary.wire.operations import Call
from clary.wire.shapes import cloudwatch as shapes

ACCOUNT, REGION = "123456789012", "us-east-1"
DIMENSIONS: list[shapes.Dimension] = [
    {"Name": "VariantName", "Value": "AllTraffic"},
    {"Name": "EndpointName", "Value": "e"},
]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class CloudWatch:
    """The service over a store that a recorder feeds."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock(BEGAN)
        self.store = MetricStore(path, self.clock)
        self.recorder = Recorder("gateway-0:1:1", self.clock)
        self.metrics = Metrics(self.store, self.clock)
        self.call = Call(
            service="cloudwatch",
            operation="",
            account=ACCOUNT,
            region=REGION,
            principal=assumed_role(ACCOUNT, "r", "s", "AKIA"),
            request_id="1",
            received_at=BEGAN,
        )

    def record(
        self, *values: float, name: str = "ModelLatency", unit: str = "Microseconds", seconds: int = 60
    ) -> None:
        """Observes `values` at the present time, which then goes on."""
        dimensions = {item["Name"]: item["Value"] for item in DIMENSIONS}
        series = self.recorder.series(ACCOUNT, REGION, "AWS/SageMaker", name, dimensions, unit)
        self.recorder.drain()
        for value in values:
            series.observe(value)
        batch = self.recorder.drain()
        if batch is not None:
            self.store.ingest(batch)
        self.clock.advance(seconds)
        self.recorder.drain()

    def statistics(self, **changes: object) -> list[shapes.Datapoint]:
        request = {
            "Namespace": "AWS/SageMaker",
            "MetricName": "ModelLatency",
            "Dimensions": DIMENSIONS,
            "StartTime": BEGAN,
            "EndTime": self.clock.now(),
            "Period": 60,
            "Statistics": ["Sum"],
        } | changes
        request = {key: value for key, value in request.items() if value is not None}
        answer = self.metrics.get_metric_statistics(self.call, cast(shapes.GetMetricStatisticsInput, request))
        return answer["Datapoints"]

    def data(self, *queries: shapes.MetricDataQuery, **changes: object) -> shapes.GetMetricDataOutput:
        request = {
            "MetricDataQueries": list(queries),
            "StartTime": BEGAN,
            "EndTime": self.clock.now(),
        } | changes
        return self.metrics.get_metric_data(self.call, cast(shapes.GetMetricDataInput, request))

    def list(self, **members: object) -> shapes.ListMetricsOutput:
        return self.metrics.list_metrics(self.call, cast(shapes.ListMetricsInput, members))


@pytest.fixture
def cloudwatch(tmp_path: Path) -> Iterator[CloudWatch]:
    service = CloudWatch(tmp_path / "metrics.db")
    yield service
    service.store.close()


def query(
    id_: str = "i", name: str = "ModelLatency", stat: str = "Sum", period: int = 60
) -> shapes.MetricDataQuery:
    return {
        "Id": id_,
        "MetricStat": {
            "Metric": {"Namespace": "AWS/SageMaker", "MetricName": name, "Dimensions": DIMENSIONS},
            "Period": period,
            "Stat": stat,
        },
    }


def test_L02_every_plain_statistic_and_percentiles(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(*range(1, 101))
    (point,) = cloudwatch.statistics(
        Statistics=["SampleCount", "Sum", "Average", "Minimum", "Maximum"],
        ExtendedStatistics=["p99", "p50.0"],
    )
    extended = point.pop("ExtendedStatistics")
    assert point == {
        "Timestamp": BEGAN,
        "Unit": "Microseconds",
        "SampleCount": 100,
        "Sum": 5050,
        "Average": 50.5,
        "Minimum": 1,
        "Maximum": 100,
    }
    assert extended == {"p99": pytest.approx(99, rel=0.02), "p50.0": pytest.approx(50.5, rel=0.03)}


def test_L02_periods_without_data_are_absent(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(1)
    cloudwatch.record()
    cloudwatch.record(3)
    points = cloudwatch.statistics()
    assert [(point["Timestamp"], point["Sum"]) for point in points] == [
        (BEGAN, 1),
        (BEGAN + timedelta(seconds=120), 3),
    ]
    (whole,) = cloudwatch.statistics(Period=300)
    assert whole["Sum"] == 4


def test_zero_counts_too(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(0, 0, 0, 1, name="Invocation5XXErrors", unit="None")
    (point,) = cloudwatch.statistics(MetricName="Invocation5XXErrors", Statistics=["Average", "Sum"])
    assert (point["Average"], point["Sum"], point["Unit"]) == (0.25, 1, "None")


def test_fewer_dimensions_than_written_find_nothing(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(1)
    assert cloudwatch.statistics(Dimensions=DIMENSIONS[:1]) == []
    assert cloudwatch.statistics(Dimensions=None) == []
    assert len(cloudwatch.statistics(Dimensions=DIMENSIONS[::-1])) == 1


def test_another_unit_finds_nothing(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(1)
    assert cloudwatch.statistics(Unit="Seconds") == []
    assert len(cloudwatch.statistics(Unit="Microseconds")) == 1


def test_the_start_is_rounded_down_as_documented(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(1)
    cloudwatch.record(2)
    (first, second) = cloudwatch.statistics(StartTime=BEGAN + timedelta(seconds=59))
    assert (first["Timestamp"], second["Timestamp"]) == (BEGAN, BEGAN + timedelta(seconds=60))
    assert len(cloudwatch.statistics(StartTime=BEGAN + timedelta(seconds=60))) == 1
    (old,) = cloudwatch.statistics(
        StartTime=BEGAN - timedelta(days=20, seconds=59),
        Period=86_400 * 30,
        EndTime=BEGAN + timedelta(seconds=300),
    )
    assert old["Timestamp"] == BEGAN - timedelta(days=20, minutes=5)


def test_short_periods(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(1, seconds=10)
    cloudwatch.record(2, seconds=10)
    assert [point["Sum"] for point in cloudwatch.statistics(Period=10)] == [1, 2]
    assert [point["Sum"] for point in cloudwatch.statistics(Period=1)] == [1, 2]
    late = cloudwatch.statistics(Period=10, StartTime=BEGAN + timedelta(seconds=13))
    assert [point["Timestamp"] for point in late] == [BEGAN + timedelta(seconds=10)]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (
            {"StartTime": BEGAN + timedelta(days=1)},
            "InvalidParameterValue",
            "The parameter StartTime must be less than the parameter EndTime.",
        ),
        (
            {"EndTime": BEGAN},
            "InvalidParameterValue",
            "The parameter StartTime must not equal parameter EndTime.",
        ),
        (
            {"Statistics": None},
            "InvalidParameterCombination",
            "At least one of the parameters Statistics and ExtendedStatistics must be specified.",
        ),
        (
            {"StartTime": BEGAN - timedelta(days=30)},
            "InvalidParameterCombination",
            "You have requested up to 43,201 datapoints, which exceeds the limit of 1,440. You may reduce the"
            " datapoints requested by increasing Period, or decreasing the time range.",
        ),
        ({"Period": 90}, "InvalidParameterValue", "multiple of 60"),
        ({"Period": 7}, "InvalidParameterValue", "multiple of 60"),
        ({"ExtendedStatistics": ["p101"]}, "InvalidParameterValue", "p101"),
        ({"ExtendedStatistics": ["tm99"]}, "ValidationException", "The statistic tm99 is not supported"),
        ({"ExtendedStatistics": ["PR(:1)"]}, "ValidationException", "not supported"),
        ({"ExtendedStatistics": ["IQM"]}, "ValidationException", "not supported"),
    ],
)
def test_refusals(cloudwatch: CloudWatch, changes: dict[str, object], code: str, message: str) -> None:
    cloudwatch.clock.advance(60)
    with pytest.raises(Fault) as caught:
        cloudwatch.statistics(**changes)
    assert caught.value.code == code
    assert message in caught.value.message


def test_metric_data_scans_backwards_unless_asked(cloudwatch: CloudWatch) -> None:
    for value in (1, 2, 3):
        cloudwatch.record(value)
    (newest_first,) = cloudwatch.data(query())["MetricDataResults"]
    assert newest_first["Values"] == [3, 2, 1]
    assert newest_first["Timestamps"] == [BEGAN + timedelta(seconds=60 * n) for n in (2, 1, 0)]
    assert (newest_first["Id"], newest_first["Label"], newest_first["StatusCode"]) == (
        "i",
        "ModelLatency",
        "Complete",
    )
    (oldest_first,) = cloudwatch.data(query(), ScanBy="TimestampAscending")["MetricDataResults"]
    assert oldest_first["Values"] == [1, 2, 3]


@pytest.mark.parametrize("scan_by", ["TimestampAscending", "TimestampDescending"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_metric_data_pages_hold_everything_once(cloudwatch: CloudWatch, scan_by: str, size: int) -> None:
    for value in (1, 2, 3):
        cloudwatch.record(value)
        cloudwatch.record(value * 10, name="Invocations", seconds=0)
    queries = [query("a"), query("none", "Nothing"), query("b", "Invocations"), query("c", stat="p50")]
    whole = cloudwatch.data(*queries, ScanBy=scan_by)
    assert "NextToken" not in whole
    collected: dict[str, list[float]] = {}
    page = cloudwatch.data(*queries, ScanBy=scan_by, MaxDatapoints=size)
    tokens = set()
    while True:
        assert sum(len(result["Values"]) for result in page["MetricDataResults"]) <= size
        for result in page["MetricDataResults"]:
            collected.setdefault(result["Id"], []).extend(result["Values"])
        if "NextToken" not in page:
            break
        assert page["NextToken"] not in tokens
        tokens.add(page["NextToken"])
        page = cloudwatch.data(*queries, ScanBy=scan_by, MaxDatapoints=size, NextToken=page["NextToken"])
    assert collected == {result["Id"]: result["Values"] for result in whole["MetricDataResults"]}


def test_a_query_that_returns_no_data_is_left_out(cloudwatch: CloudWatch) -> None:
    hidden = query("a") | {"ReturnData": False}
    results = cloudwatch.data(hidden, query("b"), EndTime=BEGAN + timedelta(hours=1))
    assert [result["Id"] for result in results["MetricDataResults"]] == ["b"]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"Id": "1a"}, "ValidationError", "MetricDataQueries.member.2.Id"),
        ({"Id": "first"}, "ValidationError", "not unique"),
        ({"MetricStat": None}, "ValidationError", "Either"),
        ({"MetricStat": None, "Expression": "SUM(METRICS())"}, "ValidationException", "'SUM(METRICS())'"),
        ({"Expression": "a"}, "ValidationError", "mutually exclusive"),
        ({"Label": "${MAX}"}, "ValidationException", "dynamic label"),
        ({"AccountId": "999999999999"}, "ValidationException", "other accounts"),
    ],
)
def test_bad_queries(cloudwatch: CloudWatch, changes: dict[str, object], code: str, message: str) -> None:
    bad = {key: value for key, value in ({**query("second")} | changes).items() if value is not None}
    with pytest.raises(Fault) as caught:
        cloudwatch.data(query("first"), cast(shapes.MetricDataQuery, bad), EndTime=BEGAN + timedelta(hours=1))
    assert caught.value.code == code
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"EndTime": BEGAN}, "ValidationError"),
        ({"MaxDatapoints": 0}, "ValidationError"),
        ({"MaxDatapoints": 100_801}, "ValidationError"),
        ({"NextToken": "nonsense"}, "InvalidNextToken"),
    ],
)
def test_bad_requests_for_metric_data(cloudwatch: CloudWatch, changes: dict[str, object], code: str) -> None:
    with pytest.raises(Fault) as caught:
        cloudwatch.data(query(), **({"EndTime": BEGAN + timedelta(hours=1)} | changes))
    assert caught.value.code == code


def test_too_many_queries(cloudwatch: CloudWatch) -> None:
    with pytest.raises(Fault) as caught:
        cloudwatch.data(*(query(f"q{n}") for n in range(501)), EndTime=BEGAN + timedelta(hours=1))
    assert caught.value.code == "ValidationError"


def test_L02_metrics_are_listed_with_their_dimensions(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(1)
    cloudwatch.record(1, name="Invocations", unit="None")
    listed = cloudwatch.list(Namespace="AWS/SageMaker", MetricName="Invocations")["Metrics"]
    assert listed == [
        {
            "Namespace": "AWS/SageMaker",
            "MetricName": "Invocations",
            "Dimensions": sorted(DIMENSIONS, key=lambda item: item["Name"]),
        }
    ]
    assert len(cloudwatch.list()["Metrics"]) == 2
    assert len(cloudwatch.list(Dimensions=[{"Name": "EndpointName"}])["Metrics"]) == 2
    assert len(cloudwatch.list(Dimensions=[{"Name": "EndpointName", "Value": "e"}])["Metrics"]) == 2
    assert cloudwatch.list(Dimensions=[{"Name": "EndpointName", "Value": "f"}])["Metrics"] == []
    assert cloudwatch.list(Dimensions=[{"Name": "Other"}])["Metrics"] == []
    assert cloudwatch.list(Namespace="AWS")["Metrics"] == []


def test_recently_active_metrics(cloudwatch: CloudWatch) -> None:
    cloudwatch.record(1, seconds=3 * 3600 + 1)
    cloudwatch.record(1, name="Invocations")
    listed = cloudwatch.list(RecentlyActive="PT3H")["Metrics"]
    assert [metric["MetricName"] for metric in listed] == ["Invocations"]


def test_listing_pages_hold_everything_once(cloudwatch: CloudWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        cloudwatch.record(1, name=f"M{number}", seconds=0)
    whole = cloudwatch.list()["Metrics"]
    monkeypatch.setattr(module, "LIST_PAGE", 3)
    page = cloudwatch.list()
    collected = page["Metrics"]
    while "NextToken" in page:
        page = cloudwatch.list(NextToken=page["NextToken"])
        collected += page["Metrics"]
    assert collected == whole
    with pytest.raises(Fault) as caught:
        cloudwatch.list(Namespace="X", NextToken="e30")
    assert caught.value.code == "InvalidParameterValue"


def test_other_accounts_metrics_are_refused_by_name(cloudwatch: CloudWatch) -> None:
    with pytest.raises(Fault, match="other accounts"):
        cloudwatch.list(IncludeLinkedAccounts=True)
