"""Many models in one server: loaded, called and unloaded while it serves, by the `/models` contract of multi-model
containers.

A built-in handler's models share this process: one interpreter and one library for all of them, and a load costs what
reading the file costs. A script's model is a process of its own (`clary.runtimes.workers`), so that whatever it holds
is gone for certain when it is unloaded. Models are loaded on threads, because a load may take long and the others go
on answering meanwhile; everything else happens on the loop.

Nothing is evicted here. A model that does not fit is refused with 507, and whoever sent it unloads others first.
"""

import asyncio
import gc
import json
import logging
import os
import re
import signal
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from clary.runtimes import models_memory
from clary.runtimes.batching import Batcher
from clary.runtimes.contract import (
    Deliver,
    Dispatcher,
    InvocationRequest,
    InvocationResponse,
    Load,
    LoadError,
    Model,
    Scripted,
)
from clary.runtimes.models_memory import Memory

LOADS_AT_ONCE = 64
LONGEST_LOAD_S = 355.0
"""A little less than the platform waits, so that it hears why."""
LISTED_AT_ONCE = 1000
DRAIN_S = 60.0
GIVE_BACK_AFTER_S = 1.0
WORKERS = "SAGEMAKER_MODEL_SERVER_WORKERS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_PLAIN = "text/plain; charset=utf-8"

_Read = tuple[Model | Scripted, int]

log = logging.getLogger(__name__)


class Loaded:
    """One model that answers."""

    def __init__(
        self,
        name: str,
        url: str,
        dispatcher: Dispatcher,
        max_payload_bytes: int,
        memory_bytes: int,
        *,
        is_scripted: bool,
        model: "weakref.ref[object] | None" = None,
    ) -> None:
        self.name = name
        self.url = url
        self.max_payload_bytes = max_payload_bytes
        self.memory_bytes = memory_bytes
        self.is_scripted = is_scripted
        self.model = model
        self._dispatcher = dispatcher
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def workers(self) -> Sequence[int]:
        """The processes that hold it, besides the server's own."""
        pids: Sequence[int] = getattr(self._dispatcher, "pids", ())
        return pids

    def submit(self, requests: Sequence[InvocationRequest], deliver: Deliver) -> None:
        if not self._under_way:
            self._idle.clear()
        self._under_way += 1
        self._dispatcher.submit(requests, partial(self._deliver, deliver))

    async def close(self) -> None:
        """Ends it when what it was asked is answered. Nothing is submitted any more."""
        try:
            await asyncio.wait_for(self._idle.wait(), DRAIN_S)
        except TimeoutError:
            log.warning("a model is unloaded although requests are under way")
        self._dispatcher.close()
        while self.workers:  # noqa: ASYNC110  each is gone a moment after its channel has closed
            await asyncio.sleep(0.001)

    def _deliver(self, deliver: Deliver, responses: Sequence[InvocationResponse]) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()
        deliver(responses)


