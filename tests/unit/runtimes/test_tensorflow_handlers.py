"""What becomes of the process with the models, which the scripts around TensorFlow Serving ask."""

import asyncio
import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PATIENCE_S = 60.0
PACKAGE = "clary.runtimes.frameworks.tensorflow"


class Sleeper:
    """In the place of a `ModelProcess` among others: it does nothing."""

    can_start_again = True

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(["sleep", "60"])
        self.pid = self._process.pid

    def await_end(self) -> str:
        self.ended.append(self.pid)
        return f"it exited with code {self._process.wait()}"

    def end(self) -> None:
        self._process.kill()


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, without what only the framework's own environment has: nothing of that is called here."""
    rest = ModuleType(f"{PACKAGE}.rest")
    rest.ModelProcess = Sleeper  # type: ignore[attr-defined]
    known = set(sys.modules)
    for module in (rest, ModuleType("orjson")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield importlib.import_module(f"{PACKAGE}.handlers")
    for name in set(sys.modules) - known:
        if name.startswith(PACKAGE):
            del sys.modules[name]


def test_H06_models_whose_end_would_not_be_seen_are_started_again(
    monkeypatch: pytest.MonkeyPatch, handlers: Any
) -> None:
    """There may be no descriptor for it: the process that nobody looks after is ended, and another one started."""
    asked: list[int] = []
    pidfd_open = os.pidfd_open

    def open_or_not(pid: int) -> int:
        asked.append(pid)
        if len(asked) == 2:  # for the one that was started again
            raise OSError(errno.EMFILE, "no more descriptors")
        return pidfd_open(pid)

    monkeypatch.setattr(os, "pidfd_open", open_or_not)
    monkeypatch.setattr(handlers, "FIRST_PAUSE_S", 0.0)
    process: Any = Sleeper()
    workers: Any = SimpleNamespace(submit=None, pids=(), close=lambda: None)

    async def run() -> None:
        handled = handlers._Handled(asyncio.get_running_loop(), workers, process)
        async with asyncio.timeout(PATIENCE_S):
            process.end()
            while len(asked) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert (process.ended, handled.pids) == (asked[:2], asked[2:])
            handled.close()
            while handled.pids:  # noqa: ASYNC110
                await asyncio.sleep(0)

    asyncio.run(run())
    assert process.ended == asked
