"""Many models in one server: the `/models` contract, whose answer is whose, and memory that comes back."""

import asyncio
import errno
import gc
import json
import os
import statistics
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import xgboost

from clary.runtimes import models_memory
from clary.runtimes.contract import InvocationRequest, InvocationResponse, Limits, LoadError
from clary.runtimes.frameworks.xgboost.model import load as load_xgboost
from clary.runtimes.models import Shelf
from clary.runtimes.models_connection import ModelsService, split
from clary.runtimes.models_memory import Memory
from unit.runtimes.test_connection import Transport

HOLD = threading.Event()


class Named:
    """Answers with its own name, and with what it was sent."""

    def __init__(self, name: str) -> None:
        self.limits = Limits(100)
        self._name = name
        self.myself = self  # a cycle, as frameworks have them

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        return [
            InvocationResponse(200, "text/csv", f"{self._name}:{body.decode()}".encode()) for _, body in batch
        ]


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> Named:
    name = (model_dir / "name").read_text()
    if name == "bad":
        raise LoadError("it is bad")
    if name == "exits":
        sys.exit("it wants everything to end")
    if name == "forks":
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    if name == "hangs":
        HOLD.wait(30)
    return Named(name)


class Server:
    def __init__(self, root: Path, memory: Memory) -> None:
        self._root = root
        self.shelf = Shelf(asyncio.get_running_loop(), load, {}, 1, memory)
        self.service = ModelsService(self.shelf, 1000, {})
        self.connection = self.service.connect()
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def make(self, name: str) -> str:
        folder = self._root / name
        folder.mkdir()
        (folder / "name").write_text(name)
        return str(folder)

    async def send(self, *requests: bytes) -> list[tuple[int, str]]:
        """All in one piece; as many answers."""
        self.transport.written = b""
        self.connection.data_received(b"".join(requests))
        while (found := self._answers()) is None or len(found) < len(requests):  # noqa: ASYNC110
            await asyncio.sleep(0)
        return found

    async def call(self, method: str, target: str, body: object = None) -> tuple[int, str]:
        (answer,) = await self.send(request(method, target, "" if body is None else json.dumps(body)))
        return answer

    async def put(self, name: str) -> tuple[int, str]:
        return await self.call("POST", "/models", {"model_name": name, "url": self.make(name)})

    def _answers(self) -> list[tuple[int, str]] | None:
        found = []
        data = self.transport.written
        while data:
            head, _, rest = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(rest) < length:
                return None
            found.append((int(head[9:12]), rest[:length].decode()))
            data = rest[length:]
        return found


def request(method: str, target: str, body: str = "", target_model: str = "") -> bytes:
    told = f"x-amzn-sagemaker-target-model: {target_model}\r\n" if target_model else ""
    head = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n{told}content-type: text/csv\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


def invoke(name: str, body: str) -> bytes:
    return request("POST", f"/models/{name}/invoke", body, f"{name}.tar.gz")


def on_server(root: Path, story: Callable[[Server], Awaitable[None]], memory: Memory | None = None) -> None:
    async def run() -> None:
        server = Server(root, memory or Memory(1 << 40))
        try:
            await asyncio.wait_for(story(server), 60)
        finally:
            server.shelf.close()

    asyncio.run(run())


