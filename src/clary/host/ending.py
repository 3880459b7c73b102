"""An end that was seen: what the instance has left is removed, and the evidence becomes a failure, or none.

The words are `failures`'; what a container's engine knows is `engine.containers`'.
"""

from collections.abc import Callable
from dataclasses import replace

from clary.domain.instances import Failure, InstanceId
from clary.host import failures
from clary.host.engine.containers import Containers
from clary.host.records import Instance, empty, end_orphans
from clary.links import instances as files


def conclude(
    instance: Instance,
    probe: str,
    containers: Containers | None,
    was_at: Callable[[InstanceId], str],
    log_tail: Callable[[Instance], tuple[str, ...]],
) -> Failure | None:
    """Why it ended; None where it was asked to. What it left goes. May be repeated. Raises `OSError`."""
    exit = files.read(instance.directory, files.EXIT, files.Exit)
    if containers is not None and containers.has_left(instance.directory):
        containers.discard(instance.id)
    if exit is None and instance.minder is not None:
        end_orphans(instance.minder.pid)
    if filled_disk(instance):
        # At once: others need the room, and control may need some to ask for it.
        empty(instance.directory)
    failure = instance.state.failure
    if failure is None and not instance.state.stopping and not (exit and exit.asked):
        was_ready = instance.state.ready_at is not None
        known = None if containers is None else containers.failure(instance.spec, instance.directory, exit)
        failure = known or failures.ended(instance.spec, exit, was_ready, probe)
        failure = replace(failure, reason=failure.reason + was_at(instance.id))
    if failure is not None:
        peak = max(instance.peak_bytes, failure.memory_peak_bytes or 0, exit.max_rss_bytes if exit else 0)
        failure = replace(
            failure,
            log_tail=log_tail(instance),
            exit_code=exit.exit_code if exit else None,
            signal=exit.signal if exit else None,
            memory_peak_bytes=peak or None,
            memory_limit_bytes=instance.spec.memory_bytes,
        )
    return failure


def filled_disk(instance: Instance) -> bool:
    failure = instance.state.failure
    return failure is not None and failure.code == failures.OUT_OF_DISK
