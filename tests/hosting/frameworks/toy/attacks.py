"""What hostile code in an instance tries. Each attack answers with what it got; a refusal is an OSError."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH = 16
_CLONE_NEWPID, _CLONE_NEWNET = 0x20000000, 0x40000000


def attack(name: str, argument: str) -> str:
    """`got …` when it worked, `refused …` when it did not."""
    try:
        return f"got {_ATTACKS[name](argument)}"
    except OSError as error:
        return f"refused {type(error).__name__}: {error}"


def _read(path: str) -> str:
    return Path(path).read_bytes()[:200].decode("utf-8", "replace")


def _list(path: str) -> str:
    return " ".join(os.listdir(path))  # noqa: PTH208


def _write(path: str) -> str:
    Path(path).write_text("written by an instance")
    return path


def _kill(pid: str) -> str:
    os.kill(int(pid), signal.SIGKILL)
    return pid


def _kill_everybody(argument: str) -> str:
    """All this process may signal, but itself."""
    os.kill(-1, signal.SIGKILL)
    return "everybody"


def _processes(argument: str) -> str:
    return " ".join(sorted(entry for entry in os.listdir("/proc") if entry.isdigit()))  # noqa: PTH208


def _trace(pid: str) -> str:
    _check(_libc.ptrace(_PTRACE_ATTACH, int(pid), None, None))
    return pid


def _mount(path: str) -> str:
    _check(_libc.mount(b"none", path.encode(), b"tmpfs", 0, None))
    return path


def _namespaces(argument: str) -> str:
    _check(_libc.unshare(_CLONE_NEWPID | _CLONE_NEWNET))
    return "namespaces"


def _become_root(argument: str) -> str:
    os.setuid(0)
    return f"uid {os.getuid()}"


def _leave_root(argument: str) -> str:
    os.chroot("/tmp")
    return "chroot"


def _device(path: str) -> str:
    os.mknod(path, 0o600 | 0o060000, os.makedev(259, 0))
    return path


def _connect(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10):
        return address


def _connect_unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path.replace("@", "\0"))
        return path


def _interfaces(argument: str) -> str:
    return " ".join(name for _, name in socket.if_nameindex())


def _daemon(seconds: str) -> str:
    """Answers when the daemon has become what it will be: then its end of the pipe is closed."""
    waiting, _ = ends = os.pipe()
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execlp("sleep", "sleep", seconds)
        os._exit(0)
    os.close(ends[1])
    os.waitpid(child, 0)
    os.read(waiting, 1)
    os.close(waiting)
    return seconds


def _multiply(argument: str) -> str:
    """Processes until there may be no more, which stay; then this one ends."""
    try:
        while True:
            subprocess.Popen(["sleep", "3600"])
    except OSError as error:
        print(f"no more processes: {error}", flush=True)
        os._exit(7)


def _identity(argument: str) -> str:
    capabilities = [line for line in _read("/proc/self/status").splitlines() if line.startswith("Cap")]
    return f"{os.getuid()} {os.getpid()} {sys.executable} {capabilities}"


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_ATTACKS: dict[str, Callable[[str], str]] = {
    "read": _read,
    "list": _list,
    "write": _write,
    "kill": _kill,
    "kill-everybody": _kill_everybody,
    "processes": _processes,
    "trace": _trace,
    "mount": _mount,
    "namespaces": _namespaces,
    "become-root": _become_root,
    "leave-root": _leave_root,
    "device": _device,
    "connect": _connect,
    "connect-unix": _connect_unix,
    "interfaces": _interfaces,
    "daemon": _daemon,
    "multiply": _multiply,
    "identity": _identity,
}
