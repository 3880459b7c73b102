"""CloudWatch in each of the protocols its clients speak: JSON 1.0, query and CBOR, with botocore as the client."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore import model
from botocore.exceptions import ClientError

from clary.domain.clock import SystemClock
from clary.services import cloudwatch
from clary.telemetry.store import MetricStore
from clary.testing.wire import connect, example_keyring
from clary.wire.models import ServiceModels
from clary.wire.operations import OperationTable
from clary.wire.server import WireServer
from clary.wire.sigv4 import Verifier
from clary.wire.validate import validate

PROTOCOLS = {
    "json": "application/x-amz-json-1.0",
    "query": "text/xml",
    "smithy-rpc-v2-cbor": "application/cbor",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WireServer]:
    store = MetricStore(tmp_path / "metrics.db", SystemClock())
    table = OperationTable()
    table.add("cloudwatch", *cloudwatch.resources(store, SystemClock()))
    server = WireServer(
        ServiceModels(table.implemented()),
        table,
        validate=validate,
        keys=Verifier(example_keyring()),
        clock=SystemClock(),
        new_request_id=lambda: str(uuid.uuid4()),
    )
    yield server
    server.close()
    store.close()


@pytest.fixture(params=PROTOCOLS)
def spoken(request: pytest.FixtureRequest, server: WireServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of one protocol, as an older or another SDK would choose it; and the headers it sent last."""
    monkeypatch.setattr(model, "PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (request.param,))
    client = connect(server).client("cloudwatch")
    sent: dict[str, Any] = {}
    client.meta.events.register_first(
        "before-send.cloudwatch.*", lambda request, **_: sent.update(request.headers)
    )
    return request.param, client, sent


def test_L02_metrics_are_written_listed_and_read(spoken: Any) -> None:
    protocol, client, _ = spoken
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    dimensions = [{"Name": "Endpoint", "Value": "e & <f>"}]
    data = [
        {
            "MetricName": "m",
            "Value": float(value),
            "Timestamp": now,
            "Dimensions": dimensions,
            "Unit": "Count",
        }
        for value in (1, 2, 6)
    ]
    client.put_metric_data(Namespace="Mine", MetricData=data)
    listed = client.list_metrics(Namespace="Mine")["Metrics"]
    assert listed == [{"Namespace": "Mine", "MetricName": "m", "Dimensions": dimensions}]
    when = {"StartTime": now - timedelta(minutes=5), "EndTime": now + timedelta(minutes=5)}
    answer = client.get_metric_statistics(
        Namespace="Mine",
        MetricName="m",
        Dimensions=dimensions,
        Period=60,
        Statistics=["Sum", "Maximum"],
        **when,
    )
    assert [(point["Sum"], point["Maximum"], point["Timestamp"]) for point in answer["Datapoints"]] == [
        (9.0, 6.0, now)
    ]
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["content-type"].startswith(PROTOCOLS[protocol])
    stat = {"Metric": listed[0], "Period": 60, "Stat": "Average"}
    data_answer = client.get_metric_data(MetricDataQueries=[{"Id": "a", "MetricStat": stat}], **when)
    assert data_answer["MetricDataResults"][0]["Values"] == [3.0]
    assert data_answer["MetricDataResults"][0]["Timestamps"] == [now]


def test_Z01_an_error_has_the_same_code_in_every_protocol(spoken: Any) -> None:
    _, client, _ = spoken
    with pytest.raises(ClientError) as caught:
        client.put_metric_data(Namespace="AWS/Mine", MetricData=[{"MetricName": "m", "Value": 1.0}])
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert "AWS/" in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(ClientError) as unsupported:
        client.describe_alarms()
    assert "DescribeAlarms is not supported by this server" in unsupported.value.response["Error"]["Message"]


def test_L02_a_large_write_comes_compressed(spoken: Any) -> None:
    _, client, sent = spoken
    data = [{"MetricName": f"metric-{number:04d}", "Value": 1.0} for number in range(400)]
    client.put_metric_data(Namespace="Many", MetricData=data)
    assert sent["Content-Encoding"] in ("gzip", b"gzip")
    assert len(client.list_metrics(Namespace="Many")["Metrics"]) == 400
