"""`python -m clary.gateway --settings PATH --number N --listen-fd FD`: one gateway process."""

import argparse
import asyncio
import gc
import signal
import socket
import sys
from pathlib import Path

import uvloop

from clary import settings
from clary.gateway.app import Gateway
from clary.telemetry import server_log


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="clary.gateway", description="One gateway of Clary.")
    parser.add_argument("--settings", type=Path, required=True, help="the settings file clary up wrote")
    parser.add_argument("--number", type=int, required=True, help="which gateway this is, from 0")
    parser.add_argument("--listen-fd", type=int, required=True, help="the inherited listening socket")
    said = parser.parse_args(arguments)
    read = settings.read(said.settings)
    server_log.configure(read.log_level)
    uvloop.run(_run(read, said.number, socket.socket(fileno=said.listen_fd)))


async def _run(read: settings.Settings, number: int, listening: socket.socket) -> None:
    gateway = Gateway(read, number, listening)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, gateway.stop)
    gc.freeze()  # what start-up made stays: it need not be looked at again
    await gateway.run()


main(sys.argv[1:])
