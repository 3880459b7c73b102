"""Gateways come and go, control comes and goes: what clients see of it, and who is waited for."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointRoute, VariantRoute
from clary.gateway import door
from clary.gateway.accept import queue_length
from clary.links.routes import RouteHub
from scenarios.gateway_world import (
    PATIENCE_S,
    Seen,
    World,
    answering,
    eventually,
    key,
    open_descriptors,
    target,
    world,
)


def invoke(client: Any, name: str) -> bytes:
    body: bytes = client.invoke_endpoint(EndpointName=name, Body=b"")["Body"].read()
    return body


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, gateways=2) as made:
        yield made


def test_H05_no_gateway_answers_from_a_route_that_is_withdrawn(pair: World) -> None:
    """Create, invoke, delete, invoke, again and again, on connections that stay open at both gateways."""
    clients = [
        pair.client(max_pool_connections=1) for _ in range(8)
    ]  # each keeps its connection and its gateway
    container = pair.container()
    for generation in range(1, 31):
        container.behaviour = answering(str(generation).encode())
        name = pair.endpoint(container, name="again", generation=generation)
        assert {invoke(client, name) for client in clients} == {str(generation).encode()}
        pair.hub.withdraw(key(name))
        for client in clients:
            with pytest.raises(ClientError, match="not found"):
                invoke(client, name)
    assert [pair.state(number).routes_version for number in (0, 1)] == [61, 61]


def test_H05_a_gateway_that_hangs_is_ended_so_that_routes_stay_true(tmp_path: Path) -> None:
    # Alone: within so short a time another one might only be slow, and end as well.
    with world(tmp_path, gateway_ack_timeout_s=1.0) as made:
        hung = made.processes.pop(0)
        hung.send_signal(SIGSTOP)
        made.endpoint(made.container(), name="true")
        assert hung.wait(PATIENCE_S) == -SIGKILL
        made.start_gateway(0)
        assert invoke(made.client(), "true") == b"1.0"
        # From control; on a busy machine it may have begun from the files, which have no version.
        eventually(lambda: made.state().routes_version == 2)


def test_Z04_endpoints_answer_without_control_and_across_its_restart(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        client = made.client()
        name = made.endpoint(made.container(answering(b"here")))
        made.hub.close()
        assert invoke(client, name) == b"here"
        made.hub = RouteHub(made.settings)
        made.hub.start()
        assert [route.name for route in made.hub.routes()] == [name]
        other = made.endpoint(made.container(answering(b"new")))  # waits until the gateway is back and has it
        assert (invoke(client, name), invoke(client, other)) == (b"here", b"new")


def test_Z04_a_gateway_starts_from_files_when_control_is_down(tmp_path: Path) -> None:
    with world(tmp_path, gateways=0) as made:
        name = made.endpoint(made.container(answering(b"from files")))
        made.hub.withdraw(key(made.endpoint(made.container(), name="gone")))
        made.hub.close()
        made.start_gateway(0)
        assert invoke(made.client(), name) == b"from files"
        with pytest.raises(ClientError, match="not found"):
            invoke(made.client(), "gone")


def test_Z04_a_route_file_that_is_broken_costs_only_its_endpoint(tmp_path: Path) -> None:
    with world(tmp_path, gateways=0) as made:
        name = made.endpoint(made.container(answering(b"whole")))
        (made.settings.routes_dir / "0000.json").write_bytes(b'{"protocol":1,"route":{"key":')
        made.hub.close()
        made.start_gateway(0)
        assert invoke(made.client(), name) == b"whole"
        assert "route file is unreadable" in made.gateway_log()


def test_Z04_killing_a_gateway_breaks_its_connections_only(pair: World) -> None:
    name = pair.endpoint(pair.container())
    pair.processes[0].send_signal(SIGKILL)
    assert pair.processes[0].wait(PATIENCE_S) == -SIGKILL
    for _ in range(5):
        assert invoke(pair.client(), name) == b"1.0"
    pair.endpoint(pair.container(), name="later")  # the dead one is not waited for
    pair.start_gateway(0)
    assert invoke(pair.client(), "later") == b"1.0"


def test_Z04_a_gateway_hands_the_listening_socket_over(pair: World) -> None:
    name = pair.endpoint(pair.container())
    port = pair.listening.getsockname()
    pair.listening.close()
    pair.listening = door.take_socket(pair.settings.gateway_socket(0))
    assert pair.listening.getsockname() == port
    for number in (0, 1):
        pair.processes[number].send_signal(SIGTERM)
        assert pair.processes[number].wait(PATIENCE_S) == 0
        pair.start_gateway(number)
    assert invoke(pair.client(), name) == b"1.0"


def test_H05_a_gateway_that_stops_finishes_what_it_has_begun(tmp_path: Path) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def slow(sock: socket.socket, seen: Seen) -> bool:
        begun.set()
        return let_go.wait(PATIENCE_S) and answering(b"finished")(sock, seen)

    with world(tmp_path) as made:
        client = made.client()
        name = made.endpoint(made.container(slow))
        answers: list[bytes] = []
        caller = threading.Thread(target=lambda: answers.append(invoke(client, name)))
        caller.start()
        assert begun.wait(PATIENCE_S)
        state = door.ask_to_stop(made.settings.gateway_socket(0))
        assert (state.number, state.outstanding) == (0, 1)
        eventually(lambda: made.state().is_stopping)
        assert made.processes[0].poll() is None
        let_go.set()
        caller.join(PATIENCE_S)
        assert answers == [b"finished"]
        assert made.processes[0].wait(PATIENCE_S) == 0


def test_H05_an_instance_is_drained_when_its_last_request_has_ended(pair: World) -> None:
    let_go = threading.Event()
    under_way = threading.Semaphore(0)

    def slow(sock: socket.socket, seen: Seen) -> bool:
        under_way.release()
        return let_go.wait(PATIENCE_S) and answering(b"old")(sock, seen)

    old, new = pair.container(slow), pair.container(answering(b"new"))
    name = pair.endpoint(old)
    clients = [pair.client() for _ in range(4)]
    answers: list[bytes] = []
    callers = [threading.Thread(target=lambda c=c: answers.append(invoke(c, name))) for c in clients]
    for caller in callers:
        caller.start()
        assert under_way.acquire(timeout=PATIENCE_S)
    pair.endpoint(new, name=name, generation=2)
    assert invoke(pair.client(), name) == b"new"
    ids = [target(old).instance_id]
    assert pair.hub.drain(ids, 0.1) == set(ids)
    threading.Timer(0.2, let_go.set).start()
    assert pair.hub.drain(ids, PATIENCE_S) == set()
    for caller in callers:
        caller.join(PATIENCE_S)
    assert answers == [b"old"] * 4
    assert pair.hub.drain([InstanceId("i-unknown")], PATIENCE_S) == set()


def test_H05_an_update_under_load_fails_nobody(pair: World) -> None:
    """User code, so nothing is repeated: new target in, old one out, drained, ended; ten times over."""
    name = pair.endpoint(pair.container(answering(b"0")), retries_elsewhere=False)
    is_over = threading.Event()
    failures: list[Exception] = []
    answers: list[set[bytes]] = []

    def call() -> None:
        client = pair.client()
        got: set[bytes] = set()
        while not is_over.is_set():
            try:
                got.add(invoke(client, name))
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is what the test looks for
                failures.append(error)
        answers.append(got)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for generation in range(2, 12):
        old = pair.containers[-1]
        new = pair.container(answering(str(generation).encode()))
        pair.endpoint(new, name=name, generation=generation, retries_elsewhere=False)
        assert pair.hub.drain([target(old).instance_id], PATIENCE_S) == set()
        old.close()
        eventually(lambda new=new: len(new.seen) > 4)  # type: ignore[misc]
    is_over.set()
    for caller in callers:
        caller.join(PATIENCE_S)
    assert failures == []
    assert len(set().union(*answers)) > 9


def test_H05_many_publications_at_once_share_their_changes(pair: World) -> None:
    container = pair.container()

    def publish(number: int) -> None:
        name = f"many-{number}"
        variant = VariantRoute("AllTraffic", 1.0, (target(container),))
        pair.hub.publish(EndpointRoute(key(name), name, name, 1, (variant,)))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    client = pair.client()
    assert {invoke(client, f"many-{number}") for number in range(100)} == {b"1.0"}


def test_Z04_a_gateway_is_small(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        name = made.endpoint(made.container())
        invoke(made.client(), name)
        pid = made.processes[0].pid
        state = made.state()
        assert state.pid == pid
        assert 0 < state.memory_bytes < 60 << 20


def test_Z04_every_connection_of_a_burst_is_taken_up(pair: World) -> None:
    where = pair.listening.getsockname()
    connections = [socket.create_connection(where, timeout=PATIENCE_S) for _ in range(150)]
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    for connection in connections:
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 ")
        connection.close()


def test_Z04_what_waits_at_a_listening_socket_is_known() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        assert queue_length(listening) == 0
        waiting = [socket.create_connection(listening.getsockname(), timeout=PATIENCE_S) for _ in range(5)]
        eventually(lambda: queue_length(listening) == 5)
        for connection in waiting:
            connection.close()


def test_Z04_a_gateway_that_has_stopped_leaves_no_socket(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.processes[0].send_signal(SIGTERM)
        assert made.processes[0].wait(PATIENCE_S) == 0
        assert not made.settings.gateway_socket(0).exists()


def test_Z04_a_gateway_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        client = made.client()
        pid = made.processes[0].pid
        before = 0
        for generation in range(1, 6):
            name = made.endpoint(made.container(), name="open", generation=generation)
            invoke(client, name)
            made.hub.withdraw(key(name))
            if generation == 1:
                before = open_descriptors(pid)
        eventually(lambda: open_descriptors(pid) <= before)
