"""Fleets, shadows, sessions and sticky keys through two real gateways: botocore calls, scripted containers answer."""

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from signal import SIGKILL
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.domain.routes import EndpointRoute, VariantRoute
from scenarios.gateway_world import (
    Behaviour,
    Container,
    Seen,
    World,
    answering,
    eventually,
    key,
    target,
    world,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("g"), gateways=2, telemetry_interval_s=0.05) as made:
        made.batches = []  # type: ignore[attr-defined]
        made.hub._on_metrics = made.batches.append  # type: ignore[attr-defined]
        yield made


def publish(pair: World, name: str, *variants: VariantRoute, shadows: tuple[VariantRoute, ...] = ()) -> None:
    generation = next(_generations)
    pair.hub.publish(EndpointRoute(key(name), name, f"uid-{name}", generation, variants, shadows=shadows))


_generations = itertools.count(1)


def variant(name: str, *containers: Container, weight: float = 1.0, **more: Any) -> VariantRoute:
    return VariantRoute(name, weight, tuple(target(container) for container in containers), **more)


def total(pair: World, metric: str, **dimensions: str) -> float:
    wanted = tuple(sorted(dimensions.items()))
    # A gateway offers a batch until it hears that it was taken; control takes none twice.
    batches = {(batch.source, batch.sequence): batch for batch in pair.batches}  # type: ignore[attr-defined]
    points = [point for batch in batches.values() for point in batch.points]
    return float(sum(point.sum for point in points if (point.name, point.dimensions) == (metric, wanted)))


def fresh_client(pair: World) -> Any:
    """On new connections: any of the gateways may take them."""
    return pair.client()


def conversation() -> Behaviour:
    """A stateful model: counts the turns of each session it has opened."""
    turns: Counter[str] = Counter()
    end = datetime.now(UTC) + timedelta(hours=1)

    def answer(sock: socket.socket, seen: Seen) -> bool:
        session = seen.headers.get("x-amzn-sagemaker-session-id", "")
        headers = "content-type: text/plain\r\n"
        if session == "NEW_SESSION":
            session = f"talk-{len(turns)}"
            turns[session] = 0
            headers += f"x-amzn-sagemaker-new-session-id: {session}; Expires={end:%Y-%m-%dT%H:%M:%SZ}\r\n"
        elif session not in turns:
            return answering(b"unknown session", status="400 No")(sock, seen)
        elif seen.body == b"bye":
            headers += f"x-amzn-sagemaker-closed-session-id: {session}\r\n"
        turns[session] += 1
        return answering(b"%d" % turns[session], headers=headers)(sock, seen)

    return answer


def test_H12_sessions_live_at_their_instance_through_every_gateway_and_its_death(pair: World) -> None:
    containers = [pair.container(conversation()) for _ in range(3)]
    publish(pair, "Talk", variant("AllTraffic", *containers, retries_elsewhere=False))

    def say(session: str, body: bytes = b"go on", **more: Any) -> Any:
        client = fresh_client(pair)
        return client.invoke_endpoint(EndpointName="Talk", SessionId=session, Body=body, **more)

    sessions = [say("NEW_SESSION")["NewSessionId"].partition(";")[0] for _ in range(6)]
    for turn in range(2, 6):
        answers = [say(session)["Body"].read() for session in sessions]
        assert answers == [b"%d" % turn] * 6  # each by the one container that knows it
    victim = pair.processes[0]
    victim.send_signal(SIGKILL)
    victim.wait()
    pair.start_gateway(0)
    assert [say(session)["Body"].read() for session in sessions] == [b"6"] * 6
    streamed = fresh_client(pair).invoke_endpoint_with_response_stream(
        EndpointName="Talk", SessionId=sessions[0], Body=b"more"
    )
    assert b"".join(event["PayloadPart"]["Bytes"] for event in streamed["Body"]) == b"7"
    assert say(sessions[0], b"bye")["ClosedSessionId"] == sessions[0]
    publish(pair, "Talk", variant("AllTraffic", pair.container(conversation())))
    with pytest.raises(ClientError, match="the instance that held it is gone"):
        say(sessions[1])
    with pytest.raises(ClientError, match=r"\(ValidationError\).*cannot be created"):
        fresh_client(pair).invoke_endpoint_with_response_stream(
            EndpointName="Talk", SessionId="NEW_SESSION", Body=b""
        )


def test_H12_a_header_of_boto3_s_event_keeps_a_user_at_one_place(pair: World) -> None:
    names = [b"a1", b"a2", b"b1"]
    first, second, third = (pair.container(answering(name)) for name in names)
    publish(pair, "Ab", variant("A", first, second, weight=2), variant("B", third))

    def places(user: str) -> set[tuple[str, bytes]]:
        client = fresh_client(pair)
        client.meta.events.register(
            "before-call.sagemaker-runtime.*",
            lambda params, **_: params["headers"].update({"X-Clary-Sticky-Key": user}),
        )
        answers = [client.invoke_endpoint(EndpointName="Ab", Body=b"") for _ in range(3)]
        return {(answer["InvokedProductionVariant"], answer["Body"].read()) for answer in answers}

    found = {user: places(user) | places(user) for user in "abcdefgh"}
    assert all(len(seen) == 1 for seen in found.values())
    assert len(set().union(*found.values())) > 1
    publish(pair, "Ab", variant("A", first, second, weight=2))
    assert all(places(user) == found[user] for user in found if ("A", b"a1") in found[user])


