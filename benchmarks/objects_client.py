"""A client of S3 that costs next to nothing: signed heads made beforehand, one block sent over and over.

The SDKs hash and copy what they send and would be the limit themselves. What their requests look like to the server
is kept: the headers they send over plain HTTP, SHA-256 of the body in the signature and its CRC32 beside it, parts of
8 MiB on ten connections.
"""

import base64
import hashlib
import os
import re
import socket
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.platform import Platform

BLOCK = os.urandom(1 << 20)
PART_BLOCKS = 8
CONNECTIONS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    size: int


class _Signer(S3SigV4Auth):
    """With the hash of a body that is not at hand."""

    def __init__(self, credentials: Credentials, sha256: str) -> None:
        super().__init__(credentials, "s3", "us-east-1")
        self._sha256 = sha256

    def payload(self, request: AWSRequest) -> str:
        return self._sha256


def signed_head(platform: Platform, method: str, target: str, blocks: int) -> bytes:
    """The head of a request whose body is that many blocks."""
    key = platform.running.key
    headers = {"x-amz-checksum-crc32": crc32_of(blocks)} if blocks else {}
    request = AWSRequest(method, f"http://127.0.0.1:{platform.port}{target}", headers=headers)
    _Signer(Credentials(key.access_key_id, key.secret_access_key), sha256_of(blocks)).add_auth(request)
    request.headers["Host"] = f"127.0.0.1:{platform.port}"
    request.headers["Content-Length"] = str(blocks * len(BLOCK))
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()


@cache
def sha256_of(blocks: int) -> str:
    digest = hashlib.sha256()
    for _ in range(blocks):
        digest.update(BLOCK)
    return digest.hexdigest()


@cache
def crc32_of(blocks: int) -> str:
    value = 0
    for _ in range(blocks):
        value = zlib.crc32(BLOCK, value)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, head: bytes, blocks: int = 0) -> Answer:
        """A request with a body of that many blocks; the answer's body is read and dropped."""
        self._socket.sendall(head)
        for _ in range(blocks):
            self._socket.sendall(BLOCK)
        return self._answer()

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> Answer:
        buffer = bytearray(1 << 20)
        came = b""
        while b"\r\n\r\n" not in came:
            size = self._socket.recv_into(buffer)
            if not size:
                raise ConnectionError(f"the server closed the connection after {came!r}")
            came += buffer[:size]
        head, _, rest = came.partition(b"\r\n\r\n")
        status = int(head[9:12])
        headers = {n.lower(): v for n, v in re.findall(r"([^:\r\n]+): ([^\r\n]*)", head.decode("latin-1"))}
        length = int(headers.get("content-length", "0"))
        size = len(rest)
        while size < length:
            size += self._socket.recv_into(buffer)
        if status != 200:
            raise RuntimeError(f"{status}: {rest[:500]!r}")
        return Answer(status, headers, size)


def send_parts(port: int, heads: Sequence[bytes]) -> list[str]:
    """Parts on ten connections at once; their ETags, in order."""
    clients = [Client(port) for _ in range(CONNECTIONS)]

    def send_some(number: int) -> dict[int, str]:
        mine = range(number, len(heads), CONNECTIONS)
        return {at: clients[number].send(heads[at], PART_BLOCKS).headers["etag"] for at in mine}

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        etags = {at: etag for some in threads.map(send_some, range(CONNECTIONS)) for at, etag in some.items()}
    for client in clients:
        client.close()
    return [etags[at] for at in range(len(heads))]
