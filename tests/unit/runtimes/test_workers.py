"""Workers: scripts answer in processes of their own, and what they break is replaced."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from clary.runtimes import workers
from clary.runtimes.contract import InvocationHead, InvocationRequest, InvocationResponse, Limits, LoadError
from clary.runtimes.handler import Answers
from clary.runtimes.workers import ScriptedModel, settings_of

HEAD = InvocationHead("text/plain", None, "", (("x-a", "1"),))
PATIENCE_S = 60.0


class Obedient:
    """Does what the request's body says."""

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        match request.body.decode().split():
            case ["exit", code]:
                os._exit(int(code))
            case ["hang"]:
                signal.pause()
            case ["fork"]:
                os.fork()
            case ["leave", code]:
                if os.fork() == 0:
                    signal.alarm(30)
                    signal.pause()
                os._exit(int(code))
            case ["loop"]:
                return InvocationResponse(200, "text/plain", str(asyncio.run(_of_its_own())).encode())
            case _:
                pass
        assert request.head == HEAD
        return InvocationResponse(200, "text/plain", request.body + b" %d" % os.getpid(), "mine")


class Together(Obedient):
    """Answers up to three at once, and says how many there were."""

    most_together = 3

    def answer_all(self, requests: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        answers = [self.answer(request) for request in requests]
        return [answer._replace(custom_attributes=f"{len(requests)}") for answer in answers]


async def _of_its_own() -> int:
    return 7


def ask(
    bodies: list[bytes],
    *,
    count: int = 1,
    timeout_s: float = PATIENCE_S,
    load: Callable[[], Obedient] = Obedient,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> list[InvocationResponse]:
    """Hands all of them in at once; their answers, in their order."""
    model = ScriptedModel(load, count, timeout_s, Limits(1 << 20))

    async def run() -> list[InvocationResponse]:
        loop = asyncio.get_running_loop()
        workers = await model.dispatcher(loop)
        answers: asyncio.Future[Sequence[InvocationResponse]] = loop.create_future()
        workers.submit([InvocationRequest(HEAD, body) for body in bodies], answers.set_result)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return list(await answers)
        finally:
            workers.close()
            for _ in range(3):
                await asyncio.sleep(0)  # the transports close in the loop's next turns

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(run())


def test_H06_each_request_gets_its_own_answer() -> None:
    bodies = [b"r%d" % number for number in range(50)]
    answers = ask(bodies, count=2)
    assert [answer.body.split()[0] for answer in answers] == bodies
    assert {answer.custom_attributes for answer in answers} == {"mine"}


def test_H06_a_worker_that_answers_several_is_given_what_waits() -> None:
    bodies = [b"r%d" % number for number in range(7)]
    answers = ask(bodies, load=Together)
    assert [answer.body.split()[0] for answer in answers] == bodies
    assert [answer.custom_attributes for answer in answers] == ["3"] * 6 + ["1"]


def test_H06_a_worker_that_ends_costs_what_it_answered_together() -> None:
    answers = ask([b"a", b"exit 3", b"b", b"c"], load=Together)
    assert [answer.status for answer in answers] == [500, 500, 500, 200]


def test_H06_a_worker_that_ends_is_missed_although_what_it_forked_goes_on() -> None:
    """The child has the channel open, which does not close then."""
    answers = ask([b"leave 3", b"r1"], timeout_s=10 * PATIENCE_S)
    assert [answer.status for answer in answers] == [500, 200]
    assert b"exited with code 3" in answers[0].body


def test_H06_a_large_body_goes_there_and_back() -> None:
    body = b"x" * (8 << 20)
    assert ask([body])[0].body.startswith(body)


@pytest.mark.parametrize("order", ["exit 3", "exit 0"])
def test_H06_a_script_that_ends_its_process_costs_its_own_request_only(order: str) -> None:
    answers = ask([b"before", order.encode(), b"after", b"later"])
    assert [answer.status for answer in answers] == [200, 500, 200, 200]
    assert b"exited with code" in answers[1].body
    assert answers[2].body.split()[1] != answers[0].body.split()[1]  # another process


def test_H06_a_script_that_hangs_is_ended_after_its_time() -> None:
    answers: list[InvocationResponse] = []
    for timeout_s in (
        0.5,
        5.0,
        PATIENCE_S / 2,
    ):  # on a busy machine others may take as long as the shorter ones
        answers = ask([b"before", b"hang", b"after"], timeout_s=timeout_s)
        if [answer.status for answer in answers] == [200, 500, 200]:
            break
    assert [answer.status for answer in answers] == [200, 500, 200]
    assert b"SAGEMAKER_MODEL_SERVER_TIMEOUT" in answers[1].body


def test_H06_a_worker_that_cannot_be_replaced_now_is_replaced_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no more processes for a moment; what waits must not wait for ever."""
    lacks = [BlockingIOError("no more processes"), BlockingIOError("no more processes")]
    fork = workers._fork

    def fork_or_not(load: Callable[[], Answers], tells_why: bool) -> tuple[int, socket.socket]:
        if asyncio._get_running_loop() is not None and lacks:
            raise lacks.pop()
        return fork(load, tells_why)

    monkeypatch.setattr(workers, "_fork", fork_or_not)
    monkeypatch.setattr(workers, "FIRST_PAUSE_S", 0.0)
    answers = ask([b"exit 1", b"after"])
    assert ([answer.status for answer in answers], lacks) == ([500, 200], [])


@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_H06_a_worker_whose_end_would_not_be_seen_is_replaced(
    monkeypatch: pytest.MonkeyPatch, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """There may be no descriptor for it; on uvloop nobody hears of what fails when a connection is made."""
    asked: list[int] = []
    pidfd_open = os.pidfd_open

    def open_or_not(pid: int, flags: int = 0) -> int:
        asked.append(pid)
        if len(asked) == 2:  # the first replacement
            raise OSError(errno.EMFILE, "no more descriptors")
        return pidfd_open(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", open_or_not)
    monkeypatch.setattr(workers, "FIRST_PAUSE_S", 0.0)
    answers = ask([b"exit 1", b"after"], new_loop=new_loop)
    assert ([answer.status for answer in answers], len(asked)) == ([500, 200], 3)


def test_H06_a_script_that_forks_answers_once() -> None:
    assert [answer.status for answer in ask([b"fork", b"a", b"fork", b"b"])] == [200] * 4


def test_a_replacement_can_run_an_event_loop_of_its_own() -> None:
    assert ask([b"exit 1", b"loop"])[1].body == b"7"


def test_H06_a_script_that_ends_while_it_is_loaded_says_how() -> None:
    def load() -> Obedient:
        os.kill(os.getpid(), signal.SIGSEGV)
        return Obedient()

    with pytest.raises(LoadError, match="ended by SIGSEGV"):
        ask([], load=load)


def test_H06_a_script_that_does_not_load_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> Obedient:
        raise ImportError("nothing of the sort")

    with pytest.raises(LoadError, match="ImportError: nothing of the sort"):
        ask([], count=2, load=load)
    assert capfd.readouterr().err.count("Traceback") == 1


def test_a_script_that_exits_at_import_does_not_load() -> None:
    def load() -> Obedient:
        raise SystemExit(4)

    with pytest.raises(LoadError, match="SystemExit: 4"):
        ask([], load=load)


def test_M02_among_many_models_a_script_that_hangs_while_it_loads_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load() -> Obedient:
        signal.pause()
        return Obedient()

    monkeypatch.setattr(workers, "LONGEST_LOAD_S", 0.1)
    with ThreadPoolExecutor(1) as pool:  # where a server of many loads
        loading = pool.submit(ScriptedModel, load, 1, 60.0, Limits(100))
        with pytest.raises(LoadError, match=r"did not load its model within 0\.1 s"):
            loading.result(60)


def test_workers_and_time_are_settings() -> None:
    set_so = {"SAGEMAKER_MODEL_SERVER_WORKERS": "3", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "7"}
    assert settings_of(set_so, 1) == (3, 7.0)
    assert settings_of({**set_so, "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "8"}, 1) == (3, 8.0)
    assert settings_of({}, 1) == (1, 60.0)
    assert settings_of({}, 10_000)[0] == len(os.sched_getaffinity(0))
    for name in set_so:
        with pytest.raises(LoadError, match=name):
            settings_of({name: "none"}, 1)


def test_the_server_s_files_are_not_open_in_a_worker(tmp_path: Path) -> None:
    class Nosy:
        def answer(self, request: InvocationRequest) -> InvocationResponse:
            names = []
            for descriptor in Path("/proc/self/fd").iterdir():
                with suppress(FileNotFoundError):  # that of the look itself
                    names.append(str(descriptor.readlink()))
            return InvocationResponse(200, "text/plain", "\n".join(names).encode())

    with (tmp_path / "secret").open("w"):
        answer = ask([b""], load=Nosy)[0]  # type: ignore[arg-type]
    assert answer.status == 200 and b"socket:" in answer.body
    assert b"secret" not in answer.body
