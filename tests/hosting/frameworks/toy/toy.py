"""An instance that does what TOY_DO says, which is `serve` or something no instance should do."""

import importlib
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

IMPORTED_WITH = os.environ.get("TOY_IMPORT", "")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    is_well = True

    def __init__(self, listen: str) -> None:
        kind, _, place = listen.partition(":")
        super().__init__(place, _Handler, bind_and_activate=kind == "unix")
        if kind == "fd":
            self.socket.close()
            self.socket = socket.socket(fileno=int(place))
            self.server_activate()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.server.is_well:
            self._answer(200, b"")
        else:
            self._answer(503, b"the model is unwell")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if body == b"be unwell":
            self.server.is_well = False
        if body.startswith(b"attack "):
            _, name, argument = body.decode().split(" ", 2)
            body = importlib.import_module("attacks").attack(name, argument).encode()
        self._answer(200, body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        return

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(config: Mapping[str, object]) -> int:
    print(f"instance started, import={IMPORTED_WITH!r}")
    what, _, argument = os.environ.get("TOY_DO", "serve").partition(":")
    return _BEHAVIOURS[what](config, argument)


def _serve(config: Mapping[str, object], argument: str) -> int:
    with _Server(str(config["listen"])) as server:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        print("serving")
        server.serve_forever()
    return 0


def _exit(config: Mapping[str, object], argument: str) -> int:
    print("about to end")
    return int(argument)


def _raise(config: Mapping[str, object], argument: str) -> int:
    raise RuntimeError(argument)


def _import(config: Mapping[str, object], argument: str) -> int:
    __import__(argument)
    return 0


def _signal(config: Mapping[str, object], argument: str) -> int:
    os.kill(os.getpid(), int(argument))
    return 0


def _mute(config: Mapping[str, object], argument: str) -> int:
    print("never going to listen")
    time.sleep(3600)
    return 0


def _unwell(config: Mapping[str, object], argument: str) -> int:
    _Server.is_well = False
    return _serve(config, argument)


def _stubborn(config: Mapping[str, object], argument: str) -> int:
    with _Server(str(config["listen"])) as server:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.serve_forever()
    return 0


def _eat(config: Mapping[str, object], argument: str) -> int:
    """A gigabyte: the machine has to hold what nobody with a turn has seen yet."""
    eaten = []
    for _ in range(128):
        eaten.append(bytearray(b"x" * (8 << 20)))
        time.sleep(0.02)
    time.sleep(3600)
    return 0


def _fill(config: Mapping[str, object], argument: str) -> int:
    """Writes on and on, a full disk or not; `unnamed`: into a file that nobody else can find."""
    with tempfile.NamedTemporaryFile(delete=argument == "unnamed", buffering=0) as file:
        if argument == "unnamed":
            Path(file.name).unlink()
        while True:
            with suppress(OSError):
                file.write(b"x" * (1 << 20))
            time.sleep(0.01)


def _binary(config: Mapping[str, object], argument: str) -> int:
    sys.stdout.buffer.write(bytes(range(256)) * 10 + b"\n")
    sys.stdout.buffer.flush()
    return 1


def _flood(config: Mapping[str, object], argument: str) -> int:
    line = b"y" * 1023 + b"\n"
    for _ in range(int(argument)):
        os.write(1, line * 1024)
    return 1


def _family(config: Mapping[str, object], argument: str) -> int:
    """Leaves children, and children that left the session, behind."""

    def sleeper() -> str:
        """A time that no other process sleeps, so that it can be found by it."""
        seconds = f"3600.{int.from_bytes(os.urandom(7), 'big')}"
        print(f"sleeper {seconds}", flush=True)
        return seconds

    for new_session in (False, True):
        subprocess.Popen(["sleep", sleeper()], start_new_session=new_session)
    seconds = sleeper()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execlp("sleep", "sleep", seconds)
        os._exit(0)
    os.wait()
    return _serve(config, argument) if argument == "serve" else 5


_BEHAVIOURS: dict[str, Callable[[Mapping[str, object], str], int]] = {
    "serve": _serve,
    "exit": _exit,
    "raise": _raise,
    "import": _import,
    "signal": _signal,
    "mute": _mute,
    "unwell": _unwell,
    "stubborn": _stubborn,
    "eat": _eat,
    "fill": _fill,
    "binary": _binary,
    "flood": _flood,
    "family": _family,
}
