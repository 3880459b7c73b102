"""The servers that Clary is measured against: `python -m benchmarks.floors KIND --port PORT [--model FILE]`.

constant   bare uvloop + httptools, a constant answer: what one Python process can do at all (the floor)
bare       the same, with the model in process: XGBoost's Python API, one prediction a request
fastapi    FastAPI + uvicorn with two workers, the model in each (the peer most people would write)
"""

import argparse
import asyncio
import os
from typing import Any

import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/csv; charset=utf-8\r\ncontent-length: %d\r\n\r\n"


class _Protocol(asyncio.Protocol):
    """The least an HTTP server can be: parse, answer, nothing else."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer = self.answer(self._body)
        self._body = b""
        self._transport.write(HEAD % len(answer) + answer)

    def answer(self, body: bytes) -> bytes:
        return b"9.123456001281738\n"


def _bare(model: str) -> type[_Protocol]:
    import numpy as np

    booster = _load(model)

    class Bare(_Protocol):
        def answer(self, body: bytes) -> bytes:
            row = np.array([body.split(b",")], dtype=np.float32)
            return b"%r\n" % float(booster.inplace_predict(row)[0])

    return Bare


def _load(model: str) -> Any:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(model)
    booster.set_param({"nthread": 1})
    return booster


async def _serve(protocol: type[_Protocol], port: int) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def application() -> Any:
    """The FastAPI application; its model's path is in the environment because uvicorn's workers are new processes."""
    import fastapi
    import numpy as np

    app = fastapi.FastAPI()
    booster = _load(os.environ["BENCHMARK_MODEL"])

    @app.post("/{path:path}")
    async def invoke(request: fastapi.Request) -> fastapi.Response:
        row = np.array([(await request.body()).split(b",")], dtype=np.float32)
        return fastapi.Response(f"{float(booster.inplace_predict(row)[0])!r}\n", media_type="text/csv")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("constant", "bare", "fastapi"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="")
    arguments = parser.parse_args()
    if arguments.kind == "fastapi":
        import uvicorn

        os.environ["BENCHMARK_MODEL"] = arguments.model
        uvicorn.run(
            "benchmarks.floors:application",
            factory=True,
            workers=2,
            port=arguments.port,
            log_level="error",
            access_log=False,
        )
        return
    protocol = _bare(arguments.model) if arguments.kind == "bare" else _Protocol
    uvloop.run(_serve(protocol, arguments.port))


if __name__ == "__main__":
    main()
