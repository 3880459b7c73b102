"""Unpacks archives in processes with limits, without starting one for each.

A process takes one archive after the other (`clary.host.archives`) and is replaced after so many, so that nothing adds
up, and after every archive that was refused, took too long or was not wanted any more. Some stay idle for the next
archives; they end with the host. The time an archive may take is limited here: its process is killed.
"""

import json
import logging
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clary.domain.clock import Clock
from clary.host import archives

POLL_S = 0.05
MOST_AT_ONCE = 8
MOST_IDLE = 2
ARCHIVES_A_PROCESS = 200

log = logging.getLogger(__name__)


class Cancelled(Exception):
    """The instance is no longer wanted."""


class _Unseen(Exception):
    """The process ended before it took the archive up."""


class Unpackable(Exception):
    """The archive is not, or not wholly, unpacked. `code` is one of `Failure`'s."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(eq=False, slots=True)
class _Worker:
    process: "subprocess.Popen[bytes]"
    control: socket.socket
    archives: int = 0

    def end(self) -> None:
        """Returns when it is gone."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class Unpacker:
    """Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots = threading.Semaphore(MOST_AT_ONCE)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        # Also for one who forgot to close it: the processes would wait on.
        self._end = weakref.finalize(self, _end_all, self._idle)

    def unpack(
        self,
        source: str,
        target: Path,
        limits: archives.Limits,
        timeout_s: float,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> archives.Unpacked:
        """Into the existing, empty directory `target`. Raises `Unpackable` or `Cancelled`."""
        deadline = self._clock.monotonic() + timeout_s
        while not self._slots.acquire(timeout=POLL_S):
            self._check(deadline, timeout_s, is_cancelled)
        try:
            said = self._said(
                lambda: self._said_by_one(source, target, limits, deadline, timeout_s, is_cancelled)
            )
        finally:
            self._slots.release()
        if "ok" in said:
            return archives.Unpacked(**said["ok"])
        raise Unpackable(str(said["error"]), str(said["message"]))

    def _said(self, by_one: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        for _ in range(MOST_IDLE + 2):
            with suppress(_Unseen):  # killed before it began: that says nothing of the archive
                return by_one()
        raise Unpackable("ArtifactInvalid", "the process that unpacks archives ends before it takes one up")

    def _said_by_one(
        self,
        source: str,
        target: Path,
        limits: archives.Limits,
        deadline: float,
        timeout_s: float,
        is_cancelled: Callable[[], bool],
    ) -> dict[str, Any]:
        worker = self._begin(source, target, limits)
        try:
            said = self._answer(worker, deadline, timeout_s, is_cancelled)
        except BaseException:
            worker.end()
            raise
        self._keep(worker, said)
        return said

    def warm(self) -> None:
        """Has a process ready for the first archive."""
        with self._lock:
            if not self._idle and self._end.alive:
                self._idle.append(_start())

    def pids(self) -> list[int]:
        """Of the idle processes."""
        with self._lock:
            return [worker.process.pid for worker in self._idle]

    def close(self) -> None:
        with self._lock:
            self._end()

    def _begin(self, source: str, target: Path, limits: archives.Limits) -> _Worker:
        message = json.dumps(
            {
                "target": str(target),
                "max_members": limits.max_members,
                "max_bytes": limits.max_bytes,
                "max_ratio": limits.max_ratio,
            }
        ).encode()
        with open(source, "rb") as archive:  # noqa: PTH123  a path under /proc, maybe
            while (worker := self._take_idle()) is not None:
                try:
                    socket.send_fds(worker.control, [message], [archive.fileno()])
                except OSError:  # it was killed while it was idle
                    worker.end()
                else:
                    return worker
            worker = _start()
            try:
                socket.send_fds(worker.control, [message], [archive.fileno()])
            except ConnectionError as error:
                worker.end()
                raise _Unseen from error
            except OSError:
                worker.end()
                raise
            return worker

    def _answer(
        self, worker: _Worker, deadline: float, timeout_s: float, is_cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        worker.control.settimeout(POLL_S)
        while True:
            self._check(deadline, timeout_s, is_cancelled)
            with suppress(TimeoutError):
                try:
                    data = worker.control.recv(archives.LONGEST_MESSAGE)
                except ConnectionResetError as error:  # the message lay there unread
                    raise _Unseen from error
                if not data:
                    raise Unpackable("ArtifactInvalid", "the process that unpacked it was ended")
                said: dict[str, Any] = json.loads(data)
                return said

    def _check(self, deadline: float, timeout_s: float, is_cancelled: Callable[[], bool]) -> None:
        if is_cancelled():
            raise Cancelled
        if self._clock.monotonic() > deadline:
            raise Unpackable("DownloadTimeout", f"unpacking took longer than {timeout_s:g} s")

    def _take_idle(self) -> _Worker | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, worker: _Worker, said: dict[str, Any]) -> None:
        worker.archives += 1
        is_good = "ok" in said and worker.archives < ARCHIVES_A_PROCESS
        with self._lock:
            if is_good and len(self._idle) < MOST_IDLE and self._end.alive:
                self._idle.append(worker)
                return
        worker.end()
        try:
            self.warm()
        except OSError as error:  # the archive that it answered for is unpacked all the same
            log.warning("a process that unpacks archives could not be started", extra={"error": str(error)})


def _start() -> _Worker:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", archives.__file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    return _Worker(process, ours)


def _end_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()
