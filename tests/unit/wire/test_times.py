"""The looks at what takes too long go on, whatever one of them meets."""

import asyncio
from typing import cast

import pytest

from clary.wire.connection import HttpConnection, has_unread
from clary.wire.http import HttpServer


class Ended(asyncio.Transport):
    """Under TLS: what lies below has gone, and who speaks above it is told in the next turn."""

    def __init__(self) -> None:
        super().__init__({"socket": None})


class Faulty:
    deadline = 0.0

    def expire(self) -> None:
        raise ValueError("a bug")


def test_Z04_of_a_connection_that_has_just_ended_nothing_is_unread() -> None:
    assert not has_unread(Ended())


def test_Z04_a_connection_that_cannot_be_ended_leaves_the_others_their_time_outs() -> None:
    async def work() -> None:
        server = HttpServer(lambda exchange: None)
        first = server._ticker
        server.connections.add(cast(HttpConnection, Faulty()))
        with pytest.raises(ValueError, match="a bug"):
            server._tick()
        assert server._ticker is not first
        server.connections.clear()
        await server.close()

    asyncio.run(work())