def test_M02_the_contract_s_routes(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        assert (await server.call("GET", "/models")) == (200, '{"models": []}')
        assert (await server.put("a"))[0] == 200
        again = {"model_name": "a", "url": str(tmp_path / "a")}
        assert (await server.call("POST", "/models", again))[0] == 409
        listed = json.loads((await server.call("GET", "/models"))[1])
        assert [(each["modelName"], each["modelUrl"]) for each in listed["models"]] == [
            ("a", str(tmp_path / "a"))
        ]
        assert json.loads((await server.call("GET", "/models/a"))[1])["runsScript"] is False
        assert await server.send(invoke("a", "1,2")) == [(200, "a:1,2")]
        assert (await server.call("DELETE", "/models/a"))[0] == 200
        for method, target in (("DELETE", "/models/a"), ("GET", "/models/a"), ("POST", "/models/a/invoke")):
            assert await server.call(method, target) == (404, "Model not found: a")
        assert await server.call("GET", "/ping") == (200, "")

    on_server(tmp_path, story)


def test_M02_a_load_that_ends_in_any_way_is_answered_and_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def story(server: Server) -> None:
        status, text = await server.put("exits")
        assert (status, "it wants everything to end" in text) == (500, True)
        status, text = await server.put("forks")
        assert (status, "Resource temporarily unavailable" in text) == (507, True)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            assert (await server.put("threads"))[0] == 507
        monkeypatch.setattr(server.shelf, "_dispatcher", None)  # a mistake of ours
        assert (await server.put("mistake"))[0] == 500

    on_server(tmp_path, story)


def test_M02_a_load_that_hangs_is_given_up_and_not_begun_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HOLD.clear()
    monkeypatch.setattr("clary.runtimes.models.LONGEST_LOAD_S", 0.01)

    async def story(server: Server) -> None:
        assert "was not ready within 0.01 s" in (await server.put("hangs"))[1]
        again = {"model_name": "hangs", "url": str(tmp_path / "hangs")}
        status, text = await server.call("POST", "/models", again)
        assert (status, "has not come to an end" in text) == (500, True)
        monkeypatch.setattr("clary.runtimes.models.LONGEST_LOAD_S", 30)
        HOLD.set()
        while (await server.call("POST", "/models", again))[0] != 200:
            pass
        assert await server.send(invoke("hangs", "1")) == [(200, "hangs:1")]

    on_server(tmp_path, story)


def test_M02_a_load_that_comes_in_the_moment_it_is_given_up_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scripted:
        limits = Limits(100)
        pids = (1, 2)

    ended: list[int] = []
    monkeypatch.setattr(
        threading.Thread, "start", threading.Thread.run
    )  # its outcome is told in the next turn
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append(pid))
    monkeypatch.setattr(os, "waitpid", lambda pid, options: (pid, 0))

    async def story(server: Server) -> None:
        loading = asyncio.ensure_future(server.shelf._on_a_thread("m", lambda: (Scripted(), 0)))  # type: ignore[arg-type,return-value]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert ended == [1, 2]

    on_server(tmp_path, story)


