"""How CloudWatch refuses. GetMetricData, younger than the rest, says ValidationError where the others are finer."""

from collections.abc import Iterator
from contextlib import contextmanager

from clary.domain.faults import Fault
from clary.telemetry.store import MetricsUnavailable


def bad_value(message: str) -> Fault:
    return Fault("InvalidParameterValue", message)


def bad_combination(message: str) -> Fault:
    return Fault("InvalidParameterCombination", message)


def missing(message: str) -> Fault:
    return Fault("MissingParameter", message)


def invalid(message: str) -> Fault:
    return Fault("ValidationError", message)


@contextmanager
def using_store() -> Iterator[None]:
    """Tells callers to try again when the metrics cannot be reached now: their disk is full, say."""
    try:
        yield
    except MetricsUnavailable as error:
        raise Fault("ServiceUnavailable", str(error), 503) from error
