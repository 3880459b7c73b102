"""Owns the instances of this machine: what control asks for, what is there, and what changed.

Everything that must outlive the host stands in the instances' directories (`clary.links.instances`); the records
here are read from them when the host starts, so a host may be killed at any moment. Bringing an instance up is
`starting`'s, a thread each; pings and ends are `watching`'s, and what an end means `ending`'s; this module holds the
records and the rules:

  - an id is started once, whatever it has become since, until it is removed;
  - an instance that is told to end before its process exists is ended at once;
  - why an instance is ended is written down before it is ended.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from clary.domain.clock import Clock
from clary.domain.instances import Failure, InstanceId, InstanceSpec, InstanceStatus, Phase
from clary.host import failures, limits, starting
from clary.host.disk_removal import remove
from clary.host.ending import conclude, filled_disk
from clary.host.engine.containers import Containers
from clary.host.failures import Refused
from clary.host.launching import Launcher, withdraw
from clary.host.records import Instance, checked, erase, make_directory, write_note
from clary.host.unpacking import Cancelled
from clary.links import instances as files
from clary.links import processes
from clary.telemetry.logs import LogFiles

FORCE_AFTER_S = 10.0
"""How long after its grace a minder may take to end its instance before the host does it."""

REMOVE_TIMEOUT_S = 90.0
AGAIN_S = 1.0
ASKED = "it was asked to end"

log = logging.getLogger(__name__)


class Watcher(Protocol):
    def watch(self, instance: Instance) -> None:
        """Looks after an instance that has a minder from now on: tells `Instances` what becomes of it."""


class Instances:
    """See above. Thread-safe."""

    def __init__(
        self,
        root: Path,
        launcher: Launcher,
        logs: LogFiles,
        clock: Clock,
        was_at: Callable[[InstanceId], str] = lambda id: "",
    ) -> None:
        """`was_at`: what an instance was doing when it ended, as far as it may be to blame."""
        self._was_at = was_at
        self._root = root
        self._launcher = launcher
        self._logs = logs
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._records: dict[InstanceId, Instance] = {}
        self._unended: set[Instance] = set()  # given up, but that could not be noted
        self._watcher: Watcher | None = None
        self._closed = False
        # From the time, so that the numbers of a host are beyond those of the host before.
        self._changes = int(clock.now().timestamp() * 1000)

    def open(self, watcher: Watcher) -> None:
        """Takes up what an earlier host left."""
        self._watcher = watcher
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in sorted(self._root.iterdir()):
            spec = files.read_spec(directory)
            if spec is None or directory.name != spec.instance_id:
                _discard(directory)  # a start or a removal that was cut off
            else:
                self._take_up(spec, directory)

    def close(self) -> None:
        """What is under way is left to the next host: from now on nothing that fails counts."""
        with self._changed:
            self._closed = True

    # What control asks for

    def start(self, spec: InstanceSpec) -> str:
        with self._changed:
            if spec.instance_id not in self._records:
                directory = self._root / checked(spec.instance_id)
                state = files.State("preparing", started_at=self._now())
                make_directory(directory, spec, state)
                instance = Instance(spec, directory, state)
                self._records[instance.id] = instance
                self._note_change()
                self._bring_up(instance)
        return spec.instance_id

    def inspect(self, ids: Sequence[InstanceId]) -> list[InstanceStatus]:
        with self._changed:
            return [
                self._records[id].status() if id in self._records else InstanceStatus(id, "missing")
                for id in ids
            ]

    def list(self) -> list[InstanceStatus]:
        with self._changed:
            return [instance.status() for instance in self._records.values()]

    def look(self, ids: Iterable[InstanceId] | None = None) -> Sequence[tuple[InstanceSpec, InstanceStatus]]:
        """Those there are, of these or of all."""
        with self._changed:
            wanted = self._records.keys() if ids is None else [id for id in ids if id in self._records]
            return [(self._records[id].spec, self._records[id].status()) for id in wanted]

    def wait(self, seen: int, timeout_s: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, timeout_s)
            return self._changes

    def stop(self, ids: Iterable[InstanceId], grace_s: float) -> None:
        for instance in self._known(ids):
            self._stop(instance, grace_s)

    def remove(self, ids: Iterable[InstanceId]) -> None:
        """Returns when nothing is left of them."""
        wanted = self._known(ids)
        for instance in wanted:
            self._stop(instance, 0)
        for instance in wanted:
            if not instance.ended.wait(REMOVE_TIMEOUT_S):
                raise Refused("StillThere", f"{instance.id} does not end")
            erase(instance.directory)
            self._launcher.clear(instance.id)
            with self._changed:
                if self._records.get(instance.id) is instance:
                    del self._records[instance.id]
                    self._note_change()

    def stop_all(self, grace_s: float) -> int:
        """Ends all there are and waits until they have; how many."""
        live = [instance for instance in self._all() if not instance.ended.is_set()]
        for instance in live:
            self._stop(instance, grace_s)
        for instance in live:
            instance.ended.wait(grace_s + FORCE_AFTER_S + REMOVE_TIMEOUT_S)
        return len(live)

    def find(self, id: InstanceId) -> Instance | None:
        with self._changed:
            return self._records.get(id)

    # What a start tells

    def advance(self, instance: Instance, phase: Phase, image: str, *, runs_script: bool = False) -> None:
        with self._changed:
            if instance.cancelled.is_set() or self._closed:
                raise Cancelled
            known = runs_script or instance.state.runs_script
            state = replace(instance.state, phase=phase, resolved_image=image, runs_script=known)
            self._set(instance, state, "")

    def tell(self, instance: Instance, text: str) -> None:
        with self._changed:
            if instance.state.phase == "preparing":
                instance.detail = text
                self._note_change()

    # What the watchers tell

    def running(self) -> Sequence[Instance]:
        """Those with a process."""
        return [i for i in self._all() if i.minder is not None and not i.ended.is_set()]

    def is_live(self, id: InstanceId) -> bool:
        instance = self.find(id)
        return instance is not None and not instance.ended.is_set()

    def live(self) -> frozenset[InstanceId]:
        """The ids of those that have not ended."""
        return frozenset(instance.id for instance in self._all() if not instance.ended.is_set())

    def became_ready(self, instance: Instance) -> None:
        with self._changed:
            if instance.state.failure is not None:
                return  # a ping that was on its way when it was told to end
            if instance.state.phase in ("starting", "unhealthy"):
                ready_at = instance.state.ready_at or self._now()
                self._set(instance, replace(instance.state, phase="ready", ready_at=ready_at), "")

    def became_unhealthy(self, instance: Instance, answer: str) -> None:
        with self._changed:
            if instance.state.phase == "ready":
                detail = f"its ping fails: {answer}"
                self._set(instance, replace(instance.state, phase="unhealthy"), detail)

    def end_because(self, instance: Instance, failure: Failure) -> None:
        """Ends an instance at once for a reason of the host's. One that is stopping keeps the time it has been given,
        but for the disk: what it writes on is the others' room.
        """
        with self._changed:
            if instance.ended.is_set() or instance.state.failure is not None:
                return
            if instance.state.stopping and failure.code != failures.OUT_OF_DISK:
                return
            if not instance.state.stopping:
                self._set(instance, replace(instance.state, failure=failure), instance.detail)
        self._terminate(instance, 0)

    def enforce(self) -> None:
        """Ends what its minder should have ended long ago, because the minder itself hangs. Now and then."""
        with self._changed:
            unended, self._unended = self._unended, set()
        for instance in unended:
            self._give_up(instance, instance.state.failure)
        now = self._clock.monotonic()
        for instance in self.running():
            if instance.end_by is None or now < instance.end_by + FORCE_AFTER_S or instance.minder is None:
                continue
            if not processes.is_alive(instance.minder):
                continue  # gone, though nobody has noted it yet: what its pid leads to now is somebody else's
            log.warning("a minder had to be killed", extra={"instance": instance.id})
            _kill_below(instance.minder)
            processes.signal(instance.minder, signal.SIGKILL)

    def has_ended(self, instance: Instance, probe: str) -> None:
        """The minder is gone: how the instance ended is in exit.json, or nobody knows."""
        containers = self._launcher.container_for(instance.spec)
        if containers is None and not filled_disk(instance):
            self._finish(instance, self._conclude(instance, probe, None))
            return
        # To remove what is left may take its time, an engine's or the disk's, and all pings wait in this thread.
        arguments = (instance, probe, containers)
        threading.Thread(
            target=self._note_end_at_leisure, args=arguments, name=f"end-{instance.id}", daemon=True
        ).start()

    def _note_end_at_leisure(self, instance: Instance, probe: str, containers: Containers) -> None:
        while not instance.ended.is_set():
            try:
                self._finish(instance, self._conclude(instance, probe, containers))
            except Exception:  # out of descriptors, say: nobody else would ever note it
                log.exception("an end could not be noted", extra={"instance": instance.id})
                instance.ended.wait(AGAIN_S)

    def _conclude(self, instance: Instance, probe: str, containers: Containers | None) -> Failure | None:
        return conclude(instance, probe, containers, self._was_at, self._log_tail)

    # Within

    def _bring_up(self, instance: Instance) -> None:
        name = f"start-{instance.id}"
        try:
            threading.Thread(target=self._run_start, args=(instance,), name=name, daemon=True).start()
        except RuntimeError as error:  # an id is started once: nobody else would ever bring it up
            refused = Refused("StartFailed", f"the host cannot do more at once ({error}): try again")
            self._give_up(instance, failures.refused(instance.spec, refused))

    def _run_start(self, instance: Instance) -> None:
        try:
            self._attend(instance, starting.bring_up(instance, self._launcher, self))
        except Cancelled:
            self._give_up(instance, None)  # unless `_stop` has done so, or the next host begins again
        except Exception as error:  # noqa: BLE001  a thread of its own: nobody above would note its end
            self._give_up(instance, starting.failure(instance.spec, error))

    def _attend(self, instance: Instance, minder: processes.ProcessIdentity) -> None:
        with self._changed:
            instance.minder = minder
            cancelled = instance.cancelled.is_set()
        assert self._watcher is not None, "opened before anything starts"
        self._watcher.watch(instance)
        if cancelled:  # told to end while its process was made
            processes.signal(minder, signal.SIGTERM)

    def _stop(self, instance: Instance, grace_s: float) -> None:
        with self._changed:
            if instance.ended.is_set():
                return
            has_process = instance.state.phase not in ("preparing", "fetching")
            instance.cancelled.set()
            if not instance.state.stopping:
                state = replace(instance.state, stopping=True)
                self._set(instance, replace(state, phase="stopping") if has_process else state, ASKED)
        if has_process:
            self._terminate(instance, grace_s)
        else:
            self._end_start(instance, None)

    def _terminate(self, instance: Instance, grace_s: float) -> None:
        """Tells the minder. Asking again may shorten the time that is left, never lengthen it."""
        end_by = self._clock.monotonic() + grace_s
        with self._changed:
            if instance.ended.is_set() or (instance.end_by is not None and instance.end_by <= end_by):
                return
            instance.end_by = end_by
            is_noted = write_note(instance.directory, files.STOP, files.Stop(grace_s))
        processes.signal(instance.minder, signal.SIGTERM)
        if not is_noted and grace_s == 0 and instance.minder is not None:
            _kill_below(instance.minder)  # its minder cannot read that it has no time, for the disk is full

    def _give_up(self, instance: Instance, failure: Failure | None) -> None:
        """Its start failed, or is not wanted any more."""
        with self._changed:
            if not self._closed:  # else the next host tries again
                self._end_start(instance, failure)

    def _end_start(self, instance: Instance, failure: Failure | None) -> None:
        """When a minder came after all, that is what has to be ended."""
        with self._changed:
            if instance.ended.is_set():
                return
            if failure is not None:
                failure = (
                    None if instance.state.stopping else replace(failure, log_tail=self._log_tail(instance))
                )
            if (state := replace(instance.state, failure=failure)) != instance.state:
                self._set(instance, state, instance.detail)
            try:
                if (minder := withdraw(instance.directory)) is not None:
                    self._adopt(instance, minder)
                    return
            except (OSError, RuntimeError) as error:  # out of descriptors or threads: nobody else would do it
                extra = {"instance": instance.id, "error": str(error)}
                log.warning("the end of a start cannot be noted yet", extra=extra)
                self._unended.add(instance)
                return
            if state.stopping or state.phase == "starting":
                write_note(instance.directory, files.EXIT, files.Exit(self._now(), asked=state.stopping))
            self._finish(instance, failure)

    def _finish(self, instance: Instance, failure: Failure | None) -> None:
        with self._changed:
            if instance.ended.is_set():
                return
            with suppress(OSError):  # both are tidiness only, and the disk may be full
                Path(instance.socket).unlink(missing_ok=True)
                self._logs.finish(instance.spec.log)
            detail = failure.reason if failure else ASKED
            self._set(instance, replace(instance.state, phase="exited", failure=failure), detail)
            instance.ended.set()
        extra = {"instance": instance.id, "failure": failure.code if failure else "", "reason": detail}
        log.info("an instance ended", extra=extra)

    def _log_tail(self, instance: Instance) -> tuple[str, ...]:
        try:
            return failures.printable(self._logs.tail(instance.spec.log, failures.READ_LINES))
        except OSError as error:
            return (f"(the log could not be read: {error})",)

    def _take_up(self, spec: InstanceSpec, directory: Path) -> None:
        state = files.read(directory, files.STATE, files.State) or files.State("preparing", self._now())
        instance = Instance(spec, directory, state)
        self._records[spec.instance_id] = instance
        if state.phase == "exited":
            instance.ended.set()
            return
        if state.stopping:
            instance.cancelled.set()
        self._logs.watch(spec.log)
        instance.minder = files.minder_of(directory)
        if instance.minder is not None:
            self._adopt(instance, instance.minder)
        elif state.stopping or state.failure is not None:
            self._end_start(instance, state.failure)
        else:
            # Begins again. A minder that the host before had forked as its last act is found by its lock.
            instance.state = replace(state, phase="preparing")
            self._bring_up(instance)

    def _adopt(self, instance: Instance, minder: processes.ProcessIdentity) -> None:
        instance.minder = minder
        if not processes.is_alive(minder):
            self.has_ended(instance, "unknown, nobody asked")
            return
        if instance.state.phase in ("preparing", "fetching"):
            phase: Phase = "stopping" if instance.state.stopping else "starting"
            self._set(instance, replace(instance.state, phase=phase), "")
        self._attend(instance, minder)
        if instance.state.failure is not None:
            self._terminate(instance, 0)
        elif instance.state.stopping:
            stop = files.read(instance.directory, files.STOP, files.Stop)
            self._terminate(instance, stop.grace_s if stop else 0)

    def _set(self, instance: Instance, state: files.State, detail: str) -> None:
        instance.state, instance.detail = state, detail
        write_note(instance.directory, files.STATE, state)
        self._note_change()

    def _note_change(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _known(self, ids: Iterable[InstanceId]) -> Sequence[Instance]:
        with self._changed:
            return [self._records[id] for id in ids if id in self._records]

    def _all(self) -> Sequence[Instance]:
        with self._changed:
            return [*self._records.values()]

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _discard(directory: Path) -> None:
    try:
        remove(directory)
    except OSError as error:
        log.warning("what is left of an instance cannot be removed", extra={"error": str(error)})


def _kill_below(minder: processes.ProcessIdentity) -> None:
    for pid in limits.descendants(minder.pid):
        processes.signal(processes.identify(pid), signal.SIGKILL)
