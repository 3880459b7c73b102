"""A gateway that stops accepting loses nobody whom it has accepted."""

import asyncio
import select
import socket

from clary.gateway.accept import Acceptor


def test_Z04_a_connection_accepted_just_before_the_end_is_taken_up() -> None:
    async def work() -> None:
        made: list[asyncio.BaseTransport] = []

        class Taken(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)

        listening = socket.create_server(("127.0.0.1", 0))
        acceptor = Acceptor(listening.dup(), Taken, sharers=1)
        with listening, socket.create_connection(listening.getsockname()):
            select.select([listening], [], [])  # its client may know of it before the kernel gives it out
            acceptor._accept()  # as the loop does, in the turn in which the gateway is told to stop
            await acceptor.close()
            assert len(made) == 1
            made[0].close()
            await asyncio.sleep(0)

    asyncio.run(work())
