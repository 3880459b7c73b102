"""CloudWatch in each of the protocols its clients speak: JSON 1.0, query and CBOR, with botocore as the client."""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore import model
from botocore.exceptions import ClientError

from clary.domain.alarms import AlarmSpec, StateChange
from clary.domain.clock import SystemClock
from clary.services import cloudwatch
from clary.store import Resource, Store, Transaction
from clary.telemetry.store import MetricStore
from clary.testing.wire import TEST_ACCOUNT, TEST_REGION, connect, example_keyring
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


TOPIC = f"arn:aws:sns:{TEST_REGION}:{TEST_ACCOUNT}:told"


class Known:
    """An action that any topic names."""

    repeats = False

    def takes(self, arn: str) -> bool:
        return arn.startswith("arn:aws:sns:")

    def fire(self, tx: Transaction, alarm: Resource, spec: AlarmSpec, arn: str, change: StateChange) -> None:
        return None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WireServer]:
    store = MetricStore(tmp_path / "metrics.db", SystemClock())
    records = Store.open(f"sqlite:///{tmp_path / 'store.db'}", SystemClock(), is_durable=False)
    table = OperationTable()
    uids = (f"{number:032x}" for number in count())
    table.add("cloudwatch", *cloudwatch.resources(store, SystemClock(), records, uids.__next__, [Known()]))
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
    records.close()


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
        client.describe_anomaly_detectors()
    message = unsupported.value.response["Error"]["Message"]
    assert "DescribeAnomalyDetectors is not supported by this server" in message


def test_L02_a_large_write_comes_compressed(spoken: Any) -> None:
    _, client, sent = spoken
    data = [{"MetricName": f"metric-{number:04d}", "Value": 1.0} for number in range(400)]
    client.put_metric_data(Namespace="Many", MetricData=data)
    assert sent["Content-Encoding"] in ("gzip", b"gzip")
    assert len(client.list_metrics(Namespace="Many")["Metrics"]) == 400


ALARM: dict[str, Any] = {
    "AlarmName": "Errors of e",
    "AlarmDescription": "too many",
    "Namespace": "AWS/SageMaker",
    "MetricName": "Invocation5XXErrors",
    "Dimensions": [{"Name": "VariantName", "Value": "v"}, {"Name": "EndpointName", "Value": "e"}],
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 3,
    "DatapointsToAlarm": 2,
    "Threshold": 1.5,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
    "TreatMissingData": "notBreaching",
    "AlarmActions": [TOPIC],
    "OKActions": [TOPIC],
}


def test_L03_an_alarm_is_written_read_set_and_deleted(spoken: Any) -> None:
    _, client, _ = spoken
    client.put_metric_alarm(**ALARM, Tags=[{"Key": "team", "Value": "a"}])
    (alarm,) = client.describe_alarms(AlarmNames=["Errors of e"])["MetricAlarms"]
    given = {**ALARM, "Dimensions": sorted(ALARM["Dimensions"], key=lambda pair: pair["Name"])}
    assert {name: alarm[name] for name in given} == given
    assert alarm["StateValue"] == "INSUFFICIENT_DATA"
    assert alarm["StateReason"] == "Unchecked: Initial alarm creation"
    assert alarm["AlarmArn"].endswith(":alarm:Errors of e")
    tags = client.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    client.tag_resource(ResourceARN=alarm["AlarmArn"], Tags=[{"Key": "b", "Value": "1"}])
    client.untag_resource(ResourceARN=alarm["AlarmArn"], TagKeys=["team"])
    assert client.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"] == [
        {"Key": "b", "Value": "1"}
    ]

    data = json.dumps({"why": "a test"})
    client.set_alarm_state(
        AlarmName="Errors of e", StateValue="ALARM", StateReason="a test", StateReasonData=data
    )
    (alarm,) = client.describe_alarms(StateValue="ALARM", ActionPrefix="arn:aws:sns:")["MetricAlarms"]
    assert (alarm["StateReason"], alarm["StateReasonData"]) == ("a test", data)
    client.put_metric_alarm(**{**ALARM, "Threshold": 7.0})
    client.disable_alarm_actions(AlarmNames=["Errors of e", "nobody"])
    (alarm,) = client.describe_alarms_for_metric(
        Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Dimensions=ALARM["Dimensions"]
    )["MetricAlarms"]
    assert (alarm["StateValue"], alarm["Threshold"], alarm["ActionsEnabled"]) == ("ALARM", 7.0, False)
    client.enable_alarm_actions(AlarmNames=["Errors of e"])

    client.delete_alarms(AlarmNames=["Errors of e", "nobody"])
    assert client.describe_alarms()["MetricAlarms"] == []
    history = client.describe_alarm_history(AlarmName="Errors of e", ScanBy="TimestampAscending")
    assert [item["HistorySummary"] for item in history["AlarmHistoryItems"]] == [
        'Alarm "Errors of e" created',
        "Alarm updated from INSUFFICIENT_DATA to ALARM",
        f"Successfully executed action {TOPIC}",
        'Alarm "Errors of e" updated',
        'Alarm "Errors of e" updated',
        'Alarm "Errors of e" updated',
        'Alarm "Errors of e" deleted',
    ]
    change = json.loads(history["AlarmHistoryItems"][1]["HistoryData"])
    assert change["newState"]["stateReasonData"] == {"why": "a test"}
    only = client.describe_alarm_history(HistoryItemType="StateUpdate", MaxRecords=1)
    assert len(only["AlarmHistoryItems"]) == 1
    assert "NextToken" not in only


