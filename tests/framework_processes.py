"""Model servers that are forked, as the host has them forked: a zygote for each framework, and the servers it made."""

import json
import os
import select
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any


class Launched:
    """A model server on its way. `stdout` is a stream, as of a process of one's own."""

    def __init__(self, stdout: int, stderr: IO[bytes], ended: int) -> None:
        self.stdout = os.fdopen(stdout, "rb")
        self._stderr = stderr
        self._ended = os.fdopen(ended, "rb")
        self._code: int | None = None

    def poll(self) -> int | None:
        return self.wait(0) if self._code is None and self._has_ended(0) else self._code

    def wait(self, timeout_s: float) -> int:
        """Its exit code. It is an error if it goes on for longer."""
        if self._code is None:
            assert self._has_ended(timeout_s), f"it has not ended within {timeout_s:g} s"
            self._code = int(self._ended.read())
            self._ended.close()
        return self._code

    def communicate(self, timeout_s: float) -> tuple[bytes, bytes]:
        """All it wrote that was not read, once it has ended; nothing the second time."""
        self.wait(timeout_s)
        if self.stdout.closed:
            return b"", b""
        with self.stdout, self._stderr:
            self._stderr.seek(0)
            return self.stdout.read(), self._stderr.read()

    def _has_ended(self, timeout_s: float) -> bool:
        poll = select.poll()  # unlike select, without a highest descriptor
        poll.register(self._ended, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


class Zygote:
    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=dict(environment))
        if self._control.recv(16) != b"ready":
            self.close()
            raise AssertionError(f"the zygote ended with {self._process.returncode}; its words are above")

    def fork(self, config: Mapping[str, Any]) -> Launched:
        stdout, theirs = os.pipe()
        ended, told = os.pipe()
        stderr = os.fdopen(os.memfd_create("stderr"), "r+b")
        socket.send_fds(self._control, [json.dumps(config).encode()], [theirs, stderr.fileno(), told])
        os.close(theirs)
        os.close(told)
        return Launched(stdout, stderr, ended)

    def close(self) -> None:
        self._control.close()
        self._process.wait(60)
