"""Asks an instance whether it is well: `GET /ping` on its Unix socket."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

_REQUEST = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_LONGEST_ANSWER = 4096
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` says what came back, for people."""

    is_well: bool
    text: str


async def ping(path: str, timeout_s: float) -> Answer:
    """One try. Whatever goes wrong is an answer too."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(path)
    except TimeoutError:
        return Answer(False, f"no answer within {timeout_s:g} s")
    except (FileNotFoundError, ConnectionRefusedError):
        return Answer(False, "it does not listen yet")
    except OSError as error:
        return Answer(False, f"the connection failed: {error.strerror or error}")


async def _ask(path: str) -> Answer:
    reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_ANSWER)
    try:
        writer.write(_REQUEST)
        await writer.drain()
        data = b""
        # The head is enough, and a server that keeps the connection open sends no end.
        while b"\r\n\r\n" not in data and len(data) < _LONGEST_ANSWER:
            if not (part := await reader.read(_LONGEST_ANSWER)):
                break
            data += part
        return _judge(data)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _judge(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        if not data:
            return Answer(False, "it closed the connection without an answer")
        return Answer(False, f"no HTTP answer: {_shown(data)}")
    status = words[1].decode("ascii")
    shown = f": {_shown(body)}" if body.strip() else ""
    return Answer(status == "200", f"HTTP {status}{shown}")


def _shown(data: bytes) -> str:
    return repr(data[:_SHOWN].decode("utf-8", "replace").strip())
