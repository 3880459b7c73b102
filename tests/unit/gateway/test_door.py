"""A gateway's door stays open whatever one call does."""

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from clary.gateway import door
from clary.gateway.door import Door, State

STATE = State(0, 1, 2, 3, 4, 5, is_stopping=False)


def test_Z02_a_gateway_that_was_out_of_descriptors_for_a_moment_still_answers_its_supervisor(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        accept = loop.sock_accept
        refused: list[socket.socket] = []

        async def out_of_descriptors_once(sock: socket.socket) -> Any:
            if not refused:
                refused.append(sock)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return await accept(sock)

        monkeypatch.setattr(loop, "sock_accept", out_of_descriptors_once)
        monkeypatch.setattr(door, "_ACCEPT_AGAIN_S", 0.0)
        monkeypatch.setattr(door, "_LOOK_PATIENCE_S", 60.0)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            mine = Door(root / "d.sock", listening, lambda: STATE, lambda: None)
            mine.open()
            assert await asyncio.to_thread(door.ask_state, root / "d.sock") == STATE
            await mine.close()

    asyncio.run(work())
