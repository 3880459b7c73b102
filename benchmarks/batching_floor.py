"""What PyTorch is measured against: `batching_floor.py MODEL PORT PACKAGES`, run by the framework's own Python.

Bare uvloop + httptools with the model in process. Requests that wait are predicted together, as many as have come when
the loop comes round: the least that a server can do to be fast. No signatures, no hop, no limits, no metrics. PACKAGES
is where uvloop, httptools and msgspec are, which a framework's environment does not have.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

MOST = 128
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Batches:
    """What waits is answered at the end of the loop's turn, in its order."""

    def __init__(self, predict: Any) -> None:
        self._predict = predict
        self._waiting: list[tuple[Any, bytes]] = []
        self._loop = asyncio.get_running_loop()

    def add(self, transport: Any, body: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._answer)
        self._waiting.append((transport, body))

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), MOST):
            batch = waiting[start : start + MOST]
            for (transport, _), answer in zip(batch, self._predict([body for _, body in batch]), strict=True):
                transport.write(HEAD % len(answer) + answer)


def predictor(model: str) -> Any:
    """From bodies of one row each to their answers."""
    import msgspec
    import numpy as np
    import torch

    torch.set_num_threads(1)
    module = torch.jit.load(model).eval()
    rows_in = msgspec.json.Decoder(list[list[float]]).decode

    def predict(bodies: list[bytes]) -> list[bytes]:
        rows = np.array([rows_in(body)[0] for body in bodies], dtype=np.float32)
        with torch.inference_mode():
            return [b"[[%r]]" % row[0] for row in module(torch.from_numpy(rows)).tolist()]

    return predict


async def serve(model: str, port: int) -> None:
    import httptools

    batches = Batches(predictor(model))

    class Protocol(asyncio.Protocol):
        def __init__(self) -> None:
            self._parser = httptools.HttpRequestParser(self)
            self._body = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = transport

        def data_received(self, data: bytes) -> None:
            self._parser.feed_data(data)

        def on_body(self, body: bytes) -> None:
            self._body += body

        def on_message_complete(self) -> None:
            body, self._body = self._body, b""
            batches.add(self._transport, body)

    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main(model: str, port: str, packages: str) -> None:
    sys.path.append(packages)
    import uvloop

    uvloop.run(serve(str(Path(model)), int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
