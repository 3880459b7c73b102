"""Counts become SageMaker's endpoint metrics, each invocation one value in each."""

from datetime import UTC, datetime

import pytest

from clary.domain.routes import EndpointKey, EndpointRoute
from clary.gateway.meters import SHADOWS_DROPPED, Meter
from clary.links.metrics import MetricPoint
from clary.telemetry.metrics import Recorder

ROUTE = EndpointRoute(EndpointKey("111122223333", "eu-west-1", "my-ep"), "My-Ep", "uid", 1, ())


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def traced(recorder: Recorder) -> dict[tuple[str, bool], MetricPoint]:
    """(metric, whether it names the configuration) → what it says."""
    batch = recorder.drain()
    assert batch is not None
    found = {(p.name, "EndpointConfigName" in dict(p.dimensions)): p for p in batch.points}
    assert len(found) == len(batch.points)
    return found


def points(recorder: Recorder) -> dict[str, MetricPoint]:
    batch = recorder.drain()
    return {} if batch is None else {point.name: point for point in batch.points}


def test_L02_errors_are_counted_as_rates() -> None:
    recorder = Recorder("test", Noon())
    meter = Meter(recorder, ROUTE, "AllTraffic")
    meter.instances = 4
    meter.invocations, meter.client_errors, meter.model_errors = 10, 3, 3
    meter.flush()
    got = points(recorder)
    assert {name: (point.count, point.sum) for name, point in got.items()} == {
        "Invocations": (10, 10),
        "InvocationsPerInstance": (10, 2.5),
        "Invocation4XXErrors": (10, 3),
        "Invocation5XXErrors": (10, 0),
        "InvocationModelErrors": (10, 3),
    }
    point = got["Invocations"]
    assert (point.account, point.region, point.namespace) == ("111122223333", "eu-west-1", "AWS/SageMaker")
    assert point.dimensions == (("EndpointName", "My-Ep"), ("VariantName", "AllTraffic"))


@pytest.mark.parametrize("count", [1, 3000])
def test_L02_every_latency_is_one_value(count: int) -> None:
    recorder = Recorder("test", Noon())
    meter = Meter(recorder, ROUTE, "AllTraffic")
    for number in range(count):
        meter.answered(0.001 * (number + 1), 0.00002)
    meter.flush()
    got = points(recorder)
    assert got["Invocations"].count == got["ModelLatency"].count == got["OverheadLatency"].count == count
    assert (got["ModelLatency"].minimum, got["ModelLatency"].maximum) == pytest.approx((1e3, 1e3 * count))
    assert got["OverheadLatency"].sum == pytest.approx(20 * count)


def test_L02_what_was_flushed_is_not_counted_again() -> None:
    recorder = Recorder("test", Noon())
    meter = Meter(recorder, ROUTE, "AllTraffic")
    meter.invocations = 1
    meter.flush()
    meter.flush()
    assert points(recorder)["Invocations"].count == 1
    meter.flush()
    assert points(recorder) == {}


def test_D07_a_new_fleet_is_counted_with_its_configuration_too() -> None:
    recorder = Recorder("test", Noon())
    meter = Meter(recorder, ROUTE, "AllTraffic", "new-config")
    meter.instances, meter.fleet_instances = 5, 1
    for number in range(600):
        meter.answered(0.001 * (number + 1), 0.00002)
    meter.server_errors = 3
    meter.flush()
    got = traced(recorder)
    both = {name for name, _ in got}
    assert {name for name, is_traced in got if is_traced} == both
    assert len(both) == 7
    for name in both - {"InvocationsPerInstance"}:
        one, other = got[name, False], got[name, True]
        assert (one.count, one.sum, one.maximum) == (other.count, other.sum, other.maximum)
    assert got["InvocationsPerInstance", False].sum == pytest.approx(120)
    assert got["InvocationsPerInstance", True].sum == pytest.approx(600)
    assert dict(got["Invocations", True].dimensions)["EndpointConfigName"] == "new-config"


def test_D08_what_is_rare_is_counted_at_once() -> None:
    recorder = Recorder("test", Noon())
    meter = Meter(recorder, ROUTE, "Shadow")
    meter.count(SHADOWS_DROPPED)
    meter.count(SHADOWS_DROPPED)
    batch = recorder.drain()
    assert batch is not None
    assert sum(point.sum for point in batch.points) == 2
    assert {(point.namespace, point.name, point.unit) for point in batch.points} == {
        ("Clary", "ShadowInvocationsDropped", "Count")
    }
