"""What a caller is told when nothing listens in a container."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from clary.host import probing
from clary.host.engine.relay import Incoming

REFUSAL = b"HTTP/1.1 503 Not Ready\r\nConnection: close\r\nContent-Length: 7\r\n\r\nnothing"


async def nobody(factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport | None:
    return None


def test_a_slow_caller_is_told_as_well(tmp_path: Path) -> None:
    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "r.sock")
        server = await loop.create_unix_server(lambda: Incoming(nobody, lambda: REFUSAL), path)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            await loop.sock_connect(caller, path)
            for _ in range(20):  # long after nobody was found behind
                await asyncio.sleep(0)
            await loop.sock_sendall(caller, b"GET /ping HTTP/1.1\r\n\r\n")
            answer = b""
            while part := await loop.sock_recv(caller, 4096):
                answer += part
        server.close()
        return answer

    assert asyncio.run(run()) == REFUSAL


def test_a_ping_says_that_nothing_listens(tmp_path: Path) -> None:
    async def run() -> probing.Answer:
        path = str(tmp_path / "r.sock")
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Incoming(nobody, lambda: REFUSAL), path
        )
        found = await probing.ping(path, 30)
        server.close()
        return found

    assert asyncio.run(run()) == probing.Answer(False, "HTTP 503: 'nothing'")
