"""CloudWatch Logs, for reading: groups and streams, and their events. Instances write by themselves."""

from collections.abc import Mapping

from clary.services.logs.events import Events
from clary.services.logs.groups import Groups
from clary.telemetry.logs import LogReader

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "GetLogEvents": ("unmask",),
    "FilterLogEvents": ("unmask", "interleaved"),
}
"""Operation → members that change nothing here: nothing is masked, and streams always come interleaved."""


def resources(reader: LogReader) -> tuple[object, ...]:
    """Everything that answers an operation of `logs`."""
    return (Groups(reader), Events(reader))
