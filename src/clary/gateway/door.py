"""A gateway's own Unix socket, for the supervisor: one request and one answer a connection, in frames.

TakeSocket → one byte with the listening socket beside it (SCM_RIGHTS): a supervisor that comes back gets the
             port from a gateway, so it is never closed in between
AskState   → State
Stop       → State, then the gateway retires: no client notices that it goes
"""

import array
import asyncio
import contextlib
import socket
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

import msgspec

from clary.links.decoding import decode_json
from clary.links.frames import FrameError, pack, receive_frame, send_frame

log = getLogger(__name__)

_ACCEPT_AGAIN_S = 0.1
_PATIENCE_S = 15.0
_LOOK_PATIENCE_S = 5.0
"""For a question that is asked again, by somebody who has more to do."""


class TakeSocket(msgspec.Struct, tag="take_socket", frozen=True):
    pass


class AskState(msgspec.Struct, tag="state", frozen=True):
    pass


class Stop(msgspec.Struct, tag="stop", frozen=True):
    pass


class State(msgspec.Struct, frozen=True):
    number: int
    pid: int
    routes_version: int
    outstanding: int  # requests under way at instances
    connections: int  # of clients
    memory_bytes: int  # resident
    is_stopping: bool


_decode = msgspec.json.Decoder(TakeSocket | AskState | Stop).decode
_encode = msgspec.json.encode


class Door:
    """The gateway's end."""

    def __init__(
        self, path: Path, listening: socket.socket, state: Callable[[], State], stop: Callable[[], None]
    ) -> None:
        self._path = path
        self._listening = listening
        self._state = state
        self._stop = stop
        self._task: asyncio.Task[None] | None = None
        self._inode = 0
        self._answers: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self._path))
        self._path.chmod(0o600)
        self._inode = self._path.stat().st_ino
        sock.listen(8)
        sock.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._accept(sock))

    async def close(self) -> None:
        """Takes its socket away, unless a successor has bound its own there already."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        tasks = [task for task in (self._task, *self._answers) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with sock:
            while True:
                try:
                    caller, _ = await loop.sock_accept(sock)
                except OSError as error:  # out of descriptors, say: the supervisor asks again
                    log.warning("a call at the door could not be taken", extra={"error": str(error)})
                    await asyncio.sleep(_ACCEPT_AGAIN_S)
                    continue
                task = loop.create_task(self._answer(caller))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)

    async def _answer(self, caller: socket.socket) -> None:
        # Few and short: a thread for each keeps the descriptor passing plain.
        caller.settimeout(_PATIENCE_S)
        try:
            frame = await asyncio.to_thread(receive_frame, caller)
            message = None if frame is None else _decode(frame)
            if isinstance(message, TakeSocket):
                await asyncio.to_thread(_send_descriptor, caller, self._listening)
            elif message is not None:
                await asyncio.to_thread(send_frame, caller, _encode(self._state()))
            if isinstance(message, Stop):
                self._stop()
        except (OSError, FrameError, msgspec.DecodeError) as error:
            log.info("a call at the door failed", extra={"error": str(error)})
        finally:
            caller.close()


def take_socket(path: Path) -> socket.socket:
    """Asks a gateway for the listening socket. Raises OSError when it does not hand it over."""
    with _call(path, TakeSocket()) as sock:
        data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_LEN(array.array("i").itemsize))
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        if not data or not descriptors:
            raise ConnectionError(f"the gateway at {path} did not hand over its socket")
        return socket.socket(fileno=descriptors[0])


def ask_state(path: Path) -> State:
    """What a gateway says of itself. Raises OSError when it does not answer."""
    return _ask(path, AskState(), _LOOK_PATIENCE_S)


def ask_to_stop(path: Path) -> State:
    return _ask(path, Stop())


def _ask(path: Path, message: AskState | Stop, patience_s: float = _PATIENCE_S) -> State:
    with _call(path, message, patience_s) as sock:
        frame = receive_frame(sock)
    if frame is None:
        raise ConnectionError(f"the gateway at {path} did not answer")
    return decode_json(frame, State)


def _call(
    path: Path, message: TakeSocket | AskState | Stop, patience_s: float = _PATIENCE_S
) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(patience_s)
        sock.connect(str(path))
        sock.sendall(pack(_encode(message)))
    except OSError:
        sock.close()
        raise
    return sock


def _send_descriptor(caller: socket.socket, listening: socket.socket) -> None:
    with contextlib.suppress(BrokenPipeError):
        socket.send_fds(caller, [b"1"], [listening.fileno()])
