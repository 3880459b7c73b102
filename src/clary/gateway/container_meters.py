"""What the gateway measures of single containers, where an instance has several: with the dimension ContainerName.

Of a container that callers name: invocations, errors, its latency and the overhead. Of one in a row of containers: its
latency alone, because a request is the whole row's.
"""

from collections.abc import Mapping, Sequence

from clary.domain.routes import EndpointRoute
from clary.telemetry.metrics import Recorder, Series

_NAMESPACE = "AWS/SageMaker"
_MOST_HELD = 512  # latencies; taking them in must not hold up the loop


class ContainerSeries:
    """The metrics of a container that callers name. Its variant's meter counts, and hands over what it counted."""

    __slots__ = ("_client_errors", "_invocations", "_latency", "_overhead", "_server_errors")

    def __init__(self, recorder: Recorder, route: EndpointRoute, dimensions: Mapping[str, str]) -> None:
        def series(name: str, unit: str = "None") -> Series:
            return recorder.series(route.key.account, route.key.region, _NAMESPACE, name, dimensions, unit)

        self._invocations = series("Invocations")
        self._client_errors = series("Invocation4XXErrors")
        self._server_errors = series("Invocation5XXErrors")
        self._latency = series("ContainerLatency", "Microseconds")
        self._overhead = series("OverheadLatency", "Microseconds")

    def count(self, total: int, client_errors: int, server_errors: int) -> None:
        self._invocations.add(1.0, total)
        for errors, count in ((self._client_errors, client_errors), (self._server_errors, server_errors)):
            errors.add(1.0, count)
            errors.add(0.0, total - count)

    def take(self, latencies_us: Sequence[float], overheads_us: Sequence[float]) -> None:
        self._latency.observe_all(latencies_us)
        self._overhead.observe_all(overheads_us)


class StageTimes:
    """The latency of one container of several in a row."""

    __slots__ = ("_held", "_latency")

    def __init__(self, recorder: Recorder, route: EndpointRoute, dimensions: Mapping[str, str]) -> None:
        key = route.key
        self._latency = recorder.series(
            key.account, key.region, _NAMESPACE, "ContainerLatency", dimensions, "Microseconds"
        )
        self._held: list[float] = []

    def passed(self, seconds: float) -> None:
        """It answered, and took so long."""
        self._held.append(seconds * 1e6)
        if len(self._held) >= _MOST_HELD:
            self.flush()

    def flush(self) -> None:
        self._latency.observe_all(self._held)
        self._held.clear()