def test_L03_alarms_come_in_pages(spoken: Any) -> None:
    _, client, _ = spoken
    for number in range(7):
        client.put_metric_alarm(**{**ALARM, "AlarmName": f"a-{number}"})
    client.put_metric_alarm(**{**ALARM, "AlarmName": "B"})
    pages = client.get_paginator("describe_alarms").paginate(
        AlarmNamePrefix="a-", PaginationConfig={"PageSize": 3}
    )
    found = [alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]]
    assert found == [f"a-{number}" for number in range(7)]
    history = client.get_paginator("describe_alarm_history").paginate(PaginationConfig={"PageSize": 3})
    assert sum(len(page["AlarmHistoryItems"]) for page in history) == 8


def test_L03_composite_alarms(spoken: Any) -> None:
    _, client, _ = spoken
    client.put_metric_alarm(**{**ALARM, "AlarmName": "one"})
    client.put_composite_alarm(AlarmName="both", AlarmRule='ALARM("one") OR FALSE', AlarmActions=[TOPIC])
    assert [each["AlarmName"] for each in client.describe_alarms()["MetricAlarms"]] == ["one"]
    (composite,) = client.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    assert composite["AlarmRule"] == 'ALARM("one") OR FALSE'
    assert [a["AlarmName"] for a in client.describe_alarms(ChildrenOfAlarmName="both")["MetricAlarms"]] == [
        "one"
    ]
    parents = client.describe_alarms(ParentsOfAlarmName="one")["CompositeAlarms"]
    assert [parent["AlarmName"] for parent in parents] == ["both"]
    client.put_composite_alarm(AlarmName="top", AlarmRule="ALARM(both)")
    refused: list[tuple[Callable[[], Any], str, str]] = [
        (
            lambda: client.put_composite_alarm(AlarmName="both", AlarmRule="ALARM(top)"),
            "ValidationError",
            "itself",
        ),
        (lambda: client.put_composite_alarm(AlarmName="x", AlarmRule="ALARM(x)"), "ValidationError", "own"),
        (
            lambda: client.put_composite_alarm(AlarmName="x", AlarmRule="ALARM(no)"),
            "ValidationError",
            "not exist",
        ),
        (
            lambda: client.put_composite_alarm(AlarmName="x", AlarmRule="ALARM("),
            "ValidationError",
            "too early",
        ),
        (lambda: client.delete_alarms(AlarmNames=["one"]), "ResourceConflict", "depending on it"),
        (lambda: client.delete_alarms(AlarmNames=["both", "top"]), "ValidationError", "At most one"),
        (
            lambda: client.put_metric_alarm(**{**ALARM, "AlarmName": "both"}),
            "ValidationError",
            "another type",
        ),
    ]
    for call, code, words in refused:
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == code
        assert words in caught.value.response["Error"]["Message"]
    client.delete_alarms(AlarmNames=["top"])
    client.delete_alarms(AlarmNames=["both", "one"])


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"Period": 45}, "ValidationError", "multiple of 60"),
        ({"Period": 3000, "EvaluationPeriods": 30}, "ValidationError", "one day"),
        ({"Period": 3600, "EvaluationPeriods": 169}, "ValidationError", "seven days"),
        ({"DatapointsToAlarm": 4}, "ValidationError", "DatapointsToAlarm"),
        ({"Statistic": None}, "InvalidParameterCombination", "Exactly one"),
        ({"ExtendedStatistic": "p99"}, "InvalidParameterCombination", "Exactly one"),
        ({"Statistic": None, "ExtendedStatistic": "p101"}, "ValidationError", "not a valid statistic"),
        ({"Statistic": None, "ExtendedStatistic": "tm90"}, "ValidationError", "not supported"),
        ({"TreatMissingData": "maybe"}, "ValidationError", "TreatMissingData"),
        ({"EvaluateLowSampleCountPercentile": "ignore"}, "InvalidParameterCombination", "percentile"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "ValidationError", "not supported"),
        ({"MetricName": None}, "ValidationError", "MetricName is required"),
        ({"Threshold": None}, "ValidationError", "Threshold is required"),
        (
            {"Metrics": [{"Id": "m", "Expression": "1"}]},
            "ValidationError",
            "member Metrics of PutMetricAlarm",
        ),
        (
            {"AlarmActions": ["arn:aws:lambda:us-east-1:123456789012:function:f"]},
            "ValidationError",
            "lambda",
        ),
        ({"AlarmActions": ["telephone"]}, "ValidationError", "Invalid arn syntax"),
        ({"AlarmActions": ["arn:aws:sns:mars-1:123456789012:t"]}, "ValidationError", "Invalid region mars-1"),
        ({"AlarmName": "ERRORS OF E"}, "ValidationError", "upper and lower case"),
        (
            {"Dimensions": [{"Name": "a", "Value": "1"}, {"Name": "a", "Value": "2"}]},
            "ValidationError",
            "unique",
        ),
    ],
)
def test_L03_impossible_alarms_are_refused(
    server: WireServer, changed: dict[str, Any], code: str, words: str
) -> None:
    client = connect(server).client("cloudwatch")
    client.put_metric_alarm(**ALARM)
    asked = {name: value for name, value in {**ALARM, **changed}.items() if value is not None}
    with pytest.raises(ClientError) as caught:
        client.put_metric_alarm(**asked)
    assert caught.value.response["Error"]["Code"] == code
    assert words in caught.value.response["Error"]["Message"]
    with pytest.raises(ClientError) as absent:
        client.set_alarm_state(AlarmName="nobody", StateValue="OK", StateReason="")
    assert absent.value.response["Error"]["Code"] == "ResourceNotFound"