def test_M02_what_is_asked_wrongly_is_refused_in_words(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        assert (await server.put("bad")) == (500, "model did not load: it is bad")
        assert (await server.call("POST", "/models", {"model_name": "x"}))[0] == 400
        assert (await server.call("POST", "/models", {"model_name": "../x", "url": str(tmp_path)}))[0] == 400
        assert (await server.call("POST", "/models", {"model_name": "x", "url": "/nowhere"}))[0] == 400
        assert (await server.call("PUT", "/models"))[0] == 405
        assert (await server.call("GET", "/models/a/b"))[0] == 404
        await server.put("a")
        assert (await server.call("GET", "/models/a/invoke"))[0] == 405
        for _ in range(2):  # the second with a head that is known
            assert (await server.send(invoke("a", "x" * 101)))[0][0] == 413
        ((status, text),) = await server.send(request("POST", "/invocations", "1"))
        assert (status, "POST /models/NAME/invoke" in text) == (404, True)

    on_server(tmp_path, story)


def test_M02_requests_of_several_models_in_one_piece_are_answered_in_their_order(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        for name in "abc":
            await server.put(name)
        bodies = [(name, str(number)) for number, name in enumerate("abacbbca" * 5)]
        expected = [(200, f"{name}:{body}") for name, body in bodies]
        for _ in range(3):  # at first no head is known
            assert await server.send(*(invoke(name, body) for name, body in bodies)) == expected
        await server.call("DELETE", "/models/b")
        answers = await server.send(*(invoke(name, body) for name, body in bodies[:5]))
        assert [status for status, _ in answers] == [200, 404, 200, 200, 404]

    on_server(tmp_path, story)


def test_M02_a_list_has_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clary.runtimes.models.LISTED_AT_ONCE", 2)

    async def story(server: Server) -> None:
        for name in "abcde":
            await server.put(name)
        found: list[str] = []
        token = ""
        while True:
            page = json.loads((await server.call("GET", f"/models?next_page_token={token}"))[1])
            found += [each["modelName"] for each in page["models"]]
            if not (token := page.get("nextPageToken", "")):
                break
        assert found == list("abcde")

    on_server(tmp_path, story)


def test_M02_one_that_does_not_fit_is_507_and_what_is_unloaded_is_gone(tmp_path: Path) -> None:
    async def story(server: Server) -> None:
        await server.put("a")
        model = server.shelf.loaded["a"].model
        assert model is not None
        server.shelf._memory.limit_bytes = 1
        status, text = await server.put("b")
        assert (status, "no memory for b" in text) == (507, True)
        await server.call("DELETE", "/models/a")
        assert model() is None, "also one with cycles"

    on_server(tmp_path, story)


def test_M02_memory_of_unloaded_models_comes_back(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    booster = xgboost.train({"max_depth": 6}, xgboost.DMatrix(rows, rows[:, 0]), num_boost_round=30)
    booster.save_model(tmp_path / "model.ubj")
    each = (tmp_path / "model.ubj").stat().st_size

    async def run() -> None:
        shelf = Shelf(asyncio.get_running_loop(), load_xgboost, {}, 1, Memory(1 << 40))

        measured: list[int] = []

        async def in_and_out(times: int) -> None:
            for _ in range(times):
                assert (await shelf.load("m", str(tmp_path))).status == 200
                measured.append(shelf.loaded["m"].memory_bytes)
                assert (await shelf.unload("m")).status == 200

        gc.collect()  # what other tests left is not to go in the middle of a measurement
        await in_and_out(5)  # whatever is made once
        before = models_memory.allocated_bytes()
        await in_and_out(40)
        assert models_memory.allocated_bytes() - before < 5 * each
        # Of them all: the thread of the load before may give up its own things in the middle of any one.
        assert statistics.median(measured) > each // 2
        shelf.close()

    asyncio.run(run())


def test_the_lines_that_name_the_model_are_told_from_the_rest() -> None:
    first, second = invoke("a", "1"), invoke("b", "1")
    ends = [data.index(b"\r\n\r\n") + 4 for data in (first, second)]
    (lines, rest), (others, same) = split(first, 0, ends[0]), split(second, 0, ends[1])
    assert lines == b"POST /models/a/invoke HTTP/1.1\r\nx-amzn-sagemaker-target-model: a.tar.gz\r\n"
    assert others != lines
    assert rest == same
    assert rest.endswith(b"\r\n\r\n")
    last = b"POST /models/a/invoke HTTP/1.1\r\nhost: x\r\nx-amzn-sagemaker-target-model: a\r\n\r\n"
    assert split(last, 0, len(last))[1] == b"host: x\r\n\r\n"
    assert split(request("GET", "/ping"), 0, 40)[0] == b"GET /ping HTTP/1.1\r\n"


def test_memory_is_measured_over_a_load_and_shared_by_size_when_loads_overlap() -> None:
    memory = Memory(1 << 40)
    gc.collect()  # what other tests left is not to go meanwhile
    with memory.measuring(10) as alone:
        kept = [b"x" * (32 << 20)]
    assert abs(alone.bytes - (32 << 20)) < 1 << 20
    with memory.measuring(30) as first, memory.measuring(10) as second:
        kept.append(b"x" * (32 << 20))
    assert abs(first.bytes - 3 * second.bytes) < 1 << 20
    assert memory.lacks(0, 0) == ""
    assert "may take" in Memory(1 << 40, 100).lacks(60, 50)
    assert "may take" in Memory(1).lacks(0, 0)
    assert Memory(100).exceeds(101)
    assert models_memory.exact_bytes() > 0
    del kept
