"""TensorFlow Serving's REST API on a loopback port, for the handlers of a user's script.

The models of an instance with a script live in a process of their own: the process that listens for invocations stays
small and may fork workers at any time. It ends with the server.

Every path begins with a name that only this instance's own processes know: a loopback port is open to all of a machine.
"""

import asyncio
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NoReturn

import uvloop

import clary
from clary.runtimes.batching import Batcher
from clary.runtimes.connection import Connection, Service
from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, Limits, LoadError
from clary.runtimes.frameworks.tensorflow.bundles import Bundle
from clary.runtimes.frameworks.tensorflow.faults import NotFound, ServingFault
from clary.runtimes.frameworks.tensorflow.servables import Call, Servables
from clary.runtimes.frameworks.tensorflow.settings import Settings
from clary.runtimes.frameworks.tensorflow.targets import Target, target_of
from clary.runtimes.heads import RequestHead
from clary.runtimes.scripts import LARGEST_PAYLOAD_BYTES
from clary.runtimes.workers import on_a_lasting_thread

_PR_SET_PDEATHSIG = 1
_LOADED = b"loaded"
_BEGIN = f"""
import sys, types
sys.modules["clary"] = clary = types.ModuleType("clary")  # as in a zygote: of the platform nothing else is there
clary.__path__ = sys.argv[1:]
from {__name__} import main
main()
"""
_BACKLOG = 128


class ModelProcess:
    """The process with the models, as the model server sees it.

    A server that has one model forks it, before there is any thread. One with many may have run some in its own process
    already, and TensorFlow's threads do not come along with a fork: there it is a Python of its own, which can be
    started again at the same port when it ends.
    """

    def __init__(self, bundles: Sequence[Bundle], settings: Settings) -> None:
        """Starts it. It loads while others go on: see `await_loaded`."""
        self._bundles, self._settings = bundles, settings
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._python: subprocess.Popen[bytes] | None = None
        self.root = f"/{os.urandom(12).hex()}"
        self.port: int = self._listener.getsockname()[1]
        self.can_start_again = threading.current_thread() is not threading.main_thread()
        self.start()

    def start(self) -> None:
        self._told, tells = socket.socketpair()
        with tells:
            self.pid = on_a_lasting_thread(
                partial(self._spawn if self.can_start_again else self._fork, tells)
            )
        if not self.can_start_again:
            self._listener.close()

    def await_loaded(self) -> None:
        """Raises `LoadError`."""
        with self._told:
            told = b"".join(iter(lambda: self._told.recv(65536), b""))
        if told != _LOADED:
            raise LoadError(told.decode() or f"the process that loads the models ended: {self.await_end()}")

    def await_end(self) -> str:
        if self._python is not None:
            status = self._python.wait()
        else:
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status < 0:
            return f"it was ended by {signal.Signals(-status).name}"
        return f"it exited with code {status}"

    def end(self) -> None:
        """Does not wait until it is gone."""
        self._told.close()
        self._listener.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _fork(self, tells: socket.socket) -> int:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._told.close()
            _run(self._listener, tells, self._bundles, self._settings, self.root)
        return pid

    def _spawn(self, tells: socket.socket) -> int:
        descriptors = self._listener.fileno(), tells.fileno()
        bundles = [
            (each.name, [(number, str(path)) for number, path in each.versions.items()])
            for each in self._bundles
        ]
        told = json.dumps([*descriptors, bundles, asdict(self._settings), self.root])
        self._python = subprocess.Popen(
            [sys.executable, "-c", _BEGIN, *clary.__path__],
            stdin=subprocess.PIPE,
            pass_fds=descriptors,
        )
        assert self._python.stdin is not None, "it was asked for"
        with self._python.stdin as stdin:  # arguments can be read by all of the machine
            stdin.write(told.encode())
        return self._python.pid


def main() -> NoReturn:
    """The process with the models, where it is a Python of its own."""
    listener, tells, bundles, settings, root = json.load(sys.stdin)
    found = [Bundle(name, {number: Path(path) for number, path in versions}) for name, versions in bundles]
    _run(socket.socket(fileno=listener), socket.socket(fileno=tells), found, Settings(**settings), root)


def _run(
    listener: socket.socket, tells: socket.socket, bundles: Sequence[Bundle], settings: Settings, root: str
) -> NoReturn:
    """Loads and serves; never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The platform signals the whole group, and the server still finishes what runs.
        signal.signal(signal.SIGTERM, lambda number, stack: None)
        signal.signal(signal.SIGINT, lambda number, stack: None)
        model = RestModel(Servables(bundles, settings), root)
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(listener, tells, model, settings.intra_op_threads))
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
