"""Which sandbox rung the instances of this machine get, and why: what is wanted, and what a probe found to work.

  0  a plain process of the host's user with limits: no security boundary
  1  namespaces, a root of its own, no privileges (`sandbox`)

The probe is the sandbox itself, made once around nothing, so what it finds is true for the instances.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from clary.domain.instances import InstanceSpec
from clary.host import sandbox
from clary.host.failures import Refused
from clary.host.models_files import MODELS
from clary.host.uids import Uids
from clary.links import instances as files

PROBE_TIMEOUT_S = 60.0
PACKAGE = Path(__file__).parent.parent
LARGEST_SHM = 8 << 30

_HINTS = {
    "kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1 allows it"),
    "kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0 allows it",
    ),
    "user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000 allows it"),
}


@dataclass(frozen=True, slots=True)
class Rung:
    """`why` is for people. `refusal`: rung 1 was demanded and does not work, so nothing may start."""

    number: int
    why: str
    own_uids: bool = False
    refusal: str = ""

    @property
    def summary(self) -> str:
        """One line for `clary up` and `clary doctor`."""
        if self.refusal:
            return f"no instance can start: {self.refusal}"
        if self.number == 0:
            return (
                f"rung 0 ({self.why}): instances are plain processes with limits, no security boundary; "
                "run only models that you trust"
            )
        return f"rung 1 ({self.why}): instances see their own files and processes only"


def choose(wanted: str, uid_base: int) -> Rung:
    """The rung for `auto`, `0` or `1`. Takes some hundredths of a second."""
    if wanted == "0":
        return Rung(0, "the setting `sandbox` says so")
    refused = ""
    if os.geteuid() == 0:
        refused = _probe(uid_base)
        if not refused:
            return Rung(1, "started as root, so every instance has a uid of its own", own_uids=True)
    refused = _probe(None) or ""
    if not refused:
        return Rung(1, "in user namespaces, with the uid of this user")
    text = f"the stronger sandbox does not work here: {'; '.join([refused, *_hints()])}"
    return Rung(1, text, refusal=text) if wanted == "1" else Rung(0, text)


def _probe(uid: int | None) -> str:
    """What the kernel refused; nothing when it works."""
    with tempfile.TemporaryDirectory(prefix="clary-probe-") as root:
        plan = files.Sandbox(
            root=root,
            readable=(),
            placed=(),
            writable=(),
            hidden=(),
            uid=uid,
            isolated=True,
            processes=1024,
            shm_bytes=1 << 20,
        )
        command = [sys.executable, "-I", "-S", sandbox.__file__, msgspec.json.encode(plan).decode()]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_TIMEOUT_S, cwd="/"
            )
            answer: dict[str, str] = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return f"the probe did not answer ({error})"
    return answer["refused"]


def _hints() -> list[str]:
    found = []
    for name, (value, hint) in _HINTS.items():
        try:
            if (Path("/proc/sys") / name).read_text().strip() == value:
                found.append(hint)
        except OSError:
            continue
    return found


class Boxes:
    """Plans the sandbox of each instance. Thread-safe."""

    def __init__(self, rung: Rung, hidden: Iterable[Path], uids: Uids, processes: int) -> None:
        self.rung = rung
        self._hidden = tuple(str(path) for path in hidden)
        self._uids = uids
        self._processes = processes

    def check(self, spec: InstanceSpec) -> None:
        """Raises `Refused` for what this rung cannot keep."""
        if self.rung.refusal:
            raise Refused("StartFailed", self.rung.refusal)
        if spec.network_isolated and self.rung.number == 0:
            raise Refused(
                "StartFailed",
                f"EnableNetworkIsolation needs sandbox rung 1, and this is rung 0: {self.rung.why}",
            )

    def plan(self, spec: InstanceSpec, directory: Path, readable: Iterable[Path]) -> files.Sandbox | None:
        """The instance's sandbox, its directories made and owned; None on rung 0."""
        if self.rung.number == 0:
            return None
        readable = (PACKAGE / "runtimes", *readable)
        uid = self._uids.take(directory) if self.rung.own_uids else None
        if uid is not None:
            _check_readable(readable)
        for name in ("root", "ml", "tmp"):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        own = placed(directory / "opt/ml", "/opt/ml")
        if spec.models is not None:
            # As a whole: what the host puts there later is seen inside, and nothing can be written there.
            own = (*own, (str(directory / MODELS), f"/{MODELS}"))
        if not any(target == "/opt/ml/model" for _, target in own):
            (directory / "ml/model").mkdir(exist_ok=True)
        if uid is not None:
            _give(directory, uid, [Path(source) for source, _ in own])
        return files.Sandbox(
            root=str(directory / "root"),
            readable=tuple(str(path) for path in readable),
            placed=own,
            writable=((str(directory / "ml"), "/opt/ml"), (str(directory / "tmp"), "/tmp")),  # noqa: S108
            hidden=self._hidden,
            uid=uid,
            isolated=spec.network_isolated,
            processes=self._processes,
            shm_bytes=min(spec.memory_bytes // 2, LARGEST_SHM),
        )


def _check_readable(readable: Iterable[Path]) -> None:
    """An instance with a uid of its own is a stranger to root's files."""
    for path in readable:
        if path.stat().st_mode & 0o005 != 0o005:
            raise Refused("StartFailed", f"instances may not read {path}; chmod -R a+rX {path} allows it")


def placed(folder: Path, inside: str) -> tuple[tuple[str, str], ...]:
    """What the host has put below the instance's `/opt/ml`: content by links, and small files of its own."""
    found: list[tuple[str, str]] = []
    for path in sorted(folder.iterdir()):
        target = f"{inside}/{path.name}"
        if path.is_symlink():
            found.append((str(path.readlink()), target))
        elif path.is_dir():
            found += placed(path, target)
        else:
            found.append((str(path), target))
    return tuple(found)


def _give(directory: Path, uid: int, placed: Iterable[Path]) -> None:
    """The instance's own: where it writes, and the files that were written for it alone."""
    for path in (directory / "ml", directory / "ml/model", directory / "tmp"):
        if path.is_dir():
            os.chown(path, uid, uid)
    for path in placed:
        if path.is_relative_to(directory) and not path.is_dir():
            os.chown(path, uid, uid)
