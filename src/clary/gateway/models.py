"""Has models loaded where they are called, and tells the host which are in use.

The host does the work: fetches, unpacks, loads, decides what goes when there is no room. A gateway asks it once for
each model at a target, however many calls wait. Nobody waits longer than its own time; the load goes on without
them, and finds those who come again. One that hangs holds up only who wants that model.

Uses are told once a second, together. While the host is away they add up, models that are known are called as
before, and those that wait for a load hear that there is no host.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from logging import getLogger
from typing import Final, Protocol, TypeVar

from clary.domain.instances import InstanceId
from clary.gateway.models_book import Book, Loading, Resident, Waiter
from clary.gateway.plans import TargetState
from clary.links.hosts import (
    HostError,
    HostUnavailable,
    LoadedModel,
    LoadModel,
    ModelUse,
    UnloadModels,
    UseModels,
)

log = getLogger(__name__)

NOT_LOADED: Final = 404
"""What a container answers for a model that it does not hold."""

LONGEST_WAIT_S: Final = 60.0
"""For a model to be loaded; then its callers are told to try again."""

TELL_S: Final = 1.0

ASK_S: Final = 2.0
"""So long the host is asked for a load at a time, then again: the link has only so many turns, and loads that hang must
not keep all of them from other models."""

_LEAST_WAIT_S = 0.05
_MARGIN_S = 5.0  # the host keeps the time; this is for one that does not answer at all
_CALL_TIMEOUT_S = 30.0

T = TypeVar("T")


class AsksHost(Protocol):
    """The link to the host (`host_link.HostLink`)."""

    async def call(self, operation: str, arguments: object, result: type[T], timeout_s: float) -> T:
        """Raises `HostError`, `HostUnavailable`."""


class Models:
    """One for a gateway."""

    def __init__(
        self, host: AsksHost, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.time
    ) -> None:
        """`now` is in seconds since the epoch."""
        self._host = host
        self._loop = loop
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()
        self._used: list[tuple[InstanceId, Resident]] = []  # since the host was told last
        self._is_telling = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Tells the host what is used, from now on until `close`."""
        self.tell()
        self._timer = self._loop.call_later(TELL_S, self.start)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def used(self, instance_id: InstanceId, resident: Resident) -> None:
        """A call of the model goes there."""
        if not resident.calls:
            self._used.append((instance_id, resident))
        resident.calls += 1
        resident.last_at = self._now()

    def wait(self, target: TargetState, model: str, waiter: Waiter) -> None:
        """Has the waiter told when the model can be called at the target, or why it cannot."""
        book = book_of(target)
        book.waiting += 1
        loading = book.loading.get(model)
        if loading is None:
            loading = book.loading[model] = Loading()
            self._spawn(self._load(target, book, model, loading))
        loading.waiters.append(waiter)

    def unload(self, target: TargetState, model: str, resident: Resident) -> None:
        """Takes it out of the target's memory; loads that are asked for meanwhile come after it."""
        book = book_of(target)
        book.forget(model, resident)
        if model not in book.leaving:
            book.leaving[model] = asyncio.Event()
            self._spawn(self._unload(target, book, model, resident.name))

    def tell(self) -> None:
        """Tells the host what was used since the last time."""
        if self._used and not self._is_telling:
            self._is_telling = True
            used, self._used = self._used, []
            self._spawn(self._tell(used))

    # Inside.

    async def _load(self, target: TargetState, book: Book, model: str, loading: Loading) -> None:
        is_first = True
        try:
            if (leaving := book.leaving.get(model)) is not None:
                await leaving.wait()
            while loading.waiters:
                try:
                    loaded = await self._ask(target, model, self._patience_s(loading))
                    break
                except HostError as error:
                    if error.code != "ModelTimeout":
                        raise
                    is_first = False
                    self._send_away(book, loading, str(error))
            else:
                return  # nobody waits any more
        except HostError as error:
            self._refuse(book, _ended(book, model), error.code, str(error))
        except HostUnavailable as error:
            is_late = self._patience_s(loading) <= _LEAST_WAIT_S  # the host has no turn for it, or hangs
            code = "ModelTimeout" if is_late else "HostUnavailable"
            self._refuse(book, _ended(book, model), code, str(error))
        except Exception as error:
            log.exception("a model could not be asked for")
            self._refuse(book, _ended(book, model), "Internal", str(error))
        else:
            resident = book.add(model, loaded.name, runs_script=loaded.runs_script)
            for waiter in _taken(book, _ended(book, model)):
                _notify(waiter.on_loaded, resident, loaded.was_loaded and is_first)
        finally:
            if book.loading.get(model) is loading:
                del book.loading[model]

    async def _ask(self, target: TargetState, model: str, timeout_s: float) -> LoadedModel:
        arguments = LoadModel(target.instance_id, model, min(timeout_s, ASK_S))
        return await self._host.call("load_model", arguments, LoadedModel, timeout_s + _MARGIN_S)

    def _patience_s(self, loading: Loading) -> float:
        first = min(waiter.waits_until for waiter in loading.waiters)
        return max(_LEAST_WAIT_S, first - self._loop.time())

    def _send_away(self, book: Book, loading: Loading, message: str) -> None:
        """Those whose time is over; the others go on waiting, for the same load."""
        until = self._loop.time() + _LEAST_WAIT_S
        waiters, loading.waiters = loading.waiters, []
        late: list[Waiter] = []
        for waiter in waiters:
            (late if waiter.waits_until <= until else loading.waiters).append(waiter)
        self._refuse(book, late, "ModelTimeout", message)

    def _refuse(self, book: Book, waiters: list[Waiter], code: str, message: str) -> None:
        for waiter in _taken(book, waiters):
            _notify(waiter.on_not_loaded, code, message)

    async def _unload(self, target: TargetState, book: Book, model: str, name: str) -> None:
        try:
            ask = UnloadModels(target.instance_id, (name,))
            await self._host.call("unload_models", ask, type(None), _CALL_TIMEOUT_S)
        except (HostError, HostUnavailable) as error:
            log.warning(
                "a model could not be unloaded",
                extra={"instance": target.instance_id, "model": model, "error": str(error)},
            )
        finally:
            book.leaving.pop(model).set()

    async def _tell(self, used: list[tuple[InstanceId, Resident]]) -> None:
        uses = tuple(ModelUse(id_, each.name, each.calls, each.last_at) for id_, each in used)
        for _, resident in used:
            resident.calls = 0
        try:
            await self._host.call("use_models", UseModels(uses), type(None), _CALL_TIMEOUT_S)
        except HostError as error:
            log.warning("the host did not take what models are used", extra={"error": str(error)})
        except HostUnavailable:  # it is told next time, and the supervisor says why it is away
            self._take_back(used, uses)
        finally:
            self._is_telling = False

    def _take_back(self, used: list[tuple[InstanceId, Resident]], uses: tuple[ModelUse, ...]) -> None:
        for (id_, resident), use in zip(used, uses, strict=True):
            if not resident.calls:
                self._used.append((id_, resident))
                resident.last_at = use.last_at
            resident.calls += use.calls

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def book_of(target: TargetState) -> Book:
    assert target.book is not None, "only of targets with many models"
    return target.book


def _ended(book: Book, model: str) -> list[Waiter]:
    """Those who waited; whoever comes now begins anew."""
    return book.loading.pop(model).waiters


def _taken(book: Book, waiters: list[Waiter]) -> list[Waiter]:
    """They wait no longer."""
    book.waiting -= len(waiters)
    return waiters


def _notify(what: Callable[..., None], *said: object) -> None:
    try:
        what(*said)
    except Exception:  # a bug with one call must not cost the others theirs
        log.exception("a call whose model is loaded could not go on")
