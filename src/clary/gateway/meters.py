"""What the gateway measures of a variant: SageMaker's endpoint metrics.

Counts are plain numbers on the hot path and latencies plain lists; they become metric points together, once an
interval or when a list has grown long. A value of 0 is as much a data point as a 1: `Average` of an error metric is
the error rate. What is counted of a new fleet is also counted with the dimension EndpointConfigName; that, too, costs a
request nothing, because only turning counts into points is done twice.
"""

from collections.abc import Mapping, Sequence

from clary.domain.routes import EndpointRoute
from clary.gateway.container_meters import ContainerSeries, StageTimes
from clary.telemetry.metrics import Recorder, Series

PASSED_OVER = "InstancesPassedOver"
SHADOWS_DROPPED = "ShadowInvocationsDropped"

_CACHE_HIT = "ModelCacheHit"
_LOADING_WAIT = "ModelLoadingWaitTime"

_NAMESPACE = "AWS/SageMaker"
_OURS = "Clary"
_MOST_HELD = 512  # latencies; taking them in must not hold up the loop


class Meter:
    """The metrics of one variant of one fleet.

    `instances` is how many targets share the variant's load now, in all fleets; `fleet_instances` in this one.
    """

    __slots__ = (
        "_container",
        "_dimensions",
        "_model_us",
        "_model_wait_us",
        "_overhead_us",
        "_rare",
        "_recorder",
        "_route",
        "_sets",
        "client_errors",
        "fleet_instances",
        "instances",
        "invocations",
        "model_errors",
        "model_hits",
        "model_misses",
        "server_errors",
        "stages",
    )

    def __init__(
        self,
        recorder: Recorder,
        route: EndpointRoute,
        variant: str,
        config_name: str = "",
        *,
        container: str = "",
        stages: Sequence[str] = (),
    ) -> None:
        """`container` is the one that its callers name, `stages` are those that its requests go through."""
        self._recorder = recorder
        self._route = route
        self._dimensions = {"EndpointName": route.name, "VariantName": variant}
        self._sets = [_Set(recorder, route, self._dimensions)]
        if config_name:
            traced = {**self._dimensions, "EndpointConfigName": config_name}
            self._sets.append(_Set(recorder, route, traced))
        self._container: ContainerSeries | None = None
        if container:
            self._container = ContainerSeries(
                recorder, route, {**self._dimensions, "ContainerName": container}
            )
        self.stages = [
            StageTimes(recorder, route, {**self._dimensions, "ContainerName": stage}) for stage in stages
        ]
        self._model_us: list[float] = []
        self._overhead_us: list[float] = []
        self._model_wait_us: list[float] = []
        self._rare: dict[str, Series] = {}
        self.instances = 1
        self.fleet_instances = 1
        self.invocations = 0
        self.client_errors = 0
        self.server_errors = 0
        self.model_errors = 0
        self.model_hits = 0
        self.model_misses = 0

    def answered(self, model_s: float, overhead_s: float) -> None:
        """Counts an invocation that the model answered, and what it took."""
        self.invocations += 1
        self._overhead_us.append(overhead_s * 1e6)
        times = self._model_us
        times.append(model_s * 1e6)
        if len(times) >= _MOST_HELD:
            self._take_times()

    def waited_for_model(self, seconds: float) -> None:
        """Counts what an invocation has waited until its model was loaded."""
        self._model_wait_us.append(seconds * 1e6)

    def count(self, name: str) -> None:
        """One more of something rare, a metric of this server's own."""
        self._series(_OURS, name, "Count").add(1.0, 1)

    def flush(self) -> None:
        """Turns what was counted since the last time into metric points."""
        self._take_times()
        self._take_models()
        for stage in self.stages:
            stage.flush()
        total = self.invocations
        if not total:
            return
        for series, instances in zip(self._sets, (self.instances, self.fleet_instances), strict=False):
            series.invocations.add(1.0, total)
            series.per_instance.add(1.0 / max(instances, 1), total)
            for errors, count in (
                (series.client_errors, self.client_errors),
                (series.server_errors, self.server_errors),
                (series.model_errors, self.model_errors),
            ):
                errors.add(1.0, count)
                errors.add(0.0, total - count)
        if self._container is not None:
            self._container.count(total, self.client_errors, self.server_errors)
        self.invocations = self.client_errors = self.server_errors = self.model_errors = 0

    def _take_models(self) -> None:
        """Of variants with many models: no others have such metrics."""
        if self.model_hits or self.model_misses:
            hits = self._series(_NAMESPACE, _CACHE_HIT, "None")
            hits.add(1.0, self.model_hits)
            hits.add(0.0, self.model_misses)
            self.model_hits = self.model_misses = 0
        if self._model_wait_us:
            self._series(_NAMESPACE, _LOADING_WAIT, "Microseconds").observe_all(self._model_wait_us)
            self._model_wait_us.clear()

    def _series(self, namespace: str, name: str, unit: str) -> Series:
        series = self._rare.get(name)
        if series is None:
            key = self._route.key
            series = self._recorder.series(key.account, key.region, namespace, name, self._dimensions, unit)
            self._rare[name] = series
        return series

    def _take_times(self) -> None:
        for series in self._sets:
            series.model_latency.observe_all(self._model_us)
            series.overhead_latency.observe_all(self._overhead_us)
        if self._container is not None:
            self._container.take(self._model_us, self._overhead_us)
        self._model_us.clear()
        self._overhead_us.clear()


class _Set:
    """The endpoint metrics under one set of dimensions."""

    __slots__ = (
        "client_errors",
        "invocations",
        "model_errors",
        "model_latency",
        "overhead_latency",
        "per_instance",
        "server_errors",
    )

    def __init__(self, recorder: Recorder, route: EndpointRoute, dimensions: Mapping[str, str]) -> None:
        def series(name: str, unit: str = "None") -> Series:
            return recorder.series(route.key.account, route.key.region, _NAMESPACE, name, dimensions, unit)

        self.invocations = series("Invocations")
        self.per_instance = series("InvocationsPerInstance")
        self.client_errors = series("Invocation4XXErrors")
        self.server_errors = series("Invocation5XXErrors")
        self.model_errors = series("InvocationModelErrors")
        self.model_latency = series("ModelLatency", "Microseconds")
        self.overhead_latency = series("OverheadLatency", "Microseconds")
