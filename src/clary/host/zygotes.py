"""The host's zygotes: started on first need, kept warm, ended when idle.

An instance that cannot be forked from a warm zygote, because its framework does not survive it or its
environment sets what only counts at import, gets one of its own, which ends as soon as it has forked. Everything
after the fork is the same for both.
"""

import json
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clary.catalog import Manifest
from clary.domain.clock import Clock
from clary.host.environments import Environment
from clary.host.failures import Refused

PRELOAD_TIMEOUT_S = 300.0
FORK_TIMEOUT_S = 60.0
PACKAGE = Path(__file__).parent.parent
ZYGOTE = Path(__file__).parent / "zygote.py"

_POOLS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "RAYON")
ONE_THREAD = {f"{pool}_NUM_THREADS": "1" for pool in _POOLS}
"""A thread pool that has threads does not survive a fork; the runtime sizes its own afterwards."""

log = logging.getLogger(__name__)


class _Gone(Exception):
    """The zygote ended, or does not answer any more, which is no better."""


@dataclass(eq=False)
class _Zygote:
    process: subprocess.Popen[bytes]
    control: socket.socket
    name: str
    used_at: float
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fork(self, directory: Path, log_descriptor: int) -> None:
        with self.lock:
            message = json.dumps({"directory": str(directory)}).encode()
            try:
                socket.send_fds(self.control, [message], [log_descriptor])
            except OSError as error:
                raise _Gone from error
            _receive(self.control, FORK_TIMEOUT_S)

    def close(self) -> None:
        """Ends it; the instances it forked stay."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class Zygotes:
    """Thread-safe."""

    def __init__(self, clock: Clock, idle_s: float, max_idle: int) -> None:
        self._clock = clock
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._warm: dict[str, _Zygote] = {}
        self._starting: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def fork(
        self,
        environment: Environment,
        manifest: Manifest,
        variables: Mapping[str, str],
        directory: Path,
        log_descriptor: int,
    ) -> None:
        """Has a minder forked for the instance in `directory`. Raises `Refused`."""
        if needs_fresh_start(manifest, variables):
            own = _start(environment, manifest, variables, self._clock.monotonic())
            try:
                own.fork(directory, log_descriptor)
            except _Gone:
                raise Refused("StartFailed", f"the {manifest.name} process ended before it started") from None
            finally:
                own.close()
            return
        for last_try in (False, True):
            zygote = self.warm(environment, manifest)
            try:
                zygote.fork(directory, log_descriptor)
                return
            except _Gone:
                log.warning("a zygote had ended", extra={"framework": manifest.name})
                self._discard(zygote)
                if last_try:
                    raise Refused(
                        "StartFailed", f"the {manifest.name} zygote ends whenever it forks"
                    ) from None

    def warm(self, environment: Environment, manifest: Manifest) -> _Zygote:
        """The framework's zygote, started where there is none. Raises `Refused`."""
        key = f"{environment.name}-{environment.key}"
        with self._lock:
            starting = self._starting.setdefault(key, threading.Lock())
        with starting:
            with self._lock:
                found = self._warm.get(key)
            if found is None:
                found = _start(environment, manifest, {}, self._clock.monotonic())
                with self._lock:
                    self._warm[key] = found
            found.used_at = self._clock.monotonic()
            return found

    def names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(zygote.name for zygote in self._warm.values()))

    def end_idle(self) -> None:
        """Ends those unused for long, and the least recently used beyond the number to keep."""
        now = self._clock.monotonic()
        with self._lock:
            by_use = sorted(self._warm.items(), key=lambda item: item[1].used_at, reverse=True)
            ended = [
                (key, zygote)
                for place, (key, zygote) in enumerate(by_use)
                if place >= self._max_idle or now - zygote.used_at > self._idle_s
            ]
            for key, _ in ended:
                del self._warm[key]
        for _, zygote in ended:
            with zygote.lock:
                zygote.close()

    def close(self) -> None:
        with self._lock:
            ended = list(self._warm.values())
            self._warm.clear()
        for zygote in ended:
            _break_off(zygote)

    def _discard(self, zygote: _Zygote) -> None:
        with self._lock:
            for key in [key for key, value in self._warm.items() if value is zygote]:
                del self._warm[key]
        _break_off(zygote)


def _break_off(zygote: _Zygote) -> None:
    """Also under others who are waiting for its answer: its end wakes them, and their descriptor stays theirs."""
    zygote.process.kill()
    with zygote.lock:
        zygote.close()


def needs_fresh_start(manifest: Manifest, variables: Mapping[str, str]) -> bool:
    return not manifest.fork_safe or any(manifest.is_import_time(name) for name in variables)


def _start(environment: Environment, manifest: Manifest, variables: Mapping[str, str], now: float) -> _Zygote:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    python = [str(environment.python)] if variables else [str(environment.python), "-I"]
    with theirs:
        process = subprocess.Popen(
            [*python, str(ZYGOTE), str(PACKAGE), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={"PATH": os.defpath, "LANG": "C.UTF-8", **ONE_THREAD, **variables},
            cwd="/",
            start_new_session=True,
        )
    zygote = _Zygote(process, ours, manifest.name, now)
    try:
        _preload(zygote, manifest)
    except _Gone:
        zygote.close()
        raise Refused(
            "StartFailed", f"{manifest.name} could not be imported: its process ended or took too long"
        ) from None
    except BaseException:
        zygote.close()
        raise
    return zygote


def _preload(zygote: _Zygote, manifest: Manifest) -> None:
    folders = [str(manifest.directory / manifest.path)] if manifest.path else []
    first = {"path": folders, "preload": list(manifest.preload)}
    try:
        zygote.control.send(json.dumps(first).encode())
    except OSError as error:
        raise _Gone from error
    _receive(zygote.control, PRELOAD_TIMEOUT_S)


def _receive(control: socket.socket, timeout_s: float) -> None:
    try:
        control.settimeout(timeout_s)
        data = control.recv(1 << 16)
    except OSError as error:
        raise _Gone from error
    if not data:
        raise _Gone
    answer = json.loads(data)
    if "error" in answer:
        raise Refused("StartFailed", f"the framework could not be started: {answer['error']}")
