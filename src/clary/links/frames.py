"""Framing of the internal links: a big-endian 32-bit length, then that many bytes.

What stands in a frame is its protocol's own affair (JSON by msgspec everywhere today). Both an asyncio and a
blocking form, because control and host work with threads where the gateway runs a loop.
"""

import asyncio
import socket
import struct

LONGEST_FRAME = 64 << 20

_LENGTH = struct.Struct(">I")


class FrameError(ConnectionError):
    """The other side closed in the middle of a frame, or sent no frame at all."""


def pack(payload: bytes) -> bytes:
    if len(payload) > LONGEST_FRAME:
        raise FrameError(f"a frame of {len(payload)} bytes is too long")
    return _LENGTH.pack(len(payload)) + payload


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame, or None when the other side has closed."""
    try:
        head = await reader.readexactly(4)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise FrameError("the link ended inside a frame") from error
        return None
    try:
        return await reader.readexactly(_length(head))
    except asyncio.IncompleteReadError as error:
        raise FrameError("the link ended inside a frame") from error


def send_frame(sock: socket.socket, payload: bytes) -> None:
    sock.sendall(pack(payload))


def receive_frame(sock: socket.socket) -> bytes | None:
    """The next frame, or None when the other side has closed. Blocks as the socket's timeout says."""
    head = _receive_exactly(sock, 4)
    if head is None:
        return None
    payload = _receive_exactly(sock, _length(head))
    if payload is None:
        raise FrameError("the link ended inside a frame")
    return payload


def _receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 20))
        if not part:
            if parts:
                raise FrameError("the link ended inside a frame")
            return None
        parts += part
    return bytes(parts)


def _length(head: bytes) -> int:
    length: int = _LENGTH.unpack(head)[0]
    if length > LONGEST_FRAME:
        raise FrameError(f"a frame of {length} bytes is too long")
    return length
