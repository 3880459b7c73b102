"""The link between control and host: errors keep their kind, and a restarted host is met again unnoticed."""

import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clary.domain.instances import InstanceId, InstanceStatus
from clary.links import frames
from clary.links.hosts import Handler, HostClient, HostError, HostServer, HostUnavailable, Wait, handler
from scarce_threads import refuse_threads


def refuse(arguments: Wait) -> int:
    raise HostError("NoWay", "it will not")


def fail(arguments: Wait) -> int:
    raise ZeroDivisionError("oh")


HANDLERS: dict[str, Handler] = {
    "double": handler(Wait, lambda arguments: arguments.seen * 2),
    "status": handler(Wait, lambda arguments: [InstanceStatus(InstanceId("i-1"), "missing")]),
    "refuse": handler(Wait, refuse),
    "fail": handler(Wait, fail),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host.sock"


@pytest.fixture
def client(path: Path) -> Iterator[HostClient]:
    client = HostClient(path)
    yield client
    client.close()


@pytest.fixture
def server(path: Path) -> Iterator[HostServer]:
    server = HostServer(path, HANDLERS)
    yield server
    server.close()


def test_calls_carry_typed_values_both_ways(server: HostServer, client: HostClient) -> None:
    assert client.call("double", Wait(21, 0), int) == 42
    found = client.call("status", Wait(0, 0), list[InstanceStatus])
    assert found == [InstanceStatus(InstanceId("i-1"), "missing")]


def test_many_threads_share_a_client(server: HostServer, client: HostClient) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: client.call("double", Wait(n, 0), int), range(200)))
    assert answers == [2 * n for n in range(200)]


@pytest.mark.parametrize(
    ("operation", "code"), [("refuse", "NoWay"), ("fail", "Internal"), ("unknown", "UnknownOperation")]
)
def test_what_the_host_refuses_is_told_and_the_link_goes_on(
    server: HostServer, client: HostClient, operation: str, code: str
) -> None:
    with pytest.raises(HostError) as refused:
        client.call(operation, Wait(1, 0), int)
    assert refused.value.code == code
    assert client.call("double", Wait(1, 0), int) == 2


def test_wrong_arguments_are_refused(server: HostServer, client: HostClient) -> None:
    with pytest.raises(HostError) as refused:
        client.call("double", {"seen": "many"}, int)
    assert refused.value.code == "BadRequest"


def test_another_version_is_refused_by_both_numbers(server: HostServer, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        frames.send_frame(raw, b'{"v": 99, "op": "double", "args": {}}')
        answer = frames.receive_frame(raw)
    assert answer is not None
    assert b"Version" in answer
    assert b"99" in answer


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff\xff\xffjunk", b"\x00\x00", b"\x00\x00\x00\x03{{{"])
def test_garbage_harms_nobody(server: HostServer, client: HostClient, path: Path, garbage: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        raw.sendall(garbage)
    assert client.call("double", Wait(1, 0), int) == 2


def test_nobody_there_is_unavailable(client: HostClient) -> None:
    with pytest.raises(HostUnavailable):
        client.call("double", Wait(1, 0), int)


def test_a_host_that_never_answers_is_unavailable_after_the_timeout(path: Path, client: HostClient) -> None:
    asked = threading.Event()

    def answer(arguments: Wait) -> int:
        asked.wait()
        return 0

    server = HostServer(path, {"slow": handler(Wait, answer)})
    try:
        with pytest.raises(HostUnavailable, match="did not answer"):
            client.call("slow", Wait(1, 0), int, timeout_s=0.05)
    finally:
        asked.set()
        server.close()


def test_a_restarted_host_is_met_again(path: Path, client: HostClient) -> None:
    for _ in range(3):
        server = HostServer(path, HANDLERS)
        assert client.call("double", Wait(1, 0), int) == 2
        server.close()


def test_as_many_as_come_at_once_find_the_host(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener's queue that is full refuses at once, and refusals would be taken for a host that is not there."""
    goes_on = threading.Event()
    admit = HostServer._admit
    monkeypatch.setattr(
        HostServer, "_admit", lambda server, connection: goes_on.wait(60) and admit(server, connection)
    )
    server = HostServer(path, HANDLERS)
    callers = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    try:
        for caller in callers:
            caller.settimeout(60)
            caller.connect(str(path))
    finally:
        goes_on.set()
        for caller in callers:
            caller.close()
        server.close()


def test_a_host_without_threads_for_a_call_hears_the_next(
    server: HostServer, client: HostClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_threads(monkeypatch, ["host-call"])
    with pytest.raises(HostUnavailable):
        client.call("double", Wait(1, 0), int)
    assert client.call("double", Wait(1, 0), int) == 2


def test_the_socket_is_the_owner_s_alone(server: HostServer, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
