"""The model server: loads a model, then answers the container contract on a Unix socket or a TCP port.

`main` is what an instance runs, in a forked child of the zygote or in a process of its own; everything it needs
comes in `config`. The model is loaded before the socket exists, so a socket that accepts means a model that
serves. SIGTERM stops accepting, lets running requests finish and ends with 0; a model that does not load ends
with 1 and a last line that starts with `model did not load:`.

With `models` in its configuration it starts without a model, and loads and unloads those it is told to
(`clary.runtimes.models`).
"""

import asyncio
import faulthandler
import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from clary.runtimes.batching import Batcher
from clary.runtimes.connection import Service
from clary.runtimes.contract import Dispatcher, Load, LoadError, Model, Scripted
from clary.runtimes.models import Shelf
from clary.runtimes.models_connection import ModelsService
from clary.runtimes.models_memory import Memory

MODELS_MEMORY = "CLARY_MODELS_MEMORY_MB"
"""Of an instance's environment: what all its models together may take. Without it: what the instance has."""

SHARE_FOR_MODELS = 0.9
"""Of the instance's memory. The rest is for the requests; at the whole of it the platform ends the instance."""

STOP_GRACE_S = 25.0  # less than the 30 s after which the platform kills
_BACKLOG = 2048

log = logging.getLogger(__name__)


class ConfigError(Exception):
    """The configuration handed to the server cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What `main` needs to know; sizes in bytes."""

    module: str  # of the framework: it has `load`
    model_dir: Path
    listen: str  # `unix:/path`, `tcp:host:port`, or `fd:N`: a Unix socket that is bound already
    environment: Mapping[str, str]
    vcpus: int = 1
    max_payload_bytes: int = 25 << 20
    models: bool = False  # many models, which come and go
    memory_bytes: int = 8 << 30

    @classmethod
    def from_mapping(cls, config: Mapping[str, object]) -> "ServerConfig":
        """Unknown keys are left to others; raises `ConfigError` for a missing or wrong one."""
        try:
            environment = cast(Mapping[str, str], config.get("environment") or {})
            return cls(
                module=str(config["module"]),
                model_dir=Path(str(config["model_dir"])),
                listen=str(config["listen"]),
                environment=dict(environment),
                vcpus=max(1, int(str(config.get("vcpus", 1)))),
                max_payload_bytes=int(str(config.get("max_payload_bytes", 25 << 20))),
                models=bool(config.get("models")),
                memory_bytes=int(str(config.get("memory_bytes", 8 << 30))),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"the server's configuration is wrong at {error}") from error


def main(config: Mapping[str, object]) -> int:
    """Serves until SIGTERM; the exit code."""
    _write_logs_to_stdout()
    faulthandler.enable(file=sys.stderr)
    try:
        server = ServerConfig.from_mapping(config)
        model = None if server.models else _load(server)
        with _bind(server.listen) as listener:
            gc.collect()
            gc.freeze()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(server, model, listener))
    except LoadError as error:
        return _give_up("model did not load", error)
    except ConfigError as error:
        return _give_up("server did not start", error)
    return 0


def _give_up(what: str, error: Exception) -> int:
    """The last line of the log: the platform shows it to the person who made the endpoint."""
    sys.stdout.flush()
    # A line of its own: what a script or a worker that was ended wrote last may lack its end.
    print(f"\n{what}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 1


def _load(server: ServerConfig) -> Model | Scripted:
    """Raises `LoadError`, whatever went wrong; what the framework did not explain is logged with its stack."""
    began = time.monotonic()
    try:
        load = _loader(server.module)
        model = load(server.model_dir, server.environment, server.vcpus)
    except LoadError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise LoadError(f"{type(error).__name__}: {error}") from error
    log.info("model loaded in %.0f ms", (time.monotonic() - began) * 1000)
    return model


async def _serve(server: ServerConfig, model: Model | Scripted | None, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    service = _serve_many(server, loop) if model is None else await _serve_one(server, model, loop)
    accepting = await _listen(loop, listener, service)
    log.info("serving at %s", server.listen)
    await stop.wait()
    accepting.close()
    await _finish_requests(loop, service)
    service.dispatcher.close()
    log.info("stopped")


async def _serve_one(
    server: ServerConfig, model: Model | Scripted, loop: asyncio.AbstractEventLoop
) -> Service:
    dispatcher: Dispatcher
    if isinstance(model, Scripted):
        dispatcher = await model.dispatcher(loop)
    else:
        dispatcher = Batcher(loop, model, model.limits.concurrency or server.vcpus)
    payload_limit = min(server.max_payload_bytes, model.limits.max_payload_bytes)
    return Service(
        dispatcher,
        payload_limit,
        _execution_parameters(server, model.limits.batch_strategy, payload_limit),
    )


def _serve_many(server: ServerConfig, loop: asyncio.AbstractEventLoop) -> Service:
    """Raises `LoadError` where the framework itself cannot be used."""
    memory = Memory(int(server.memory_bytes * SHARE_FOR_MODELS), _models_memory(server.environment))
    shelf = Shelf(loop, _loader(server.module), server.environment, server.vcpus, memory)
    parameters = _execution_parameters(server, "MULTI_RECORD", server.max_payload_bytes)
    return ModelsService(shelf, server.max_payload_bytes, parameters)


def _models_memory(environment: Mapping[str, str]) -> int:
    wanted = environment.get(MODELS_MEMORY, "")
    if wanted and not wanted.isdigit():
        raise ConfigError(f"{MODELS_MEMORY} is {wanted!r}, which is no number of megabytes")
    return int(wanted or 0) << 20


def _loader(module: str) -> Load:
    try:
        return cast(Load, importlib.import_module(module).load)
    except Exception as error:
        traceback.print_exc()
        raise LoadError(f"{type(error).__name__}: {error}") from error


def _bind(address: str) -> socket.socket:
    kind, _, place = address.partition(":")
    host, _, port = place.rpartition(":")
    try:
        if kind == "fd" and place.isdigit():
            return socket.socket(fileno=int(place))
        if kind == "unix":
            Path(place).unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(place)
            return listener
        if kind == "tcp" and host and port.isdigit():
            return socket.create_server((host, int(port)))
    except OSError as error:
        raise ConfigError(f"cannot listen at {address}: {error}") from error
    raise ConfigError(f"cannot listen at {address!r}: give unix:/path or tcp:host:port")


async def _listen(
    loop: asyncio.AbstractEventLoop, listener: socket.socket, service: Service
) -> asyncio.AbstractServer:
    create = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
    return await create(service.connect, sock=listener, backlog=_BACKLOG)


async def _finish_requests(loop: asyncio.AbstractEventLoop, service: Service) -> None:
    finished = loop.create_future()
    service.stop(lambda: None if finished.done() else finished.set_result(None))
    with suppress(TimeoutError):
        await asyncio.wait_for(finished, STOP_GRACE_S)


def _execution_parameters(server: ServerConfig, batch_strategy: str, payload_limit: int) -> dict[str, object]:
    return {
        "MaxConcurrentTransforms": server.vcpus,
        "BatchStrategy": batch_strategy,
        "MaxPayloadInMB": payload_limit >> 20,
    }


def _write_logs_to_stdout() -> None:
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as _file:  # noqa: PTH123  (the shortest way from a path to a configuration)
        _config = json.load(_file)
    os.environ.update(_config.get("environment", {}))
    sys.exit(main(_config))
