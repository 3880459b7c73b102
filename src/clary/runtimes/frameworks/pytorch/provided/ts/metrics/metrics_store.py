"""Where handlers' metrics go: one line of the log each, in TorchServe's form."""

import logging
from typing import Any

log = logging.getLogger(__name__)


class MetricsStore:
    """`context.metrics`."""

    def add_counter(self, metric_name: str, value: float, idx: Any = None, dimensions: Any = None) -> None:
        self.add_metric(metric_name, value, "count", idx, dimensions)

    def add_time(
        self, metric_name: str, value: float, idx: Any = None, unit: str = "ms", dimensions: Any = None
    ) -> None:
        self.add_metric(metric_name, value, unit, idx, dimensions)

    def add_size(
        self, metric_name: str, value: float, idx: Any = None, unit: str = "MB", dimensions: Any = None
    ) -> None:
        self.add_metric(metric_name, value, unit, idx, dimensions)

    def add_percent(self, metric_name: str, value: float, idx: Any = None, dimensions: Any = None) -> None:
        self.add_metric(metric_name, value, "percent", idx, dimensions)

    def add_error(self, metric_name: str, value: Any, dimensions: Any = None) -> None:
        self.add_metric(metric_name, value, "", None, dimensions)

    def add_metric(
        self, metric_name: str, value: Any, unit: str = "", idx: Any = None, dimensions: Any = None
    ) -> None:
        shown = ",".join(map(str, dimensions or ()))
        log.info("[METRICS]%s.%s:%s|#%s", metric_name, unit, value, shown)
