"""What the gateway measures of a variant: SageMaker's endpoint metrics.

Counts are plain numbers on the hot path and latencies plain lists; they become metric points together, once an
interval or when a list has grown long. A value of 0 is as much a data point as a 1: `Average` of an error metric is
the error rate.
"""

from clary.domain.routes import EndpointRoute
from clary.telemetry.metrics import Recorder, Series

_NAMESPACE = "AWS/SageMaker"
_MOST_HELD = 512  # latencies; taking them in must not hold up the loop


class Meter:
    """The metrics of one variant. `instances` is how many targets share its load now."""

    __slots__ = (
        "_client_errors_series",
        "_invocations_series",
        "_model_errors_series",
        "_model_latency_series",
        "_model_us",
        "_overhead_latency_series",
        "_overhead_us",
        "_per_instance_series",
        "_server_errors_series",
        "client_errors",
        "instances",
        "invocations",
        "model_errors",
        "server_errors",
    )

    def __init__(self, recorder: Recorder, route: EndpointRoute, variant: str) -> None:
        def series(name: str, unit: str = "None") -> Series:
            dimensions = {"EndpointName": route.name, "VariantName": variant}
            return recorder.series(route.key.account, route.key.region, _NAMESPACE, name, dimensions, unit)

        self._invocations_series = series("Invocations")
        self._per_instance_series = series("InvocationsPerInstance")
        self._client_errors_series = series("Invocation4XXErrors")
        self._server_errors_series = series("Invocation5XXErrors")
        self._model_errors_series = series("InvocationModelErrors")
        self._model_latency_series = series("ModelLatency", "Microseconds")
        self._overhead_latency_series = series("OverheadLatency", "Microseconds")
        self._model_us: list[float] = []
        self._overhead_us: list[float] = []
        self.instances = 1
        self.invocations = 0
        self.client_errors = 0
        self.server_errors = 0
        self.model_errors = 0

    def answered(self, model_s: float, overhead_s: float) -> None:
        """Counts an invocation that the model answered, and what it took."""
        self.invocations += 1
        self._overhead_us.append(overhead_s * 1e6)
        times = self._model_us
        times.append(model_s * 1e6)
        if len(times) >= _MOST_HELD:
            self._take_times()

    def flush(self) -> None:
        """Turns what was counted since the last time into metric points."""
        self._take_times()
        total = self.invocations
        if not total:
            return
        self._invocations_series.add(1.0, total)
        self._per_instance_series.add(1.0 / max(self.instances, 1), total)
        for series, errors in (
            (self._client_errors_series, self.client_errors),
            (self._server_errors_series, self.server_errors),
            (self._model_errors_series, self.model_errors),
        ):
            series.add(1.0, errors)
            series.add(0.0, total - errors)
        self.invocations = self.client_errors = self.server_errors = self.model_errors = 0

    def _take_times(self) -> None:
        self._model_latency_series.observe_all(self._model_us)
        self._overhead_latency_series.observe_all(self._overhead_us)
        self._model_us.clear()
        self._overhead_us.clear()
