"""A driver whose instances exist in memory only, for tests: nothing happens by itself unless told to.

What becomes of a started instance is its `Plan`. With `auto` (the default) a plan runs its course at once, so an
instance is ready when `start` returns; otherwise each `step()` takes every instance one phase further. `unreachable`
makes every call fail as when nobody can tell. Passes the drivers' contract suite.

    driver = FakeDriver()
    driver.plan(lambda spec: Plan(failure=Failure("Exited", "it exited with code 1", exit_code=1)))
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from clary.domain.instances import Failure, InstanceId, InstanceSpec, InstanceStatus, Phase
from clary.drivers.base import Abilities, DriverError, Handle
from clary.settings import Settings

_WAY_UP: tuple[Phase, ...] = ("preparing", "fetching", "starting", "ready")


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of an instance: it comes up; or it gets as far as `until` and stays there, or fails there."""

    until: Phase = "ready"
    failure: Failure | None = None
    refuse_start: bool = False  # `start` raises and nothing is begun
    stays_when_stopped: bool = False  # until `end` or `remove`: it ignores SIGTERM


@dataclass(slots=True)
class _Fake:
    spec: InstanceSpec
    plan: Plan
    status: InstanceStatus


class FakeDriver:
    abilities = Abilities(name="fake", survives_control=True)

    def __init__(self, *, auto: bool = True, now: Callable[[], float] = lambda: 0.0) -> None:
        self.auto = auto
        self._now = now
        self.unreachable = False
        self.started: list[InstanceId] = []  # every instance that ever ran, once each
        self._plan: Callable[[InstanceSpec], Plan] = lambda spec: Plan()
        self._instances: dict[InstanceId, _Fake] = {}
        self._changes = 1
        self._changed = threading.Condition(threading.RLock())

    # The script

    def plan(self, plan: Callable[[InstanceSpec], Plan]) -> None:
        """Plans for the instances started from now on."""
        self._plan = plan

    def step(self, whose: Callable[[InstanceId], bool] = lambda id: True) -> None:
        """Takes every instance (of those) that is on its way one phase further."""
        with self._changed:
            for id, fake in self._instances.items():
                if whose(id):
                    self._advance(fake)

    def become(self, id: InstanceId, phase: Phase) -> None:
        """Puts an instance into a phase: `unhealthy`, `ready` again …"""
        with self._changed:
            self._set(self._instances[id], phase)

    def end(self, id: InstanceId, failure: Failure | None = None) -> None:
        """Ends an instance, as when it crashes."""
        with self._changed:
            self._end(self._instances[id], failure)

    def lose(self, id: InstanceId) -> None:
        """The machine forgets an instance altogether."""
        with self._changed:
            del self._instances[id]
            self._note_change()

    # The driver

    def start(self, spec: InstanceSpec) -> Handle:
        with self._changed:
            self._reach()
            if spec.instance_id not in self._instances:
                plan = self._plan(spec)
                if plan.refuse_start:
                    raise DriverError(f"{spec.instance_id} cannot be started now")
                self.started.append(spec.instance_id)
                fake = _Fake(spec, plan, InstanceStatus(spec.instance_id, "preparing", started_at=0.0))
                self._instances[spec.instance_id] = fake
                self._note_change()
                while self.auto and self._advance(fake):
                    pass
        return Handle(spec.instance_id)

    def inspect(self, ids: Sequence[InstanceId]) -> dict[InstanceId, InstanceStatus]:
        with self._changed:
            self._reach()
            return {
                id: self._instances[id].status if id in self._instances else InstanceStatus(id, "missing")
                for id in ids
            }

    def stop(self, ids: Iterable[InstanceId], grace_s: float) -> None:
        with self._changed:
            self._reach()
            for id in ids:
                fake = self._instances.get(id)
                if fake is None or not fake.status.is_live:
                    continue
                self._set(fake, "stopping")
                if self.auto and not fake.plan.stays_when_stopped:
                    self._end(fake, None)

    def remove(self, ids: Iterable[InstanceId]) -> None:
        with self._changed:
            self._reach()
            for id in ids:
                if self._instances.pop(id, None) is not None:
                    self._note_change()

    def list(self) -> list[InstanceStatus]:
        with self._changed:
            self._reach()
            return [fake.status for fake in self._instances.values()]

    def wait(self, seen: int, timeout_s: float) -> int:
        with self._changed:
            self._reach()
            self._changed.wait_for(lambda: self._changes != seen, timeout_s)
            return self._changes

    # Within

    def _reach(self) -> None:
        if self.unreachable:
            raise DriverError("the fake driver is unreachable")

    def _advance(self, fake: _Fake) -> bool:
        """One phase further; False when there is nowhere to go."""
        phase = fake.status.phase
        if phase == "stopping" and not fake.plan.stays_when_stopped:
            self._end(fake, None)
            return True
        if phase not in _WAY_UP or (
            phase == "ready" and fake.plan.until == "ready" and not fake.plan.failure
        ):
            return False
        if phase == fake.plan.until:
            if fake.plan.failure is None:
                return False
            self._end(fake, fake.plan.failure)
            return True
        self._set(fake, _WAY_UP[_WAY_UP.index(phase) + 1])
        return True

    def _set(self, fake: _Fake, phase: Phase) -> None:
        serving = phase in ("ready", "unhealthy")
        addresses = [f"unix:/fake/{fake.spec.instance_id}/http.sock"]
        if several := len(fake.spec.containers):
            addresses = [f"unix:/fake/{fake.spec.instance_id}-{n + 1}/http.sock" for n in range(several)]
        image = "clary/fake:1@sha256:" + "0" * 64
        fake.status = replace(
            fake.status,
            phase=phase,
            address=addresses[0] if serving else "",
            addresses=tuple(addresses) if serving and several else (),
            resolved_image=image,
            resolved_images=(image,) * several,
            ready_at=self._now() if phase == "ready" else fake.status.ready_at,
        )
        self._note_change()

    def _end(self, fake: _Fake, failure: Failure | None) -> None:
        self._set(fake, "exited")
        fake.status = replace(fake.status, failure=failure, detail=failure.reason if failure else "")

    def _note_change(self) -> None:
        self._changes += 1
        self._changed.notify_all()


def make(settings: Settings) -> FakeDriver:
    return FakeDriver()
