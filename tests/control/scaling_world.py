"""Autoscaling in virtual time: endpoints, metrics, alarms and scalable targets of one control, a second at a time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clary.domain.faults import Fault
from clary.links.metrics import WINDOW_S, MetricPoint
from clary.reconcilers.alarm import AlarmWatch
from clary.reconcilers.base import Runner
from clary.reconcilers.scaling import ScalableTargetReconciler
from clary.reconcilers.scaling_action import ScalingAction
from clary.services import application_autoscaling, cloudwatch
from clary.telemetry.store import MetricStore
from clary.wire import validate
from clary.wire.calling import InProcessCaller
from clary.wire.models import ServiceModels
from control.harness import ACCOUNT, REGION, Control

DIMENSION = "sagemaker:variant:DesiredInstanceCount"
RESOURCE = "endpoint/e/variant/AllTraffic"
_REPORTS_S = 5.0


class ScalingWorld:
    """One endpoint `e` with so many instances. `tick` is a second in which everybody works."""

    def __init__(
        self,
        directory: Path,
        instances: int = 1,
        timing: Any = "fast",
        wrap: Callable[[Any], Any] = lambda thing: thing,
        control: Control | None = None,
        metrics: MetricStore | None = None,
    ) -> None:
        self.directory, self.timing = directory, timing
        self.control = control or Control(directory)
        self.clock = self.control.clock
        self.metrics = metrics or MetricStore(directory / "metrics.db", self.clock)
        table = self.control.table
        actions = [ScalingAction()]
        for service, found in (
            (
                "application-autoscaling",
                application_autoscaling.resources(self.control.store, self.clock, self.control.ids, timing),
            ),
            (
                "cloudwatch",
                cloudwatch.resources(self.metrics, self.clock, self.control.store, self.control.ids, actions),
            ),
        ):
            if table.find(service, "TagResource") is None:
                table.add(service, *found)
        self._models = ServiceModels(table.implemented())
        self.caller = InProcessCaller(lambda: self._models, table, validate.validate, self.clock)
        self.watch = AlarmWatch(self.control.store, self.metrics, self.clock, actions, timing)
        self.scaling = ScalableTargetReconciler(
            wrap(self.control.store), self.metrics, wrap(self.caller), self.clock, self.control.ids, timing
        )
        self.runner = Runner(
            self.control.store, self.control.driver, self.clock, [self.control.reconciler, self.scaling]
        )
        self._unreported = 0.0
        if control is None:
            self.control.model()
            self.control.config("c", {"InitialInstanceCount": instances})
            self.control.endpoint("e", "c")
            self.until(lambda: self.status == "InService", "the endpoint serves")

    def call(self, service: str, operation: str, **params: Any) -> Any:
        return self.caller(service, operation, params, account=ACCOUNT, region=REGION)

    def scaling_call(self, operation: str, **params: Any) -> Any:
        """An operation about the endpoint's variant."""
        key = {"ServiceNamespace": "sagemaker", "ResourceId": RESOURCE, "ScalableDimension": DIMENSION}
        return self.call("application-autoscaling", operation, **key | params)

    def refusal(self, operation: str, **params: Any) -> str:
        try:
            self.scaling_call(operation, **params)
        except Fault as fault:
            return f"{fault.code}: {fault.message}"
        raise AssertionError(f"{operation} was not refused")

    def track(self, target: float, name: str = "tt", **config: Any) -> Any:
        spec = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        given = {"TargetValue": target, "PredefinedMetricSpecification": spec} | config
        if "CustomizedMetricSpecification" in config:
            del given["PredefinedMetricSpecification"]
        return self.scaling_call(
            "PutScalingPolicy",
            PolicyName=name,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=given,
        )

    @property
    def endpoint(self) -> Any:
        return self.control.describe("e")

    @property
    def status(self) -> str:
        return str(self.endpoint["EndpointStatus"])

    @property
    def count(self) -> int:
        return int(self.endpoint["ProductionVariants"][0]["CurrentInstanceCount"])

    def activities(self, **params: Any) -> list[Any]:
        found = self.call(
            "application-autoscaling",
            "DescribeScalingActivities",
            ServiceNamespace="sagemaker",
            ResourceId=RESOURCE,
            **params,
        )
        return list(found["ScalingActivities"])

    def alarm(self, name: str) -> str:
        found = self.call("cloudwatch", "DescribeAlarms", AlarmNames=[name])["MetricAlarms"]
        return str(found[0]["StateValue"])

    def tick(self, requests: float = 0.0, seconds: float = 1.0) -> None:
        """A second, with so many requests. The gateway reports every five."""
        self.clock.advance(seconds)
        self._unreported += requests
        now = self.clock.now().timestamp()
        if now % _REPORTS_S == 3.0 and self._unreported:  # the reports come in the middle of a window
            self._report(now)
        self.watch.look()
        self.runner.run_pending()
        self.control.driver.step()
        self.runner.sweep()
        self.runner.run_pending()

    def run(self, seconds: int, requests: float = 0.0) -> None:
        for _ in range(seconds):
            self.tick(requests)

    def rest(self, seconds: int) -> None:
        """Time without requests, in longer steps."""
        for _ in range(seconds // 5):
            self.tick(seconds=5.0)

    def until(self, holds: Callable[[], bool], what: str, requests: float = 0.0, within_s: int = 120) -> int:
        """How many seconds it took."""
        for second in range(within_s):
            if holds():
                return second
            self.tick(requests)
        raise AssertionError(f"{what}: not within {within_s} s")

    def measure(self, namespace: str, name: str, value: float, unit: str = "None", **dimensions: str) -> None:
        """One value of a metric, now."""
        self.metrics.put([self._point(namespace, name, value, 1.0, unit, dimensions)])

    def restarted(self, wrap: Callable[[Any], Any] = lambda thing: thing) -> "ScalingWorld":
        """A new control over the same data, as after a kill."""
        control = Control(
            self.directory, self.clock, self.control.driver, self.control.routing, self.control.ids
        )
        self.control.close()
        again = ScalingWorld(
            self.directory, timing=self.timing, wrap=wrap, control=control, metrics=self.metrics
        )
        again.runner.recover()
        return again

    def close(self) -> None:
        self.metrics.close()
        self.control.close()

    def _report(self, now: float) -> None:
        dimensions = {"EndpointName": "e", "VariantName": "AllTraffic"}
        count, self._unreported = self._unreported, 0.0
        start = int((now - _REPORTS_S / 2) // WINDOW_S) * WINDOW_S
        self.metrics.put(
            [
                self._point("AWS/SageMaker", "Invocations", 1.0, count, "None", dimensions, start),
                self._point(
                    "AWS/SageMaker",
                    "InvocationsPerInstance",
                    1 / self.count,
                    count,
                    "None",
                    dimensions,
                    start,
                ),
            ]
        )

    def _point(
        self,
        namespace: str,
        name: str,
        value: float,
        count: float,
        unit: str,
        dimensions: dict[str, str],
        start: int | None = None,
    ) -> MetricPoint:
        if start is None:
            start = math.floor(self.clock.now().timestamp() / WINDOW_S) * WINDOW_S
        return MetricPoint(
            ACCOUNT,
            REGION,
            namespace,
            name,
            tuple(sorted(dimensions.items())),
            unit,
            start,
            count,
            value * count,
            value,
            value,
            {},
        )
