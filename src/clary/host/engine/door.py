"""A door into a container's network: sockets made in there, used out here.

A socket belongs to the network in which it was made, whoever uses it. So a small process enters the container's
network namespace, makes sockets there and hands them out: connections to the container's port need no port of this
machine, work without any way out of the container, and nobody else can reach it. Entering takes root, or an engine of
the same user's: then the container's user namespace is his and is entered first.
"""

import ctypes
import os
import signal
import socket
from pathlib import Path
from typing import NoReturn

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class DoorClosed(Exception):
    """The container's network could not be entered; the message says why."""


class Door:
    """Made before any thread is, because it forks. Ends with the process that made it."""

    def __init__(self, pid: int, listen: tuple[str, int] | None) -> None:
        """`listen`: an address inside at which this machine will answer, `listener` then."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._keeper = os.fork()
        if self._keeper == 0:
            _keep(theirs, pid, listen)
        theirs.close()
        self.listener = self._receive() if listen else None
        if not listen:
            self.make_socket().close()  # shows that the door opens

    def make_socket(self) -> socket.socket:
        """A TCP socket of the container's network. Takes some microseconds."""
        try:
            self._channel.send(b"?")
        except OSError as error:
            raise DoorClosed("the process in the container's network has ended") from error
        found = self._receive()
        assert found is not None, "only a listener may be refused"
        return found

    def close(self) -> None:
        self._channel.close()
        os.waitpid(self._keeper, 0)

    def _receive(self) -> socket.socket | None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, 1024, 1)
        except OSError as error:
            raise DoorClosed(str(error)) from error
        if data == b"taken":
            return None  # the container listens there itself
        if not descriptors:
            raise DoorClosed(data.decode() or "the process in the container's network has ended")
        return socket.socket(fileno=descriptors[0])


def _keep(channel: socket.socket, pid: int, listen: tuple[str, int] | None) -> NoReturn:
    """The process inside."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(3, channel.fileno())
        os.closerange(channel.fileno() + 1, _OPEN_FILES)
        _enter(pid)
        if listen:
            _listen(channel, listen)
        while channel.recv(1):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
                socket.send_fds(channel, [b"!"], [made.fileno()])
    except OSError as error:
        channel.send(f"the container's network cannot be entered: {error}".encode())
    finally:
        os._exit(0)


def _enter(pid: int) -> None:
    namespaces = Path(f"/proc/{pid}/ns")
    network = os.open(namespaces / "net", os.O_RDONLY | os.O_CLOEXEC)
    if (namespaces / "user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino and os.geteuid() != 0:
        user = os.open(namespaces / "user", os.O_RDONLY | os.O_CLOEXEC)
        _set_namespace(user, _CLONE_NEWUSER)
    _set_namespace(network, _CLONE_NEWNET)


def _set_namespace(descriptor: int, kind: int) -> None:
    if _libc.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _listen(channel: socket.socket, address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            channel.send(b"taken")
            return
        listener.listen(128)
        socket.send_fds(channel, [b"!"], [listener.fileno()])
