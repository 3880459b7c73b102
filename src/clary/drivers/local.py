"""Instances as processes of this machine: says to the host, over its link, what a driver is asked.

Holds nothing. The handle is the instance's id, because the host knows its instances by id.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from clary.domain.instances import InstanceId, InstanceSpec, InstanceStatus
from clary.drivers.base import Abilities, DriverError, Handle
from clary.links import hosts
from clary.settings import Settings

# A removal waits for the last process to be gone.
REMOVE_TIMEOUT_S = 120.0

T = TypeVar("T")


class LocalDriver:
    abilities = Abilities(name="local", survives_control=True)

    def __init__(self, client: hosts.HostClient) -> None:
        self._client = client

    def start(self, spec: InstanceSpec) -> Handle:
        return Handle(self._call("start", hosts.Start(spec), str))

    def inspect(self, ids: Sequence[InstanceId]) -> dict[InstanceId, InstanceStatus]:
        if not ids:
            return {}
        seen = self._call("inspect", hosts.Inspect(tuple(ids)), list[InstanceStatus])
        return {status.instance_id: status for status in seen}

    def stop(self, ids: Iterable[InstanceId], grace_s: float) -> None:
        if wanted := tuple(ids):
            self._call("stop", hosts.StopInstances(wanted, grace_s), type(None))

    def remove(self, ids: Iterable[InstanceId]) -> None:
        if wanted := tuple(ids):
            self._call("remove", hosts.Remove(wanted), type(None), REMOVE_TIMEOUT_S)

    def list(self) -> list[InstanceStatus]:
        return self._call("list", hosts.ListInstances(), list[InstanceStatus])

    def wait(self, seen: int, timeout_s: float) -> int:
        return self._call("wait", hosts.Wait(seen, timeout_s), int, timeout_s + hosts.CALL_TIMEOUT_S)

    def _call(
        self, operation: str, arguments: object, result: type[T], timeout_s: float = hosts.CALL_TIMEOUT_S
    ) -> T:
        try:
            return self._client.call(operation, arguments, result, timeout_s)
        except (hosts.HostError, hosts.HostUnavailable) as error:
            raise DriverError(str(error)) from error


def make(settings: Settings) -> LocalDriver:
    return LocalDriver(hosts.HostClient(settings.host_socket))
