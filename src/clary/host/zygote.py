"""The zygote: imports a framework once, then forks a minder for each instance that wants it.

A script, run by the environment's own Python, which has none of the platform's libraries: the standard library,
the framework, and of this package only `clary.host.minder`, what belongs to it, and `clary.runtimes` (reached through
a stand-in for the `clary` package, so that its site-packages are not needed).

    zygote.py PACKAGE_DIR CONTROL_FD     and on the socket, one JSON message each:
      ← {"preload": [module, …], "path": [folder, …]}           first
      → {"ready": true} or {"error": text}
      ← {"directory": instance directory} with the log's descriptor  any number of times
      → {"pid": minder} or {"error": text}

It never runs a user's code and never starts a thread; all thread pools are told to hold one thread by the
environment it is started in. It ends when the host's end of the socket closes. Its minders stay.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
import types
from typing import Any

LONGEST_MESSAGE = 1 << 16


def main(package_dir: str, control_descriptor: int) -> None:
    """Serves until the host's end closes."""
    control = socket.socket(fileno=control_descriptor)
    control.set_inheritable(False)
    _make_reachable(package_dir)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    # Minders are nobody's business here: the kernel reaps them, the host watches them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(15, b"clary-zygote", 0, 0, 0)
    minder = importlib.import_module("clary.host.minder")
    first, _ = _receive(control)
    if first is None:
        return
    if not _preload(control, first):
        return
    _freeze()
    while True:
        message, descriptors = _receive(control)
        if message is None:
            return
        _fork(control, minder, message["directory"], descriptors[0])


def _make_reachable(package_dir: str) -> None:
    stand_in = types.ModuleType("clary")
    stand_in.__path__ = [package_dir]
    sys.modules["clary"] = stand_in


def _preload(control: socket.socket, first: dict[str, Any]) -> bool:
    sys.path[:0] = first["path"]
    try:
        for module in first["preload"]:
            importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001  a module may even exit: the host is told
        traceback.print_exc()
        _send(control, {"error": f"{type(error).__name__}: {error}"})
        return False
    return _send(control, {"ready": True})


def _freeze() -> None:
    """Moves all that lives out of the collector's sight, or its first run in a child would copy every page."""
    gc.collect()
    gc.freeze()


def _fork(control: socket.socket, minder: Any, directory: str, log_descriptor: int) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        os.close(log_descriptor)
        _send(control, {"error": f"the instance's process could not be made: {error}"})
        return
    if pid == 0:
        control.close()
        minder.run(directory, log_descriptor)
    os.close(log_descriptor)
    _send(control, {"pid": pid})


def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(control, LONGEST_MESSAGE, 1)
    return (json.loads(data) if data else None), descriptors


def _send(control: socket.socket, message: dict[str, Any]) -> bool:
    """False when the host is gone."""
    try:
        control.send(json.dumps(message).encode())
    except BrokenPipeError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
