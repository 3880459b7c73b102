"""The files in an instance's directory, and who writes each.

`<data>/instances/<instance id>/` is all there is to an instance: whoever reads it knows how the instance stands,
whichever process died before. Everything is JSON, written beside its place and renamed.

  spec.json      host    the InstanceSpec; without it the directory counts for nothing
  state.json     host    how far the host has brought it (`State`)
  launch.json    host    what the minder needs to run it (`Launch`); taken away again, no minder begins any more
  stop.json      host    that it is to end, and how long it may take (`Stop`)
  lock           minder  locked while the minder lives: no second one starts beside it
  process.json   minder  the minder's identity, written before the instance is forked: it never starts twice
  exit.json      minder  how it ended (`Exit`)
  container.json runner  of a container of the user's own: `clary.host.engine.notes`
  http.sock      instance  HTTP/1.1: `GET /ping`, `POST /invocations`; on rung 1 the minder binds it and hands it over
  opt/ml/models  host    multi-model: what it has unpacked; model-notes/ says of which objects
  opt/ml, tmp    instance  what containers find under `/opt/ml` and `/tmp`
  ml, root       minder    rung 1: what lies behind the private `/opt/ml`, and where the private root is mounted

A minder that gets SIGTERM reads stop.json (30 s without it), passes SIGTERM on to the instance's process group,
kills all that is left after that time, and writes exit.json. It needs no host for that, so whoever wants an
instance gone while the host is dead signals the identity in process.json.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from clary.domain.instances import Failure, InstanceSpec, Phase
from clary.links.decoding import decode_json
from clary.links.processes import ProcessIdentity

SPEC = "spec.json"
STATE = "state.json"
LAUNCH = "launch.json"
STOP = "stop.json"
LOCK = "lock"
PROCESS = "process.json"
EXIT = "exit.json"
SOCKET = "http.sock"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class State:
    """What the host must not forget about an instance. `failure` is set before the instance is ended for it."""

    phase: Phase
    started_at: float
    ready_at: float | None = None
    resolved_image: str = ""
    runs_script: bool = False
    failure: Failure | None = None
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The root and the limits of an instance on rung 1 (`clary.host.sandbox` makes them). Paths are absolute.

    `uid` is the instance's own; None keeps the host's, inside a user namespace.
    """

    root: str  # an empty directory, where the instance's root is mounted
    readable: tuple[str, ...]  # found inside where they lie outside, read-only
    placed: tuple[tuple[str, str], ...]  # outside, inside: read-only
    writable: tuple[tuple[str, str], ...]  # outside, inside
    hidden: tuple[str, ...]  # empty inside, should anything readable hold them
    uid: int | None
    isolated: bool  # a network of its own, with nothing but loopback
    processes: int
    shm_bytes: int


@dataclass(frozen=True, slots=True)
class CpuGroup:
    """The control group that the minder makes for the instance, and removes."""

    directory: str
    weight_file: str
    weight: int


@dataclass(frozen=True, slots=True)
class Launch:
    """What the minder needs. `entry` is `module:function`, called with `config`; its result is the exit code."""

    entry: str
    environment: dict[str, str]
    config: dict[str, object] = field(default_factory=dict)
    open_files: int = 65536
    cpu_group: CpuGroup | None = None
    sandbox: Sandbox | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    grace_s: float


@dataclass(frozen=True, slots=True)
class Exit:
    """How the instance ended: an exit code or a signal. `asked`: the minder had been told to end it.

    `refused`: what kept its sandbox from being made; then it never ran. `processes`: how many processes and
    threads it left at its end, where that was about as many as it may have.
    """

    ended_at: float
    exit_code: int | None = None
    signal: int | None = None
    max_rss_bytes: int = 0
    asked: bool = False
    refused: str = ""
    processes: int = 0


def read(directory: Path, name: str, kind: type[T]) -> T | None:
    """The content of one of the files; None when it is not there. Whole files only, so anything else is a bug."""
    try:
        return decode_json((directory / name).read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(directory: Path, name: str, value: object) -> None:
    temporary = directory / f".{name}"
    temporary.write_bytes(msgspec.json.encode(value))
    temporary.rename(directory / name)


def read_spec(directory: Path) -> InstanceSpec | None:
    return read(directory, SPEC, InstanceSpec)


def minder_of(directory: Path) -> ProcessIdentity | None:
    """Who minds the instance, dead or alive; None when it was never started."""
    return read(directory, PROCESS, ProcessIdentity)
