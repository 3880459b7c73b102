"""The gateway's calls of the host: many at a time, on connections that may have gone stale meanwhile."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from clary.domain.instances import InstanceId
from clary.gateway import host_link
from clary.gateway.host_link import HostLink
from clary.links import hosts
from clary.links.hosts import HostError, HostUnavailable, LoadedModel, LoadModel


class Host:
    """A host's end of the link that a test may end and begin again. Loads wait until `let_go`, if they are to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.let_go = threading.Event()
        self.let_go.set()
        self.arrived = threading.Semaphore(0)  # one for each load
        self.server: hosts.HostServer
        self.begin()

    def begin(self) -> None:
        self.server = hosts.HostServer(self.path, {"load_model": hosts.handler(LoadModel, self._load)})

    def _load(self, wanted: LoadModel) -> LoadedModel:
        self.arrived.release()
        if wanted.target_model == "absent":
            raise HostError("ModelMissing", "nothing there")
        self.let_go.wait(60)
        return LoadedModel(f"{wanted.target_model}-name", was_loaded=False)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "h.sock")
    yield made
    made.let_go.set()
    made.server.close()


async def load(link: HostLink, model: str, timeout_s: float = 60.0) -> str:
    wanted = LoadModel(InstanceId("i-1"), model)
    return (await link.call("load_model", wanted, LoadedModel, timeout_s)).name


def test_M02_calls_answer_or_say_why_not(host: Host) -> None:
    async def work() -> None:
        link = HostLink(host.path)
        assert await load(link, "a") == "a-name"
        with pytest.raises(HostError) as refused:
            await load(link, "absent")
        assert refused.value.code == "ModelMissing"
        with pytest.raises(HostError) as refused:
            await link.call("sing", {}, str, 60.0)
        assert refused.value.code == "UnknownOperation"
        link.close()

    asyncio.run(work())


def test_M02_many_calls_go_on_beside_each_other_and_the_rest_wait_for_a_turn(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_link, "MOST_CALLS", 8)

    async def work() -> None:
        link = HostLink(host.path)
        host.let_go.clear()
        calls = [asyncio.create_task(load(link, str(number))) for number in range(20)]
        for _ in range(8):
            await asyncio.to_thread(host.arrived.acquire)
        assert not host.arrived.acquire(blocking=False)
        host.let_go.set()
        assert await asyncio.gather(*calls) == [f"{number}-name" for number in range(20)]
        link.close()

    asyncio.run(work())


def test_Z02_a_host_that_was_restarted_is_asked_on_a_new_connection(host: Host) -> None:
    async def work() -> None:
        link = HostLink(host.path)
        await asyncio.gather(*(load(link, str(number)) for number in range(4)))
        await asyncio.to_thread(host.server.close)
        with pytest.raises(HostUnavailable, match="no host answers"):
            await load(link, "a")
        host.begin()
        assert await load(link, "a") == "a-name"
        link.close()

    asyncio.run(work())


def test_Z02_an_idle_connection_that_has_ended_is_passed_by(host: Host) -> None:
    async def work() -> None:
        link = HostLink(host.path)
        await asyncio.gather(*(load(link, str(number)) for number in range(2)))
        for _, writer in link._idle:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        assert await load(link, "a") == "a-name"
        link.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # there, writing to such a one raises
        runner.run(work())


def test_Z02_a_host_that_does_not_answer_is_waited_for_only_so_long(host: Host) -> None:
    async def work() -> None:
        link = HostLink(host.path)
        host.let_go.clear()
        with pytest.raises(HostUnavailable, match=r"did not answer in 0\.05 s"):
            await load(link, "a", 0.05)
        host.let_go.set()
        link.close()

    asyncio.run(work())


def test_Z02_an_answer_that_makes_no_sense_is_no_answer(tmp_path: Path) -> None:
    def answer(_: Any) -> object:
        return "no model"

    server = hosts.HostServer(tmp_path / "h.sock", {"load_model": answer})

    async def work() -> None:
        link = HostLink(tmp_path / "h.sock")
        with pytest.raises(HostUnavailable, match="makes no sense"):
            await load(link, "a")
        link.close()

    asyncio.run(work())
    server.close()
