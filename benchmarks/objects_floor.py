"""The sink that objects are measured against: `python -m benchmarks.objects_floor --port PORT --directory DIR`.

A bare uvloop + httptools server. PUT: MD5 and CRC32 of the body, written to a file, fsync, answered with the ETag. GET:
the file again, as fast as it is taken. No names, no signatures, no index: the least that storing an object can be.
"""

import argparse
import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import httptools
import uvloop
from awscrt import checksums

_PIECE = 1 << 20


class _Sink(asyncio.Protocol):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._parser = httptools.HttpRequestParser(self)
        self._file = -1
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        if self._parser.get_method() == b"PUT":
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            self._md5 = hashlib.md5(usedforsecurity=False)
            self._crc = 0

    def on_body(self, body: bytes) -> None:
        self._md5.update(body)
        self._crc = checksums.crc32(body, self._crc)
        os.write(self._file, body)

    def on_message_complete(self) -> None:
        if self._parser.get_method() != b"PUT":
            self._sending = asyncio.get_running_loop().create_task(self._send())
            return
        os.fsync(self._file)
        os.close(self._file)
        fields = b"etag: %b\r\nx-crc: %08x\r\n" % (self._md5.hexdigest().encode(), self._crc)
        self._transport.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: 0\r\n\r\n" % fields)

    async def _send(self) -> None:
        with self._path.open("rb", buffering=0) as file:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % os.fstat(file.fileno()).st_size
            )
            while piece := file.read(_PIECE):
                self._transport.write(piece)
                await self._may_write.wait()


async def _serve(port: int, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Sink(directory / "object"), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.port, arguments.directory))


if __name__ == "__main__":
    main()
