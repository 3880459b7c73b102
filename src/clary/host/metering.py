"""The instances' metrics, as SageMaker names them: utilisation by endpoint and variant.

Every instance is observed on its own, so a metric's Average is the average over a variant's instances. What the
containers of one instance use counts together, and each is told with the dimension ContainerName as well. CPU is the
sum over cores: a hundred for each that is busy. Nothing here runs on a GPU yet, so there are no metrics of GPUs.
"""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clary.domain.clock import Clock
from clary.domain.instances import InstanceId
from clary.host.limits import Usage, exact_resident_bytes
from clary.host.records import Instance
from clary.links.metrics import MetricBatch
from clary.telemetry.metrics import Recorder

NAMESPACE = "/aws/sagemaker/Endpoints"
GROUP_PREFIX = "/aws/sagemaker/Endpoints/"


class Metering:
    """Observes what the ticker measured, and hands the batches to control. Thread-safe."""

    def __init__(
        self,
        source: str,
        data_dir: Path,
        clock: Clock,
        keep_s: float,
        exact: Callable[..., int] = exact_resident_bytes,
    ) -> None:
        self._source = source
        self._exact = exact
        self._data_dir = data_dir
        self._clock = clock
        self._recorder = Recorder(source, clock, keep_s)
        self._lock = threading.Lock()
        self._before: dict[InstanceId, tuple[float, dict[int, float]]] = {}

    def observe(self, *measured: tuple[Instance, Usage]) -> None:
        """One look at one instance, every telemetry interval. Of its containers, if several, each alone as well."""
        first = measured[0][0].spec
        if first.member_of:
            for instance, usage in measured:
                container = {"ContainerName": instance.spec.container}
                self._observe(instance.id, ((instance, usage),), container)
        self._observe(InstanceId(first.member_of or first.instance_id), measured, {})

    def _observe(
        self, id: InstanceId, measured: Sequence[tuple[Instance, Usage]], more: Mapping[str, str]
    ) -> None:
        now = self._clock.monotonic()
        before = self._before.get(id)
        cpu_s = {pid: cpu for _, usage in measured for pid, cpu in usage.cpu_s.items()}
        self._before[id] = (now, cpu_s)
        instance = measured[0][0]
        dimensions = _dimensions(instance)
        if before is None or dimensions is None or now <= before[0]:
            return
        dimensions |= more
        spent = sum(max(0.0, cpu - before[1].get(pid, 0.0)) for pid, cpu in cpu_s.items())
        disk = shutil.disk_usage(self._data_dir)
        figures = {
            "CPUUtilization": 100 * spent / (now - before[0]),
            "MemoryUtilization": 100 * self._memory(measured) / instance.spec.memory_bytes,
        }
        if not more:
            figures["DiskUtilization"] = 100 * disk.used / disk.total
        log = instance.spec.log
        with self._lock:
            for name, value in figures.items():
                series = self._recorder.series(
                    log.account, log.region, NAMESPACE, name, dimensions, "Percent"
                )
                series.observe(value)

    def took(self, instance: Instance, metric: str, seconds: float) -> None:
        """What a model's load or unload took."""
        self._count(instance, "AWS/SageMaker", metric, seconds * 1e6, "Microseconds")

    def hold(self, instance: Instance, models: int) -> None:
        """How many models it has loaded, every telemetry interval."""
        self._count(instance, NAMESPACE, "LoadedModelCount", models, "None")

    def _count(self, instance: Instance, namespace: str, metric: str, value: float, unit: str) -> None:
        dimensions = _dimensions(instance)
        if dimensions is None:
            return
        log = instance.spec.log
        with self._lock:
            series = self._recorder.series(log.account, log.region, namespace, metric, dimensions, unit)
            series.observe(value)

    def _memory(self, measured: Sequence[tuple[Instance, Usage]]) -> int:
        """The exact figure only where the cheap one, which counts shared pages for each process, says too much."""
        cheap = sum(usage.resident_bytes for _, usage in measured)
        if cheap <= measured[0][0].spec.memory_bytes:
            return cheap
        return sum(self._exact(*each.roots) for each, _ in measured if each.minder is not None)

    def drain(self, is_known: Callable[[InstanceId], bool]) -> None:
        """Ends the interval, and forgets instances that are gone."""
        for id in [id for id in self._before if not is_known(id)]:
            del self._before[id]
        with self._lock:
            self._recorder.drain()

    def take(self, source: str, acked_sequence: int, since_ms: int = 0) -> list[MetricBatch]:
        """The batches not acknowledged yet. Numbers of another source (an earlier host) acknowledge nothing."""
        with self._lock:
            self._recorder.begin(since_ms)
            if source == self._source:
                self._recorder.acknowledge(acked_sequence)
            return self._recorder.pending()


def _dimensions(instance: Instance) -> dict[str, str] | None:
    group, stream = instance.spec.log.group, instance.spec.log.stream
    if not group.startswith(GROUP_PREFIX):
        return None
    return {"EndpointName": group.removeprefix(GROUP_PREFIX), "VariantName": stream.split("/", 1)[0]}
