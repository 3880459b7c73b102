"""The host's record of one instance, and its directory as a whole: made, noted in, erased."""

import logging
import os
import re
import shutil
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from clary.domain.instances import InstanceId, InstanceSpec, InstanceStatus
from clary.host import disk_removal, limits
from clary.host.engine import notes
from clary.host.failures import Refused
from clary.links import instances as files
from clary.links import processes

ORPHAN_ROUNDS = 100

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Instance:
    """The host's record of one instance. Changed under the lock of `Instances` only."""

    spec: InstanceSpec
    directory: Path
    state: files.State
    detail: str = ""
    minder: processes.ProcessIdentity | None = None
    peak_bytes: int = 0
    end_by: float | None = None  # monotonic: when the minder should have ended it
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def id(self) -> InstanceId:
        return self.spec.instance_id

    @property
    def socket(self) -> str:
        return str(self.directory / files.SOCKET)

    @property
    def roots(self) -> tuple[int | None, *tuple[int, ...]]:
        """Where its processes begin, as `limits` wants to know it: below its minder, or with a container's first
        process. What the platform keeps beside a container does not count.
        """
        assert self.minder is not None, "asked of instances with a process"
        if (first := notes.first_process(self.directory)) is not None:
            return (None, first)
        return (self.minder.pid,)

    @property
    def is_held_by_engine(self) -> bool:
        """Whether a container engine holds it to its memory, and says so when it ends for that."""
        note = notes.read(self.directory)
        return note is not None and note.limits_memory

    def status(self) -> InstanceStatus:
        serving = self.state.phase in ("ready", "unhealthy")
        return InstanceStatus(
            instance_id=self.id,
            phase=self.state.phase,
            detail=self.detail,
            address=f"unix:{self.socket}" if serving else "",
            resolved_image=self.state.resolved_image,
            runs_script=self.state.runs_script,
            failure=self.state.failure if self.state.phase == "exited" else None,
            started_at=self.state.started_at,
            ready_at=self.state.ready_at,
        )


def make_directory(directory: Path, spec: InstanceSpec, state: files.State) -> None:
    """The directory with its spec, at once: a half-made one would count for nothing anyway."""
    new = directory.with_name(f".new-{directory.name}")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(mode=0o700)
        files.write(new, files.SPEC, spec)
        files.write(new, files.STATE, state)
        new.rename(directory)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise


def erase(directory: Path) -> None:
    """From its place at once: under another name it is rubbish to whoever finds it, and a start that is still on
    its way puts nothing into it any more. May be repeated."""
    gone = directory.with_name(f".gone-{directory.name}")
    disk_removal.remove(gone)  # what a removal before this one could not remove
    with suppress(FileNotFoundError):
        directory.rename(gone)
    disk_removal.remove(gone)


def empty(directory: Path) -> None:
    """What an instance has written, when it has ended: its places stay, and with them whose they are.

    On rung 0 the directory itself is its home, so all goes but the host's own files and those it is about to rename.
    """
    for place, stays in _PLACES.items():
        try:
            disk_removal.clear(directory / place, stays)
        except FileNotFoundError:
            continue  # not every instance has each
        except OSError as error:
            log.warning(
                "what an instance wrote could not be removed",
                extra={"directory": str(directory / place), "error": str(error)},
            )


_HOSTS_FILES = frozenset(
    {
        *(files.SPEC, files.STATE, files.LAUNCH, files.STOP, files.LOCK),
        *(files.PROCESS, files.EXIT, files.SOCKET, notes.FILE),
    }
)


def _is_hosts(entry: "os.DirEntry[str]") -> bool:
    if entry.is_dir(follow_symlinks=False):
        return entry.name in ("tmp", "ml", "opt", "root")
    return entry.name.removeprefix(".") in _HOSTS_FILES


_PLACES: dict[str, disk_removal.Stays] = {
    "": _is_hosts,
    "opt": lambda entry: entry.name == "ml" and entry.is_dir(follow_symlinks=False),
    **dict.fromkeys(("opt/ml", "ml", "tmp", "root"), lambda entry: False),
}


def checked(id: InstanceId) -> InstanceId:
    if not _ID.match(id):
        raise Refused("BadRequest", f"{id!r} is no instance id")
    return id


_ID = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$")


def end_orphans(session: int) -> None:
    """What a killed minder leaves: the kernel ends the instance with it, not what the instance had started."""
    for _ in range(ORPHAN_ROUNDS):
        found = [processes.identify(pid) for pid in limits.members_of_session(session)]
        alive = [identity for identity in found if identity is not None]
        if not alive:
            return
        for identity in alive:
            processes.signal(identity, signal.SIGKILL)
        processes.wait_gone(alive, 0.1)
    log.error("processes of an instance cannot be killed", extra={"session": session})


def write_note(directory: Path, name: str, value: object) -> bool:
    """A file whose loss does no harm as long as this host lives: a full disk must not keep an instance alive."""
    try:
        files.write(directory, name, value)
    except OSError as error:
        extra = {"directory": str(directory), "file": name, "error": str(error)}
        log.warning("a note about an instance could not be written", extra=extra)
        return False
    return True
