"""boto3's own clients read metrics and logs, over the wire server in process."""

import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.domain.clock import SystemClock
from clary.domain.instances import LogTarget
from clary.services import cloudwatch, logs
from clary.store import Store
from clary.telemetry.logs import LogFiles
from clary.telemetry.metrics import Recorder
from clary.telemetry.store import MetricStore
from clary.testing.wire import TEST_ACCOUNT, TEST_REGION, Clients, connect, example_keyring
from clary.wire.models import ServiceModels
from clary.wire.operations import OperationTable
from clary.wire.server import WireServer
from clary.wire.sigv4 import Verifier
from clary.wire.validate import validate

GROUP = "/aws/sagemaker/Endpoints/demo"
DIMENSIONS = [{"Name": "EndpointName", "Value": "demo"}, {"Name": "VariantName", "Value": "AllTraffic"}]


class Platform:
    """Metrics and logs, the operations over them, and clients."""

    def __init__(self, root: Path) -> None:
        self.clock = SystemClock()
        self.store = MetricStore(root / "metrics.db", self.clock)
        self.records = Store.open(f"sqlite:///{root / 'store.db'}", self.clock, is_durable=False)
        self.recorder = Recorder("gateway-0:1:1", self.clock)
        self.files = LogFiles(root / "logs", self.clock)
        table = OperationTable()
        table.add(
            "cloudwatch",
            *cloudwatch.resources(self.store, self.clock, self.records, lambda: uuid.uuid4().hex, []),
        )
        table.add("logs", *logs.resources(self.files))
        keyring = example_keyring()
        self.server = WireServer(
            ServiceModels(table.implemented()),
            table,
            validate=validate,
            keys=Verifier(keyring),
            clock=self.clock,
            new_request_id=lambda: str(uuid.uuid4()),
        )
        self.clients: Clients = connect(self.server, keyring=keyring)

    def write(self, data: bytes, stream: str) -> None:
        descriptor = self.files.open_stream(LogTarget(TEST_ACCOUNT, TEST_REGION, GROUP, stream))
        os.write(descriptor, data)
        os.close(descriptor)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    platform = Platform(tmp_path)
    yield platform
    platform.store.close()
    platform.records.close()


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_L02_endpoint_metrics_through_the_client(platform: Platform) -> None:
    names = {pair["Name"]: pair["Value"] for pair in DIMENSIONS}
    latency = platform.recorder.series(
        TEST_ACCOUNT, TEST_REGION, "AWS/SageMaker", "ModelLatency", names, "Microseconds"
    )
    for value in (100.0, 200.0, 600.0):
        latency.observe(value)
    batch = platform.recorder.drain()
    assert batch is not None
    platform.store.ingest(batch)
    client = platform.clients.client("cloudwatch")
    now = platform.clock.now()
    span = {"StartTime": now - timedelta(minutes=10), "EndTime": now + timedelta(minutes=2)}
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "ModelLatency", "Dimensions": DIMENSIONS}
    statistics = client.get_metric_statistics(
        **metric, **span, Period=60, Statistics=["Average", "Sum"], ExtendedStatistics=["p99"]
    )
    (point,) = statistics["Datapoints"]
    assert (point["Average"], point["Sum"], point["Unit"]) == (300, 900, "Microseconds")
    assert point["ExtendedStatistics"]["p99"] == pytest.approx(600, rel=0.02)
    query = {"Id": "q", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}
    (result,) = client.get_metric_data(MetricDataQueries=[query], **span)["MetricDataResults"]
    assert result["Values"] == [900]
    assert result["Timestamps"] == [point["Timestamp"]]
    listed = client.list_metrics(Namespace="AWS/SageMaker")["Metrics"]
    assert listed == [metric]


def test_own_metrics_through_the_client(platform: Platform) -> None:
    client = platform.clients.client("cloudwatch")
    client.put_metric_data(Namespace="Flow", MetricData=[{"MetricName": "m", "Value": 5.0}])
    many = [{"MetricName": "m", "Value": 1.0, "Unit": "Count", "Dimensions": DIMENSIONS}] * 500
    client.put_metric_data(Namespace="Flow", MetricData=many)  # large enough to come compressed
    pages = client.get_paginator("list_metrics").paginate(Namespace="Flow")
    assert [metric["MetricName"] for page in pages for metric in page["Metrics"]] == ["m", "m"]
    now = platform.clock.now()
    (point,) = client.get_metric_statistics(
        Namespace="Flow",
        MetricName="m",
        Dimensions=DIMENSIONS,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=2),
        Period=7200,
        Statistics=["Sum"],
    )["Datapoints"]
    assert point["Sum"] == 500


def test_refusals_have_cloudwatchs_codes(platform: Platform) -> None:
    client = platform.clients.client("cloudwatch")
    now = platform.clock.now()
    asked: dict[str, Any] = {
        "Namespace": "N",
        "MetricName": "m",
        "StartTime": now,
        "EndTime": now - timedelta(minutes=5),
        "Period": 60,
    }
    with pytest.raises(ClientError) as error:
        client.get_metric_statistics(**asked, Statistics=["Sum"])
    assert code(error) == "InvalidParameterValue"
    with pytest.raises(ClientError) as error:
        client.get_metric_statistics(**asked)
    assert code(error) == "InvalidParameterCombination"
    with pytest.raises(ClientError) as error:
        client.get_metric_data(
            MetricDataQueries=[{"Id": "e", "Expression": "SUM(METRICS())"}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now,
        )
    assert "SUM(METRICS())" in str(error.value) and "is not supported by this server" in str(error.value)


def test_L01_a_log_follower_reads_each_line_once(platform: Platform) -> None:
    client = platform.clients.client("logs")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_log_streams(logGroupName=GROUP)
    platform.write(b"one\ntwo\n", "AllTraffic/i-1")
    platform.write(b"ERROR other \xff\n", "AllTraffic/i-2")
    (group,) = client.describe_log_groups(logGroupNamePrefix="/aws/sagemaker/")["logGroups"]
    assert group["logGroupName"] == GROUP
    streams = client.describe_log_streams(
        logGroupName=GROUP, logStreamNamePrefix="AllTraffic/", orderBy="LogStreamName", limit=2
    )
    assert [stream["logStreamName"] for stream in streams["logStreams"]] == [
        "AllTraffic/i-1",
        "AllTraffic/i-2",
    ]
    assert "nextToken" not in streams
    asked = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1", "startFromHead": True}
    first = client.get_log_events(**asked)
    assert [event["message"] for event in first["events"]] == ["one", "two"]
    platform.write(b"three\n", "AllTraffic/i-1")
    second = client.get_log_events(**asked, nextToken=first["nextForwardToken"])
    assert [event["message"] for event in second["events"]] == ["three"]
    third = client.get_log_events(**asked, nextToken=second["nextForwardToken"])
    assert third["events"] == [] and third["nextForwardToken"] == second["nextForwardToken"]
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_log_events(logGroupName=GROUP, logStreamName="none")


def test_L01_the_paginator_filters_all_streams(platform: Platform) -> None:
    client = platform.clients.client("logs")
    for number in range(5):
        platform.write(f"ERROR {number}\nINFO {number}\n".encode(), f"AllTraffic/i-{number % 2}")
    pages = client.get_paginator("filter_log_events").paginate(
        logGroupName=GROUP, filterPattern="ERROR", PaginationConfig={"PageSize": 2}
    )
    found = [event["message"] for page in pages for event in page["events"]]
    assert sorted(found) == [f"ERROR {number}" for number in range(5)]