class Shelf:
    """The models of a server. Belongs to one event loop; see `contract.Dispatcher` for `submit` and `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        load: Load,
        environment: Mapping[str, str],
        vcpus: int,
        memory: Memory,
    ) -> None:
        self._loop = loop
        self._load_model = load
        # Of a script one process a model, unless its author wants more.
        self._environment = {WORKERS: "1", **environment}
        self._vcpus = vcpus
        self._memory = memory
        self.loaded: dict[str, Loaded] = {}
        self._loading: dict[str, asyncio.Task[InvocationResponse]] = {}
        self._turns = asyncio.Semaphore(LOADS_AT_ONCE)
        self._predictors = ThreadPoolExecutor(vcpus, thread_name_prefix="predict")
        self._giving_back = False
        self._stuck: set[str] = set()

    def submit(self, requests: Sequence[InvocationRequest], deliver: Deliver) -> None:
        """What names no model."""
        refusal = _text(404, "Not Found: this server holds many models: POST /models/NAME/invoke asks one")
        self._loop.call_soon(deliver, [refusal] * len(requests))

    def close(self) -> None:
        self._predictors.shutdown(wait=False, cancel_futures=True)
        for each in self.loaded.values():
            self._loop.create_task(each.close())

    async def load(self, name: str, url: str) -> InvocationResponse:
        """Status 200, 409 (it is there), 507 (no memory) or 500 with what its author should know."""
        if name in self.loaded:
            return _text(409, f"Model {name} is loaded already")
        if not _NAME.fullmatch(name) or not os.path.isdir(url):  # noqa: ASYNC240,PTH112  one look at a local disk
            return _text(400, f"there is no model at {url!r}, or {name!r} is no usable name")
        task = self._loading.get(name)
        if task is None:
            task = self._loading[name] = self._loop.create_task(self._load(name, url))
            task.add_done_callback(lambda _: self._loading.pop(name, None))
        return await asyncio.shield(task)

    async def unload(self, name: str) -> InvocationResponse:
        if (task := self._loading.get(name)) is not None:
            await asyncio.shield(task)
        loaded = self.loaded.pop(name, None)
        if loaded is None:
            return _not_found(name)
        await loaded.close()
        model = loaded.model
        del loaded
        if model is not None and model() is not None:  # a handler with cycles: it needs the collector
            gc.collect()
        self._give_back_soon()
        log.info("model unloaded: %s", name)
        return _json({"status": f"Model {name} unloaded"})

    def describe(self, name: str) -> InvocationResponse:
        found = self.loaded.get(name)
        return _not_found(name) if found is None else _json(_entry(found))

    def list(self, token: str) -> InvocationResponse:
        """A page; `token` is the last name of the page before."""
        names = sorted(name for name in self.loaded if name > token)
        page: dict[str, object] = {"models": [_entry(self.loaded[name]) for name in names[:LISTED_AT_ONCE]]}
        if len(names) > LISTED_AT_ONCE:
            page["nextPageToken"] = names[LISTED_AT_ONCE - 1]
        return _json(page)

    async def _load(self, name: str, url: str) -> InvocationResponse:
        path = Path(url)
        size_bytes = models_memory.size_of_files(path)
        if lack := self._lack(size_bytes):
            return _text(507, f"no memory for {name}: {lack}")
        if name in self._stuck:
            return _text(500, "model did not load: an earlier load of it has not come to an end")
        try:
            async with self._turns:
                read = self._on_a_thread(name, partial(self._read, path, size_bytes))
                model, memory_bytes = await asyncio.wait_for(read, LONGEST_LOAD_S)
            dispatcher = await self._dispatcher(model)
        except LoadError as error:
            return _text(500, f"model did not load: {error}")
        except TimeoutError:
            return _text(500, f"model did not load: it was not ready within {LONGEST_LOAD_S:g} s")
        except MemoryError as error:
            return _text(507, f"no memory for {name}: {str(error) or 'the system gave no more'}")
        loaded = Loaded(
            name,
            url,
            dispatcher,
            model.limits.max_payload_bytes,
            memory_bytes,
            is_scripted=isinstance(model, Scripted),
            model=_weakly(model),
        )
        del model, dispatcher
        excess = self._memory.exceeds(memory_bytes)
        if lack := excess or self._lack(0, memory_bytes):
            await loaded.close()
            del loaded
            self._give_back_soon()
            # What would not fit into an empty instance either is no reason to unload others.
            return _text(500 if excess else 507, f"no memory for {name}: {lack}")
        self.loaded[name] = loaded
        return _json(_entry(loaded) | {"status": f"Model {name} loaded"})

    def _lack(self, wanted_bytes: int, loaded_bytes: int = 0) -> str:
        loaded = self.loaded.values()
        taken = sum(each.memory_bytes for each in loaded) + loaded_bytes
        return self._memory.lacks(wanted_bytes, taken, [pid for each in loaded for pid in each.workers])

    def _read(self, path: Path, size_bytes: int) -> _Read:
        """On a thread of its own. Raises `LoadError`, whatever went wrong."""
        try:
            with self._memory.measuring(size_bytes) as found:
                model = self._load_model(path, self._environment, self._vcpus)
        except (LoadError, MemoryError):
            raise
        except BlockingIOError as error:  # no more processes: those of other models are in the way
            raise MemoryError(str(error)) from error
        except BaseException as error:  # whatever code of the user's does: `sys.exit` ends no server
            traceback.print_exc()
            raise LoadError(f"{type(error).__name__}: {error}") from error
        pids = getattr(model, "pids", ())
        workers_bytes = sum(models_memory.exact_bytes(pid) for pid in pids)
        return model, workers_bytes if pids else found.bytes

    async def _on_a_thread(self, name: str, work: Callable[[], _Read]) -> _Read:
        """A new one each time: libraries keep things for each thread that called them, and give them up with it.

        What the thread has read is taken from it, so that it holds no model when it ends a little later: a model that
        is unloaded at once would go in the middle of another one's measurement.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        outcome: list[_Read | BaseException] = []

        def tell() -> None:
            self._stuck.discard(name)
            if done.done():  # it took too long, and nobody waits for it any more
                _abandon(outcome.pop())
            else:
                done.set_result(None)

        def run() -> None:
            try:
                outcome.append(work())
            except BaseException as error:  # noqa: BLE001  it goes on where it is waited for
                outcome.append(error)
            with suppress(RuntimeError):  # the server has ended meanwhile
                self._loop.call_soon_threadsafe(tell)

        try:
            threading.Thread(target=run, name="load", daemon=True).start()
        except RuntimeError as error:  # no more threads
            raise MemoryError(str(error)) from error
        self._stuck.add(name)  # until it is told
        try:
            await done
        except asyncio.CancelledError:
            if not done.cancelled():  # told and given up in one turn of the loop
                _abandon(outcome.pop())
            raise
        found = outcome.pop()
        if isinstance(found, BaseException):
            raise found
        return found

    async def _dispatcher(self, model: Model | Scripted) -> Dispatcher:
        if isinstance(model, Scripted):
            return await model.dispatcher(self._loop)
        return Batcher(self._loop, model, self._vcpus, self._predictors)

    def _give_back_soon(self) -> None:
        """Once for all models that are unloaded within a moment."""
        if not self._giving_back:
            self._giving_back = True
            self._loop.call_later(GIVE_BACK_AFTER_S, self._give_back)

    def _give_back(self) -> None:
        self._giving_back = False
        with suppress(RuntimeError):  # the server has ended meanwhile
            self._predictors.submit(models_memory.give_back)


def _abandon(read: _Read | BaseException) -> None:
    """Ends the processes of a model that came too late."""
    for pid in getattr(read[0], "pids", ()) if isinstance(read, tuple) else ():
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _weakly(model: object) -> "weakref.ref[object] | None":
    try:
        return weakref.ref(model)
    except TypeError:  # it has slots, and none for that
        return None


def _entry(loaded: Loaded) -> dict[str, object]:
    """The contract's two members, and what the platform shows besides."""
    return {
        "modelName": loaded.name,
        "modelUrl": loaded.url,
        "memoryBytes": loaded.memory_bytes,
        "runsScript": loaded.is_scripted,
    }


def _json(content: Mapping[str, object]) -> InvocationResponse:
    return InvocationResponse(200, "application/json", json.dumps(content).encode())


def _text(status: int, text: str) -> InvocationResponse:
    return InvocationResponse(status, _PLAIN, text.encode("utf-8", "replace"))


def _not_found(name: str) -> InvocationResponse:
    return _text(404, f"Model not found: {name}")
