"""Instances of several containers: each container is started as an ordinary instance of its own, a member.

Stands between the link and `Instances`. To control there is one instance; here it is as many as it has containers,
each with its directory, environment, zygote, sandbox, uid and log (`<variant>/<instance id>/<container>`). A member's
spec says which instance it belongs to, so a host that was restarted finds it again from what lies in the directories.

What the members show is put together whenever it is asked for; nothing of it is kept but which instances were told to
stop. An instance is as far as its slowest container, and has ended when one has for a reason of its own: the others
go on until control removes the instance, so that requests under way with them are not cut off.

The instance type's vCPU and memory are shared: each container sees all of it, and the memory of all counts together.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from clary.domain.instances import (
    MOST_CONTAINERS,
    InstanceId,
    InstanceSpec,
    InstanceStatus,
    Phase,
)
from clary.host.records import Instance

FIRST_PORT = 8080
FIRST_SAFE_PORT = 9000
SAFE_PORTS = 100
"""A container of one's own listens at its own port and may use further ones in its own range."""

Seen = tuple[InstanceSpec, InstanceStatus]


class Members(Protocol):
    """What runs single containers: `Instances`."""

    def start(self, spec: InstanceSpec) -> str: ...

    def look(self, ids: Iterable[InstanceId] | None = None) -> Sequence[Seen]:
        """Those there are, of these or of all."""

    def stop(self, ids: Iterable[InstanceId], grace_s: float) -> None: ...

    def remove(self, ids: Iterable[InstanceId]) -> None: ...


class Groups:
    """Instances as control knows them. Thread-safe."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._lock = threading.Lock()
        self._stopped: set[InstanceId] = set()

    def start(self, spec: InstanceSpec) -> str:
        """May be repeated: what was begun of it is not begun again."""
        for member in members_of(spec):
            self._members.start(member)
        return spec.instance_id

    def inspect(self, ids: Sequence[InstanceId]) -> Sequence[InstanceStatus]:
        found = {status.instance_id: status for status in self._merged(self._members.look(_candidates(ids)))}
        return [found.get(id) or InstanceStatus(id, "missing") for id in ids]

    def stop(self, ids: Sequence[InstanceId], grace_s: float) -> None:
        with self._lock:
            self._stopped.update(ids)
        self._members.stop(_candidates(ids), grace_s)

    def remove(self, ids: Sequence[InstanceId]) -> None:
        """Returns when nothing is left of any container."""
        with self._lock:
            self._stopped.update(ids)
        self._members.remove(_candidates(ids))
        with self._lock:
            self._stopped.difference_update(ids)

    def list(self) -> Sequence[InstanceStatus]:
        return self._merged(self._members.look())

    def _merged(self, seen: Iterable[Seen]) -> Sequence[InstanceStatus]:
        units: dict[InstanceId, list[Seen]] = {}
        for spec, status in seen:
            units.setdefault(unit_of(spec), []).append((spec, status))
        with self._lock:
            stopped = frozenset(self._stopped)
        return [merged(id, members, was_stopped=id in stopped) for id, members in units.items()]


def units(running: Iterable[Instance]) -> list[list[Instance]]:
    """The processes of this machine by instance: what counts together."""
    found: dict[InstanceId, list[Instance]] = {}
    for each in running:
        found.setdefault(unit_of(each.spec), []).append(each)
    return [*found.values()]


def unit_of(spec: InstanceSpec) -> InstanceId:
    """The instance that this is, or is a member of."""
    return InstanceId(spec.member_of) if spec.member_of else spec.instance_id


def members_of(spec: InstanceSpec) -> list[InstanceSpec]:
    """What is started for an instance: itself, or a member for each of its containers."""
    if not spec.containers:
        return [spec]
    return [
        replace(
            spec,
            instance_id=member_id(spec.instance_id, number),
            container=container.name,
            image=container.image,
            environment={**container.environment, **_ports(number)},
            artifacts=container.artifacts,
            models=container.models,
            log=replace(spec.log, stream=f"{spec.log.stream}/{container.name}"),
            containers=(),
            member_of=spec.instance_id,
            number=number,
            member_count=len(spec.containers),
        )
        for number, container in enumerate(spec.containers, 1)
    ]


def member_id(id: InstanceId, number: int) -> InstanceId:
    """Looks like any instance's, and is as long: sockets' paths have little room."""
    return InstanceId("i-" + hashlib.sha256(f"{id}/{number}".encode()).hexdigest()[:17])


def merged(id: InstanceId, members: Sequence[Seen], *, was_stopped: bool = False) -> InstanceStatus:
    """What control sees of an instance, from what is seen of its members. `was_stopped`: it was told to end."""
    members = sorted(members, key=lambda seen: seen[0].number)
    statuses = [status for _, status in members]
    if not members[0][0].member_of:
        return statuses[0]
    failed = next(((spec, each) for spec, each in members if each.failure is not None), None)
    is_complete = len(members) == members[0][0].member_count
    phase: Phase = "exited" if failed else _phase(statuses, is_complete, was_stopped)
    ready = [each.ready_at for each in statuses if each.ready_at is not None]
    started = [each.started_at for each in statuses if each.started_at is not None]
    is_serving = phase in ("ready", "unhealthy")
    return InstanceStatus(
        instance_id=id,
        phase=phase,
        detail=failed[1].detail if failed else _detail(members, phase),
        address=statuses[0].address if is_serving else "",
        addresses=tuple(each.address for each in statuses) if is_serving else (),
        resolved_image=statuses[0].resolved_image,
        resolved_images=tuple(each.resolved_image for each in statuses),
        runs_script=any(each.runs_script for each in statuses),
        failure=replace(failed[1].failure, container=failed[0].container)
        if failed and failed[1].failure
        else None,
        started_at=min(started, default=None),
        ready_at=max(ready) if is_complete and len(ready) == len(members) else None,
    )


_WAY_UP: tuple[Phase, ...] = ("preparing", "fetching", "starting", "unhealthy", "ready")


def _phase(statuses: Sequence[InstanceStatus], is_complete: bool, was_stopped: bool) -> Phase:
    """Of members of which none has failed."""
    phases = {each.phase for each in statuses}
    if phases == {"exited"}:
        return "exited"
    if "stopping" in phases or (was_stopped and "exited" in phases):
        return "stopping"
    if "exited" in phases:
        return "exited"
    if not is_complete:
        return "preparing"  # its start was cut off, and is repeated
    return min(phases, key=_WAY_UP.index)


def _detail(members: Sequence[Seen], phase: Phase) -> str:
    """Of those that are as far as the instance: `preparing` says something only while an environment is built."""
    told = [(spec.container, each.detail) for spec, each in members if each.phase == phase and each.detail]
    if phase in ("stopping", "exited"):
        return told[0][1] if told else ""
    return "; ".join(f"{name}: {detail}" for name, detail in told)


def _candidates(ids: Iterable[InstanceId]) -> list[InstanceId]:
    """The ids under which anything of these instances can run."""
    return [each for id in ids for each in (id, *(member_id(id, n) for n in range(1, MOST_CONTAINERS + 1)))]


def _ports(number: int) -> dict[str, str]:
    """The platform's word, whatever the container's own Environment says."""
    first = FIRST_SAFE_PORT + SAFE_PORTS * number
    return {
        "SAGEMAKER_BIND_TO_PORT": str(FIRST_PORT + number),
        "SAGEMAKER_SAFE_PORT_RANGE": f"{first}-{first + SAFE_PORTS - 1}",
    }
