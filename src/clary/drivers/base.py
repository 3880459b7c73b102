"""What every driver promises. `tests/contract/test_drivers.py` holds each of them to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

from clary.domain.instances import InstanceId, InstanceSpec, InstanceStatus

Handle = NewType("Handle", str)
"""A driver's own note of an instance: opaque to everybody else, versioned by the driver, stored by control."""


class DriverError(Exception):
    """The driver could not do it now and nothing is known to have changed: try again later."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a driver can do besides, as data."""

    name: str
    survives_control: bool  # instances go on, and are found again, when control restarts
    network_isolation: bool = False
    accelerators: int = 0


class Driver(Protocol):
    @property
    def abilities(self) -> Abilities: ...

    def start(self, spec: InstanceSpec) -> Handle:
        """Begins to start an instance and returns at once (within a second); `inspect` tells how it goes.

        May be repeated: the same `spec.instance_id` never runs twice, whether it is starting, runs or has
        ended. Raises `DriverError` when nothing was begun.
        """

    def inspect(self, ids: Sequence[InstanceId]) -> dict[InstanceId, InstanceStatus]:
        """What is seen of each; an unknown one is `missing`. Quick, without side effects.

        Raises `DriverError` when nobody can tell: that is not `missing`.
        """

    def stop(self, ids: Iterable[InstanceId], grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. Returns at once; unknown or ended ones are no error."""

    def remove(self, ids: Iterable[InstanceId]) -> None:
        """Forgets ended instances and frees what they held (directories, sockets). Logs stay.

        A live one is killed first. Returns when nothing is left; may be repeated.
        """

    def list(self) -> list[InstanceStatus]:
        """Every instance the driver holds, so that control can find those nobody wants any more."""

    def wait(self, seen: int, timeout_s: float) -> int:
        """Blocks until anything changed since change number `seen`, or the time is over; the newest number.

        Numbers only grow while the driver lives; a smaller one than `seen` means that it began anew.
        """
