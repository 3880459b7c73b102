"""What the gateway measures of a variant: SageMaker's endpoint metrics.

Counts are plain numbers on the hot path and become metric points once an interval; only the two latencies are
observed one by one. A value of 0 is as much a data point as a 1: `Average` of an error metric is the error rate.
"""

from clary.domain.routes import EndpointRoute
from clary.telemetry.metrics import Recorder, Series

_NAMESPACE = "AWS/SageMaker"


class Meter:
    """The metrics of one variant. `instances` is how many targets share its load now."""

    __slots__ = (
        "_client_errors_series",
        "_invocations_series",
        "_model_errors_series",
        "_per_instance_series",
        "_server_errors_series",
        "client_errors",
        "instances",
        "invocations",
        "model_errors",
        "model_latency",
        "overhead_latency",
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
        self.model_latency = series("ModelLatency", "Microseconds")
        self.overhead_latency = series("OverheadLatency", "Microseconds")
        self.instances = 1
        self.invocations = 0
        self.client_errors = 0
        self.server_errors = 0
        self.model_errors = 0

    def flush(self) -> None:
        """Turns the counts since the last time into metric points."""
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
