"""TensorFlow Serving's REST API on a loopback port, for the handlers of a user's script.

The models of an instance with a script live in a process of their own, forked before TensorFlow had any thread: the
process that listens for invocations stays small and may fork workers at any time. Both sides end together.

Every path begins with a name that only this instance's own processes know: a loopback port is open to all of a machine.
"""

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import uvloop

from clary.runtimes.batching import Batcher
from clary.runtimes.connection import Connection, Service
from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, Limits, LoadError
from clary.runtimes.frameworks.tensorflow.faults import NotFound, ServingFault
from clary.runtimes.frameworks.tensorflow.servables import Call, Servables
from clary.runtimes.frameworks.tensorflow.targets import Target, target_of
from clary.runtimes.heads import RequestHead
from clary.runtimes.scripts import LARGEST_PAYLOAD_BYTES

_PR_SET_PDEATHSIG = 1
_LOADED = b"loaded"
_BACKLOG = 128


class ModelProcess:
    """The process with the models, as the model server sees it."""

    def __init__(self, load: Callable[[], Servables], threads: int) -> None:
        """Forks it. It loads while others go on: see `await_loaded`."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.root = f"/{os.urandom(12).hex()}"
        self.port: int = self._listener.getsockname()[1]
        self._told, tells = socket.socketpair()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._told.close()
            _run(self._listener, tells, load, threads, self.root)
        tells.close()
        self._listener.close()

    def await_loaded(self) -> None:
        """Raises `LoadError`."""
        with self._told:
            told = b"".join(iter(lambda: self._told.recv(65536), b""))
        if told != _LOADED:
            raise LoadError(told.decode() or f"the process that loads the models ended: {self.await_end()}")

    def await_end(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return f"it was ended by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"it exited with code {os.waitstatus_to_exitcode(status)}"


def _run(
    listener: socket.socket, tells: socket.socket, load: Callable[[], Servables], threads: int, root: str
) -> NoReturn:
    """In the fork; never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The platform signals the whole group, and the server still finishes what runs.
        signal.signal(signal.SIGTERM, lambda number, stack: None)
        signal.signal(signal.SIGINT, lambda number, stack: None)
        servables = load()
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(listener, tells, RestModel(servables, root), threads))
    except LoadError as error:
        tells.sendall(str(error).encode())
    except BaseException:  # noqa: BLE001  the end of a process: nobody above
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def _serve(listener: socket.socket, tells: socket.socket, model: "RestModel", threads: int) -> None:
    loop = asyncio.get_running_loop()
    service = Service(Batcher(loop, model, threads), LARGEST_PAYLOAD_BYTES, {})
    accepting = await loop.create_server(lambda: RestConnection(service), sock=listener)
    tells.sendall(_LOADED)
    tells.close()
    await accepting.serve_forever()


class RestConnection(Connection):
    """Every path is a call; what it means is worked out where it is answered."""

    def _take(self, head: RequestHead, body: bytes) -> None:
        self._keep_alive = head.keep_alive
        said = InvocationHead(head.method, head.path, "", ())
        self._submit([InvocationRequest(said, body)])


class RestModel:
    """See `contract.Model`. A request's head says method and path where others have content type and accept."""

    limits = Limits(LARGEST_PAYLOAD_BYTES)

    def __init__(self, servables: Servables, root: str) -> None:
        self._servables = servables
        self._root = root

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        calls = [Call(self._target(head), body) for head, body in batch]
        return [
            InvocationResponse(status, "application/json", body)
            for status, body in self._servables.answer(calls)
        ]

    def _target(self, head: InvocationHead) -> Target | ServingFault:
        method, path = head.content_type or "", head.accept or ""
        if not path.startswith(f"{self._root}/"):
            return NotFound("Not Found")
        try:
            return target_of(method, path.removeprefix(self._root))
        except ServingFault as fault:
            return fault
