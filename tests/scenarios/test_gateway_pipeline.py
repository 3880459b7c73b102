"""Small requests to our own model server through a real gateway: many at once, each with its own answer."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.domain.instances import InstanceId
from clary.gateway.pipeline import SMALL_REQUEST
from scenarios.gateway_world import Behaviour, Seen, World, answering, eventually, key, world

CALLERS = 16


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("g")) as made:
        yield made


@pytest.fixture(scope="module")
def client(gateway: World) -> Any:
    return gateway.client(max_pool_connections=CALLERS)


def echo(sock: socket.socket, seen: Seen) -> bool:
    return answering(seen.body)(sock, seen)


def at_once(call: Callable[[int], Any], count: int = CALLERS) -> list[Any]:
    """Calls from as many threads, begun together."""
    together = threading.Barrier(count)

    def one(number: int) -> Any:
        together.wait(60)
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def invoke(client: Any, name: str, body: bytes) -> bytes:
    answer: bytes = client.invoke_endpoint(EndpointName=name, Body=body)["Body"].read()
    return answer


def status(client: Any, name: str, body: bytes = b"") -> int:
    """Of a call, 200 when it is answered."""
    try:
        invoke(client, name, body)
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return 200


def test_H05_every_caller_gets_its_own_answer(gateway: World, client: Any) -> None:
    container = gateway.container(echo)
    name = gateway.endpoint(container, pipelines=True)

    def call(number: int) -> bool:
        bodies = [b"%d:%d" % (number, n) * (1 + 700 * (n % 3)) for n in range(20)]
        return all(invoke(client, name, body) == body for body in bodies)

    assert all(at_once(call))
    assert len(container.seen) == 20 * CALLERS
    assert all(seen.line == "POST /invocations HTTP/1.1" for seen in container.seen)


def test_H05_small_and_large_requests_do_not_mix_up(gateway: World, client: Any) -> None:
    name = gateway.endpoint(gateway.container(echo), pipelines=True)
    sizes = [0, 1, SMALL_REQUEST, SMALL_REQUEST + 1, 300_000]

    def call(number: int) -> bool:
        bodies = [b"%d" % (number % 10) * size for size in sizes]
        return all(invoke(client, name, body) == body for body in bodies)

    assert all(at_once(call))


def test_H05_a_large_request_goes_on_a_connection_of_its_own(gateway: World, client: Any) -> None:
    let_go = threading.Event()

    def slow_when_large(sock: socket.socket, seen: Seen) -> bool:
        if len(seen.body) > SMALL_REQUEST:
            let_go.wait(60)
        return answering(seen.body[:5])(sock, seen)

    container = gateway.container(slow_when_large)
    name = gateway.endpoint(container, pipelines=True)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(invoke, client, name, b"l" * (SMALL_REQUEST + 1))
        eventually(lambda: len(container.seen) == 1)
        assert [invoke(client, name, b"small") for _ in range(5)] == [b"small"] * 5
        let_go.set()
        assert large.result() == b"lllll"


def test_H05_a_failure_among_others_is_its_own(gateway: World, client: Any) -> None:
    def picky(sock: socket.socket, seen: Seen) -> bool:
        is_bad = int(seen.body) % 2
        return answering(seen.body, status="400 Bad" if is_bad else "200 OK")(sock, seen)

    name = gateway.endpoint(gateway.container(picky), pipelines=True)
    found = at_once(lambda number: status(client, name, b"%d" % number))
    assert found == [424 if number % 2 else 200 for number in range(CALLERS)]


def after(count: int, behaviour: Behaviour) -> Behaviour:
    """Echoes so many times over all connections, then does this."""
    lock = threading.Lock()
    left = [count]

    def behave(sock: socket.socket, seen: Seen) -> bool:
        with lock:
            left[0] -= 1
        return (echo if left[0] >= 0 else behaviour)(sock, seen)

    return behave


def test_H05_an_instance_that_dies_in_the_middle_costs_nobody_an_answer(gateway: World, client: Any) -> None:
    dying = gateway.container(after(20, lambda sock, seen: False))
    name = gateway.endpoint(dying, gateway.container(echo), pipelines=True)

    def call(number: int) -> bool:
        bodies = [b"%d:%d" % (number, n) for n in range(10)]
        return all(invoke(client, name, body) == body for body in bodies)

    assert all(at_once(call))
    assert len(dying.seen) > 20


def test_H05_half_an_answer_is_nobody_elses(gateway: World, client: Any) -> None:
    def half(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        return False

    name = gateway.endpoint(gateway.container(after(3, half)), gateway.container(half), pipelines=True)
    found = at_once(lambda number: status(client, name))
    assert set(found) <= {200, 424}  # the other instance was tried for those of which no byte had come


def test_H05_who_waits_too_long_is_told_and_the_next_gets_its_own_answer(gateway: World, client: Any) -> None:
    let_go = threading.Event()

    def hang(sock: socket.socket, seen: Seen) -> bool:
        if seen.body == b"hang":
            let_go.wait(60)
        return echo(sock, seen)

    container = gateway.container(hang)
    name = gateway.endpoint(container, pipelines=True, timeout_s=0.5)
    assert status(client, name, b"hang") == 424
    gateway.endpoint(container, pipelines=True, name=name, generation=2)  # with time enough for the others
    assert invoke(client, name, b"next") == b"next"
    let_go.set()
    assert [invoke(client, name, b"%d" % n) for n in range(5)] == [b"%d" % n for n in range(5)]


def test_H05_an_idle_connection_that_was_closed_is_replaced_without_notice(
    gateway: World, client: Any
) -> None:
    def once(sock: socket.socket, seen: Seen) -> bool:
        answering(b"ok")(sock, seen)
        return False

    name = gateway.endpoint(gateway.container(once), pipelines=True)
    assert [invoke(client, name, b"") for _ in range(30)] == [b"ok"] * 30


def test_H05_a_target_is_drained_when_its_group_is_answered(gateway: World, client: Any) -> None:
    let_go = threading.Event()

    def wait(sock: socket.socket, seen: Seen) -> bool:
        let_go.wait(60)
        return echo(sock, seen)

    container = gateway.container(wait)
    instance = InstanceId(f"i-{container.path.stem}")
    name = gateway.endpoint(container, pipelines=True)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(invoke, client, name, b"%d" % n) for n in range(3)]
        eventually(lambda: gateway.state().outstanding == 3)
        gateway.hub.withdraw(key(name))
        assert gateway.hub.drain([instance], 0.2) == {instance}
        let_go.set()
        assert sorted(call.result() for call in calls) == [b"0", b"1", b"2"]
    assert gateway.hub.drain([instance], 60.0) == set()
