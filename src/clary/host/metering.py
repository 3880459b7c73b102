"""The instances' metrics, as SageMaker names them: utilisation by endpoint and variant.

Every instance is observed on its own, so a metric's Average is the average over a variant's instances. CPU is the sum
over cores: a hundred for each that is busy. Nothing here runs on a GPU yet, so there are no metrics of GPUs.
"""

import shutil
import threading
from collections.abc import Callable
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
        exact: Callable[[int], int] = exact_resident_bytes,
    ) -> None:
        self._source = source
        self._exact = exact
        self._data_dir = data_dir
        self._clock = clock
        self._recorder = Recorder(source, clock, keep_s)
        self._lock = threading.Lock()
        self._before: dict[InstanceId, tuple[float, dict[int, float]]] = {}

    def observe(self, instance: Instance, usage: Usage) -> None:
        """One look at one instance, every telemetry interval."""
        now = self._clock.monotonic()
        before = self._before.get(instance.id)
        self._before[instance.id] = (now, usage.cpu_s)
        dimensions = _dimensions(instance)
        if before is None or dimensions is None or now <= before[0]:
            return
        spent = sum(max(0.0, cpu - before[1].get(pid, 0.0)) for pid, cpu in usage.cpu_s.items())
        disk = shutil.disk_usage(self._data_dir)
        figures = {
            "CPUUtilization": 100 * spent / (now - before[0]),
            "MemoryUtilization": 100 * self._memory(instance, usage) / instance.spec.memory_bytes,
            "DiskUtilization": 100 * disk.used / disk.total,
        }
        log = instance.spec.log
        with self._lock:
            for name, value in figures.items():
                series = self._recorder.series(
                    log.account, log.region, NAMESPACE, name, dimensions, "Percent"
                )
                series.observe(value)

    def _memory(self, instance: Instance, usage: Usage) -> int:
        """The exact figure only where the cheap one, which counts shared pages for each process, says too much."""
        if usage.resident_bytes <= instance.spec.memory_bytes or instance.minder is None:
            return usage.resident_bytes
        return self._exact(instance.minder.pid)

    def drain(self, is_known: Callable[[InstanceId], bool]) -> None:
        """Ends the interval, and forgets instances that are gone."""
        for id in [id for id in self._before if not is_known(id)]:
            del self._before[id]
        with self._lock:
            self._recorder.drain()

    def take(self, source: str, acked_sequence: int) -> list[MetricBatch]:
        """The batches not acknowledged yet. Numbers of another source (an earlier host) acknowledge nothing."""
        with self._lock:
            if source == self._source:
                self._recorder.acknowledge(acked_sequence)
            return self._recorder.pending()


def _dimensions(instance: Instance) -> dict[str, str] | None:
    group, stream = instance.spec.log.group, instance.spec.log.stream
    if not group.startswith(GROUP_PREFIX):
        return None
    return {"EndpointName": group.removeprefix(GROUP_PREFIX), "VariantName": stream.split("/", 1)[0]}
