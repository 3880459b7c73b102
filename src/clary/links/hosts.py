"""The link between control and a host: calls by name over a Unix socket, JSON in frames.

One request and one response a frame; a connection carries one call at a time, so a caller with several threads
has several connections. Every operation may be repeated, which lets the client try again on a new connection
when the host was restarted behind an old one.

  request   {"v": 1, "op": name, "args": {…}}
  response  {"result": …} or {"error": {"code": …, "message": …}}

Errors:
  HostError             the host answered, and refused
  HostUnavailable       nobody can tell: no host there, or it went away during the call
"""

import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from clary.domain.instances import InstanceId, InstanceSpec
from clary.links.decoding import decode_json
from clary.links.frames import FrameError, receive_frame, send_frame

VERSION = 1
CONNECT_TIMEOUT_S = 5.0
BACKLOG = 1024
"""Beyond it the kernel refuses at once, which would be taken for a host that is not there."""

CALL_TIMEOUT_S = 60.0

log = logging.getLogger(__name__)

T = TypeVar("T")


class HostError(Exception):
    """The host refused the call. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class HostUnavailable(Exception):
    """The host could not be asked; what it did is unknown. Asking again is safe."""


class _Broken(HostUnavailable):
    """The connection ended during the call: on an old connection, a reason to try a new one."""


# Arguments of the operations. Results stand in the comment behind each.


@dataclass(frozen=True, slots=True)
class Start:  # → str, the handle
    spec: InstanceSpec


@dataclass(frozen=True, slots=True)
class Inspect:  # → list[InstanceStatus], one an id
    ids: tuple[InstanceId, ...]


@dataclass(frozen=True, slots=True)
class StopInstances:  # → None
    ids: tuple[InstanceId, ...]
    grace_s: float


@dataclass(frozen=True, slots=True)
class Remove:  # → None
    ids: tuple[InstanceId, ...]


@dataclass(frozen=True, slots=True)
class ListInstances:  # → list[InstanceStatus]
    pass


@dataclass(frozen=True, slots=True)
class Wait:  # → int
    seen: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StopAll:  # → int, how many were ended; returns when all have
    grace_s: float


@dataclass(frozen=True, slots=True)
class Prewarm:  # → None; goes on in the background
    frameworks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TakeMetrics:  # → list[MetricBatch], those not acknowledged yet
    source: str  # of the newest batch the caller has: another source's numbers acknowledge nothing
    acked_sequence: int
    since_ms: int = 0  # what was seen before this moment is thrown away


# Models of multi-model instances: asked by the gateways as well, so that they load with control dead.


@dataclass(frozen=True, slots=True)
class LoadModel:  # → LoadedModel; waits until it is loaded, however many ask
    """Errors: ModelMissing (nothing at that key), ModelDenied, ModelInvalid (no archive, or the container refuses it:
    the message is the container's), ModelTimeout, NoRoom, InstanceMissing (it has seen nothing of the model),
    InstanceEnded (while it loaded the model: the next one may end as well)."""

    instance_id: InstanceId
    target_model: str
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class LoadedModel:
    name: str  # what the container knows it by: `POST /models/<name>/invoke`
    was_loaded: bool  # before anybody asked for it now: a cache hit
    runs_script: bool = False  # code of the user's answers for it


@dataclass(frozen=True, slots=True)
class ModelUse:
    """Calls of one model that one gateway has made since it last told."""

    instance_id: InstanceId
    name: str
    calls: int
    last_at: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class UseModels:  # → None; what is used least recently is unloaded first
    uses: tuple[ModelUse, ...]


@dataclass(frozen=True, slots=True)
class UnloadModels:  # → None; after a call of a model that is not to be cached
    instance_id: InstanceId
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListModels:  # → list[ModelStatus], of those instances; of all without ids
    ids: tuple[InstanceId, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelStatus:
    instance_id: InstanceId
    target_model: str
    name: str
    state: str  # downloading, loading, loaded, on disk, failed, evicted
    size_bytes: int = 0  # on disk
    memory_bytes: int = 0  # measured when it was loaded
    loaded_at: float | None = None  # seconds since the epoch
    last_used_at: float | None = None
    calls: int = 0
    is_pinned: bool = False
    reason: str = ""  # why it failed, or was evicted
    loads: int = 0  # how often it was loaded: calls beyond these were hits


@dataclass(frozen=True, slots=True)
class PinModels:  # → None; pinned models are loaded now, and are never evicted
    ids: tuple[InstanceId, ...]
    target_models: tuple[str, ...]
    is_pinned: bool = True


@dataclass(frozen=True, slots=True)
class LookUpImage:  # → OwnImage, of an image that no runtime answers for; pulls nothing
    image: str


@dataclass(frozen=True, slots=True)
class GetStatus:  # → HostStatus
    pass


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    name: str
    key: str
    state: str  # absent, building, ready, failed
    detail: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HostStatus:
    pid: int
    environments: tuple[EnvironmentStatus, ...]
    zygotes: tuple[str, ...]
    disk_free_bytes: int
    disk_total_bytes: int
    artifacts_bytes: int
    sandbox_rung: int = 0
    sandbox: str = ""  # which rung and why, for people
    engine: str = ""  # which container engine, or why none, for people
    has_cpu_groups: bool = False
    processors: str = ""  # how instances share them, for people


class Request(msgspec.Struct, frozen=True):
    v: int
    op: str
    args: msgspec.Raw


Handler = Callable[[msgspec.Raw], object]
"""Answers one operation: gets its arguments undecoded, gives back anything msgspec encodes."""


def handler(arguments: type[T], function: Callable[[T], object]) -> Handler:
    """Makes a handler of a function of one of the argument classes above."""
    return lambda raw: function(decode_json(raw, arguments))


def encode_call(operation: str, arguments: object) -> bytes:
    """A request, to be put in a frame."""
    return msgspec.json.encode({"v": VERSION, "op": operation, "args": arguments})


def read_answer(operation: str, answer: bytes, result: type[T]) -> T:
    """What a response holds, as a `result`. Raises `HostError` or `HostUnavailable`."""
    try:
        decoded = decode_json(answer, _Answer)
        if decoded.error is not None:
            raise HostError(decoded.error.code, decoded.error.message)
        return decode_json(decoded.result, result)
    except msgspec.DecodeError as error:
        raise HostUnavailable(f"the host's answer to {operation} makes no sense: {error}") from error


class HostClient:
    """Calls a host. Thread-safe; connections are kept and used again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False

    def call(
        self, operation: str, arguments: object, result: type[T], timeout_s: float = CALL_TIMEOUT_S
    ) -> T:
        """The host's answer as a `result`. Raises `HostError` or `HostUnavailable`."""
        return read_answer(operation, self._exchange(encode_call(operation, arguments), timeout_s), result)

    def call_raw(self, operation: str, arguments: Mapping[str, object]) -> Any:
        """The same for callers that decode the answer themselves (logs): plain values in and out."""
        return self.call(operation, arguments, object)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(self, payload: bytes, timeout_s: float) -> bytes:
        kept = self._take_idle()
        if kept is not None:
            # The host may have been restarted since: an old connection that fails says nothing about it.
            with suppress(_Broken):
                return self._exchange_on(kept, payload, timeout_s)
        return self._exchange_on(self._connect(), payload, timeout_s)

    def _exchange_on(self, connection: socket.socket, payload: bytes, timeout_s: float) -> bytes:
        try:
            connection.settimeout(timeout_s)
            send_frame(connection, payload)
            answer = receive_frame(connection)
        except TimeoutError as error:
            connection.close()
            raise HostUnavailable(f"the host at {self._path} did not answer in {timeout_s:g} s") from error
        except OSError as error:
            connection.close()
            raise _Broken(f"the host at {self._path} did not answer: {error}") from error
        except BaseException:
            connection.close()
            raise
        if answer is None:
            connection.close()
            raise _Broken(f"the host at {self._path} closed the link")
        self._keep(connection)
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(CONNECT_TIMEOUT_S)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise HostUnavailable(f"no host answers at {self._path}: {error}") from error
        return connection

    def _take_idle(self) -> socket.socket | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


class HostServer:
    """The host's side: a thread a connection, until `close`."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._listener = _listen(path)
        self._thread = threading.Thread(target=self._accept, name="host-link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more calls and breaks the connections. The socket's file stays: the next host replaces it."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        for open_socket in (self._listener, *connections):
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                log.exception("the host link could not accept a connection")
                threading.Event().wait(0.1)  # out of descriptors, say: do not spin
                continue
            if not self._admit(connection):
                connection.close()
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="host-call", daemon=True
                ).start()
            except RuntimeError as error:  # no more threads now: this caller asks again, and others are heard
                log.warning("a call to the host had to wait", extra={"error": str(error)})
                self._dismiss(connection)

    def _admit(self, connection: socket.socket) -> bool:
        """Only this user's own processes: the socket's mode says so already, the kernel says it again."""
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with self._lock:
            if self._closed or uid != os.geteuid():
                return False
            self._connections.add(connection)
            return True

    def _serve(self, connection: socket.socket) -> None:
        try:
            while (payload := receive_frame(connection)) is not None:
                send_frame(connection, self._answer(payload))
        except FrameError as error:
            log.warning("a host link broke", extra={"error": str(error)})
        except OSError:
            pass  # the caller went away; it asks again when it cares
        finally:
            self._dismiss(connection)

    def _dismiss(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    def _answer(self, payload: bytes) -> bytes:
        try:
            request = decode_json(payload, Request)
            if request.v != VERSION:
                raise HostError("Version", f"this host speaks version {VERSION} of the link, not {request.v}")
            function = self._handlers.get(request.op)
            if function is None:
                raise HostError("UnknownOperation", f"this host has no operation {request.op!r}")
            return msgspec.json.encode({"result": function(request.args)})
        except HostError as error:
            return _refusal(error.code, str(error))
        except msgspec.DecodeError as error:
            return _refusal("BadRequest", str(error))
        except Exception as error:
            log.exception("a host operation failed")
            return _refusal("Internal", f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class _Error:
    code: str
    message: str


class _Answer(msgspec.Struct, frozen=True):  # only structs may hold raw parts
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


def _refusal(code: str, message: str) -> bytes:
    return msgspec.json.encode({"error": _Error(code, message)})


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Bound under another name and renamed, so that nobody meets the socket before its mode is right.
    temporary = path.with_name(f".{path.name[:12]}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener.bind(str(temporary))
    temporary.chmod(0o600)
    listener.listen(BACKLOG)
    temporary.rename(path)
    return listener