def test_D02_D07_a_canary_has_its_share_and_its_own_series(pair: World) -> None:
    blue, green = pair.container(answering(b"blue")), pair.container(answering(b"green"))
    publish(
        pair,
        "Canary",
        variant("A", blue, fleet="blue", share=0.75),
        variant("A", green, fleet="green", share=0.25, config_name="new"),
    )
    client = fresh_client(pair)

    def bodies(count: int, **more: Any) -> Counter[bytes]:
        answers = [client.invoke_endpoint(EndpointName="Canary", Body=b"", **more) for _ in range(count)]
        assert {answer["InvokedProductionVariant"] for answer in answers} == {"A"}
        return Counter(answer["Body"].read() for answer in answers)

    drawn, named = bodies(160), bodies(160, TargetVariant="A")
    assert drawn[b"blue"] > drawn[b"green"] > 0
    assert named[b"blue"] > named[b"green"] > 0
    mine = {"EndpointName": "Canary", "VariantName": "A"}
    eventually(lambda: total(pair, "Invocations", **mine) == 320)
    only_green = drawn[b"green"] + named[b"green"]
    assert total(pair, "Invocations", **mine, EndpointConfigName="new") == only_green
    assert total(pair, "InvocationsPerInstance", **mine) == pytest.approx(160)
    assert total(pair, "InvocationsPerInstance", **mine, EndpointConfigName="new") == only_green
    green.close()  # killed: what it would have got is answered by the other fleet
    assert bodies(60) == {b"blue": 60}
    publish(pair, "Canary", variant("A", blue, fleet="blue"))
    assert bodies(10) == {b"blue": 10}


def test_D08_a_shadow_that_hangs_fails_or_is_gone_is_never_noticed(pair: World) -> None:
    let_go = threading.Event()

    def hang(sock: socket.socket, seen: Seen) -> bool:
        let_go.wait(60)
        return False

    production = pair.container(answering(b"real"))
    echo, hanging, failing, gone = (
        pair.container(),
        pair.container(hang),
        pair.container(answering(b"no", status="500 No")),
        pair.container(),
    )
    gone.close()
    client = fresh_client(pair)
    for name, shadow in (("Echo", echo), ("Hang", hanging), ("Fail", failing), ("Gone", gone)):
        publish(pair, name, variant("A", production), shadows=(variant("Shadow", shadow),))
        for _ in range(20):
            answer = client.invoke_endpoint(EndpointName=name, Body=b"x" * 20_000, ContentType="text/csv")
            assert (answer["InvokedProductionVariant"], answer["Body"].read()) == ("A", b"real")
    eventually(lambda: len(echo.seen) == 20)
    assert {(len(seen.body), seen.headers["content-type"]) for seen in echo.seen} == {(20_000, "text/csv")}
    with pytest.raises(ClientError, match="Variant Shadow of endpoint Echo"):
        client.invoke_endpoint(EndpointName="Echo", TargetVariant="Shadow", Body=b"")
    for name, count in (("Echo", 0), ("Fail", 20), ("Gone", 20)):
        mine = {"EndpointName": name, "VariantName": "Shadow"}
        eventually(lambda mine=mine: total(pair, "Invocations", **mine) == 20)  # type: ignore[misc]
        assert total(pair, "InvocationModelErrors", **mine) == count
        assert total(pair, "Invocation5XXErrors", EndpointName=name, VariantName="A") == 0
    let_go.set()
    eventually(lambda: total(pair, "Invocations", EndpointName="Hang", VariantName="Shadow") == 20)


def test_H10_user_code_whose_connections_break_is_passed_over_and_tried_again(pair: World) -> None:
    breaks = threading.Event()
    breaks.set()

    def answer(sock: socket.socket, seen: Seen) -> bool:
        return False if breaks.is_set() else answering(b"again")(sock, seen)

    flaky = pair.container(answer)
    publish(pair, "Flaky", variant("A", flaky, pair.container(answering(b"fine")), retries_elsewhere=False))
    client = fresh_client(pair)

    def bodies(count: int) -> Counter[bytes]:
        found: Counter[bytes] = Counter()
        for _ in range(count):
            try:
                found[client.invoke_endpoint(EndpointName="Flaky", Body=b"")["Body"].read()] += 1
            except ClientError as error:
                assert error.response["Error"]["Code"] == "ServiceUnavailable"
                found[b""] += 1
        return found

    found = bodies(200)
    # Half of the requests would have failed; some trials do.
    assert 3 <= found[b""] <= 20
    eventually(lambda: "an instance is passed over" in pair.gateway_log(0) + pair.gateway_log(1))
    breaks.clear()
    eventually(lambda: b"again" in bodies(10))
    assert bodies(50)[b""] == 0
