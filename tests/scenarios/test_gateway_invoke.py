"""An invocation through a real gateway process: botocore calls, a scripted container answers."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from clary.domain.routes import EndpointRoute, VariantRoute
from clary.wire.sigv4 import sign
from scenarios.gateway_world import (
    ACCOUNT,
    REGION,
    Behaviour,
    Seen,
    World,
    answering,
    eventually,
    key,
    sending,
    target,
    world,
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("g"), max_invocation_bytes=4 << 20) as made:
        yield made


@pytest.fixture(scope="module")
def client(gateway: World) -> Any:
    return gateway.client()


def refusal(call: Any, **parameters: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response: dict[str, Any] = dict(caught.value.response)
    return response["ResponseMetadata"]["HTTPStatusCode"], response


def test_H05_the_answer_is_the_containers_verbatim(gateway: World, client: Any) -> None:
    headers = (
        "content-type: application/json\r\nx-amzn-sagemaker-custom-attributes: trace=7\r\nserver: secret\r\n"
    )
    container = gateway.container(answering(b'{"a": 1}', headers=headers))
    name = gateway.endpoint(container)
    answer = client.invoke_endpoint(
        EndpointName=name,
        Body=b"1,2,3",
        ContentType="text/csv",
        Accept="application/json",
        CustomAttributes="asked",
        InferenceId="one",
    )
    assert answer["Body"].read() == b'{"a": 1}'
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "trace=7"
    assert "server" not in answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["ResponseMetadata"]["RequestId"]
    seen = container.seen[-1]
    assert seen.line == "POST /invocations HTTP/1.1"
    assert seen.body == b"1,2,3"
    assert seen.headers == {
        "host": "localhost",
        "content-length": "5",
        "content-type": "text/csv",
        "accept": "application/json",
        "x-amzn-sagemaker-custom-attributes": "asked",
    }


def test_H05_names_are_found_without_case_and_only_in_their_region(gateway: World, client: Any) -> None:
    name = gateway.endpoint(gateway.container())
    assert client.invoke_endpoint(EndpointName=name.upper(), Body=b"")["Body"].read() == b"1.0"
    status, response = refusal(
        gateway.client(region="eu-west-1").invoke_endpoint, EndpointName=name, Body=b""
    )
    assert (status, response["Error"]["Code"]) == (400, "ValidationError")
    assert response["Error"]["Message"] == f"Endpoint {name} of account {ACCOUNT} not found."


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        (
            "TargetModel",
            "a.tar.gz",
            "is not a multi-model endpoint and does not support target model header.",
        ),
        ("TargetContainerHostname", "first", "does not support target container hostname header."),
        ("InferenceComponentName", "part", "does not support inference component name header."),
        ("TargetVariant", "Nope", "Variant Nope of endpoint"),
        ("SessionId", "no-such-one", "Session no-such-one of endpoint"),
        ("SessionId", "no such one", "failed to satisfy constraint"),
        ("EnableExplanations", "`true`", "EnableExplanations is not supported by this server"),
    ],
)
def test_H05_members_that_do_not_apply_are_refused_by_name(
    gateway: World, client: Any, member: str, value: str, words: str
) -> None:
    name = gateway.endpoint(gateway.container())
    status, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"", **{member: value})
    assert (status, response["Error"]["Code"]) == (400, "ValidationError")
    assert words in response["Error"]["Message"]


def test_H05_an_asynchronous_invocation_is_refused_by_name(gateway: World, client: Any) -> None:
    status, response = refusal(
        client.invoke_endpoint_async,
        EndpointName="any",
        InputLocation="s3://bucket/in",
        ContentType="text/csv",
    )
    assert (status, response["Error"]["Code"]) == (400, "ValidationError")
    assert response["Error"]["Message"] == "InvokeEndpointAsync is not supported by this server"


def test_H05_variants_share_by_weight_and_can_be_named(gateway: World, client: Any) -> None:
    variants = tuple(
        VariantRoute(name, weight, (_target(gateway, name.encode()),))
        for name, weight in (("Big", 3.0), ("Small", 1.0), ("Dark", 0.0))
    )
    gateway.hub.publish(EndpointRoute(key("shared"), "shared", "u", 1, variants))
    answers = [client.invoke_endpoint(EndpointName="shared", Body=b"") for _ in range(200)]
    invoked = [answer["InvokedProductionVariant"] for answer in answers]
    assert {answer["Body"].read().decode() for answer in answers} == {"Big", "Small"}
    assert invoked.count("Big") > invoked.count("Small") > 0
    dark = client.invoke_endpoint(EndpointName="shared", Body=b"", TargetVariant="Dark")
    assert (dark["InvokedProductionVariant"], dark["Body"].read()) == ("Dark", b"Dark")


def _target(gateway: World, body: bytes) -> Any:
    return target(gateway.container(answering(body)))


def test_H05_weights_of_zero_serve_only_who_is_named(gateway: World, client: Any) -> None:
    route = VariantRoute("Only", 0.0, (_target(gateway, b"x"),))
    gateway.hub.publish(EndpointRoute(key("dark"), "dark", "u", 1, (route,)))
    status, response = refusal(client.invoke_endpoint, EndpointName="dark", Body=b"")
    assert (status, response["Error"]["Code"]) == (400, "ValidationError")
    assert client.invoke_endpoint(EndpointName="dark", Body=b"", TargetVariant="Only")["Body"].read() == b"x"


@pytest.mark.parametrize(
    ("status_line", "status", "who"),
    [
        ("400 Bad Request", 400, "client"),
        ("500 Internal Server Error", 500, "server"),
        ("302 Found", 302, "server"),
    ],
)
def test_H05_a_containers_failure_is_a_model_error(
    gateway: World, client: Any, status_line: str, status: int, who: str
) -> None:
    name = gateway.endpoint(gateway.container(answering(b"no such column", status=status_line)))
    http_status, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"")
    group = f"/aws/sagemaker/Endpoints/{name}"
    message = (
        f'Received {who} error ({status}) from primary with message "no such column". See '
        f"https://{REGION}.console.aws.amazon.com/cloudwatch/home?region={REGION}#logEventViewer:group={group} "
        f"in account {ACCOUNT} for more information."
    )
    assert http_status == 424
    assert response["Error"] == {"Code": "ModelError", "Message": message}
    assert response["OriginalStatusCode"] == status
    assert response["OriginalMessage"] == "no such column"
    assert response["LogStreamArn"] == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}"


def test_H05_a_long_binary_failure_is_cut_and_readable(gateway: World, client: Any) -> None:
    name = gateway.endpoint(gateway.container(answering(b"\xff\x00" * 200_000, status="500 No")))
    _, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"")
    assert len(response["OriginalMessage"]) == 2048
    assert len(response["Error"]["Message"]) == 2048
    assert response["Error"]["Message"].endswith("for more information.")


def test_H05_a_container_that_does_not_answer_in_time(gateway: World, client: Any) -> None:
    let_go = threading.Event()

    def hang(sock: socket.socket, seen: Seen) -> bool:
        let_go.wait(60)
        return False

    name = gateway.endpoint(gateway.container(hang), timeout_s=0.3)
    status, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"")
    let_go.set()
    assert (status, response["Error"]["Code"], response["OriginalStatusCode"]) == (424, "ModelError", 0)
    assert (
        "Your invocation timed out while waiting for a response from container primary"
        in response["Error"]["Message"]
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc", id="cut"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", id="cut chunk"),
        pytest.param(b"\x16\x03\x01 this is no HTTP\r\n\r\n", id="garbage"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", id="two lengths"
        ),
        pytest.param(b"HTTP/1.1 2", id="half a status"),
    ],
)
def test_H05_an_answer_that_cannot_be_read_is_a_model_error(gateway: World, client: Any, data: bytes) -> None:
    name = gateway.endpoint(gateway.container(sending(data)))
    status, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"")
    assert (status, response["Error"]["Code"], response["OriginalStatusCode"]) == (424, "ModelError", 500)
    assert "could not load the entire response body" in response["Error"]["Message"]


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            b"abc",
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/csv\r\n\r\nuntil the end",
            b"until the end",
            id="until end",
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", b"ab", id="1.0"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", b"ab", id="1xx"
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabtrailing", b"ab", id="more than said"),
    ],
)
def test_H05_every_framing_of_an_answer_is_understood(
    gateway: World, client: Any, data: bytes, body: bytes
) -> None:
    name = gateway.endpoint(gateway.container(sending(data)))
    for _ in range(2):
        assert client.invoke_endpoint(EndpointName=name, Body=b"")["Body"].read() == body


@pytest.mark.parametrize("size", [0, 1, 65_536, 262_145, 4 << 20])
def test_H05_bodies_of_any_size_pass_both_ways(gateway: World, client: Any, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    body = content[:size]

    def echo(sock: socket.socket, seen: Seen) -> bool:
        return answering(seen.body)(sock, seen)

    name = gateway.endpoint(gateway.container(echo))
    answer = client.invoke_endpoint(EndpointName=name, Body=body)["Body"].read()
    assert hashlib.sha256(answer).digest() == hashlib.sha256(body).digest()


def test_H05_a_body_beyond_the_limit_is_refused(gateway: World, client: Any) -> None:
    name = gateway.endpoint(gateway.container())
    status, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"x" * ((4 << 20) + 1))
    assert (status, response["Error"]["Code"]) == (413, "ValidationError")


def test_Z01_a_wrong_key_is_refused_in_the_runtimes_form(gateway: World) -> None:
    client = gateway.client()
    client._request_signer._credentials.secret_key = "wrong"
    status, response = refusal(client.invoke_endpoint, EndpointName="any", Body=b"")
    assert (status, response["Error"]["Code"]) == (403, "InvalidSignatureException")


def test_Z01_an_unsigned_request_is_refused(gateway: World) -> None:
    port = gateway.listening.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(
            b"POST /endpoints/x/invocations HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab"
        )
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"MissingAuthenticationToken" in answer


def break_without_answer(sock: socket.socket, seen: Seen) -> bool:
    return False


def test_H05_a_broken_connection_is_repeated_elsewhere_for_built_in_handlers(
    gateway: World, client: Any
) -> None:
    broken = gateway.container(break_without_answer)
    name = gateway.endpoint(broken, gateway.container(answering(b"alive")))
    for _ in range(50):
        assert client.invoke_endpoint(EndpointName=name, Body=b"")["Body"].read() == b"alive"
    assert broken.seen, "it was tried first some of the time"


def test_H05_user_code_is_not_run_twice_when_its_connection_breaks(gateway: World, client: Any) -> None:
    containers = [gateway.container(break_without_answer), gateway.container(break_without_answer)]
    name = gateway.endpoint(*containers, retries_elsewhere=False)
    for count in range(1, 6):
        status, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"")
        assert (status, response["Error"]["Code"]) == (503, "ServiceUnavailable")
        assert sum(len(container.seen) for container in containers) == count


def test_H05_a_broken_connection_is_repeated_once_only(gateway: World, client: Any) -> None:
    containers = [gateway.container(break_without_answer) for _ in range(3)]
    name = gateway.endpoint(*containers)
    status, _ = refusal(client.invoke_endpoint, EndpointName=name, Body=b"")
    assert status == 503
    assert sum(len(container.seen) for container in containers) == 2


def test_H05_an_instance_that_is_gone_costs_nobody_an_answer(gateway: World, client: Any) -> None:
    gone = [gateway.container() for _ in range(3)]
    name = gateway.endpoint(*gone, gateway.container(answering(b"alive")), retries_elsewhere=False)
    for container in gone:
        container.close()
    for _ in range(10):
        assert client.invoke_endpoint(EndpointName=name, Body=b"")["Body"].read() == b"alive"


def test_H05_without_an_instance_the_endpoint_is_unavailable(gateway: World, client: Any) -> None:
    status, response = refusal(client.invoke_endpoint, EndpointName=gateway.endpoint(), Body=b"")
    assert (status, response["Error"]["Code"]) == (503, "ServiceUnavailable")


def test_H05_a_connection_closed_while_idle_is_replaced_without_notice(gateway: World, client: Any) -> None:
    """A container that closes after each answer, without having said so: user code, and still no failure."""

    def once(sock: socket.socket, seen: Seen) -> bool:
        answering(b"ok")(sock, seen)
        return False

    container = gateway.container(once)
    name = gateway.endpoint(container, retries_elsewhere=False)
    for _ in range(50):
        assert client.invoke_endpoint(EndpointName=name, Body=b"")["Body"].read() == b"ok"


def test_H05_connections_to_a_container_are_used_again(gateway: World, client: Any) -> None:
    container = gateway.container()
    name = gateway.endpoint(container)
    for _ in range(10):
        client.invoke_endpoint(EndpointName=name, Body=b"")["Body"].read()
    assert container.connections == 1


def test_H05_a_client_that_reads_late_leaves_a_usable_connection(gateway: World, client: Any) -> None:
    sent = threading.Event()

    def large(sock: socket.socket, seen: Seen) -> bool:
        answering(b"x" * int(seen.body))(sock, seen)
        sent.set()
        return True

    container = gateway.container(large)
    name = gateway.endpoint(container)
    path = f"/endpoints/{name}/invocations"
    for size in (300_000, 600_000, 900_000, 4_000_000):
        sent.clear()
        body = str(size).encode()
        headers = {"host": "127.0.0.1", "content-length": str(len(body))}
        headers |= sign(
            gateway.root,
            "POST",
            path,
            {"host": "127.0.0.1"},
            hashlib.sha256(body).hexdigest(),
            service="sagemaker",
            region=REGION,
            at=datetime.now(UTC),
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(gateway.listening.getsockname(), timeout=60) as sock:
            sock.sendall(f"POST {path} HTTP/1.1\r\nconnection: close\r\n{lines}\r\n".encode() + body)
            sent.wait(0.2)
            got = b"".join(iter(lambda: sock.recv(65536), b""))
        assert got.endswith(b"\r\n\r\n" + b"x" * size)
        assert len(client.invoke_endpoint(EndpointName=name, Body=b"10")["Body"].read()) == 10
    assert container.connections == 1


@pytest.mark.parametrize("endless", [b"x: " + b"y" * 70_000, b"x: y\r\n" * 20_000])
def test_H05_an_endless_head_is_given_up(gateway: World, client: Any, endless: bytes) -> None:
    def send(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + endless)
        sock.recv(1)  # until the gateway closes
        return False

    name = gateway.endpoint(gateway.container(send))
    status, response = refusal(client.invoke_endpoint, EndpointName=name, Body=b"")
    assert (status, response["OriginalStatusCode"]) == (424, 500)


def _events(answer: Any) -> list[bytes]:
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> Behaviour:
    def answer(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        sock.sendall(end)
        return end == b"0\r\n\r\n"

    return answer


def test_H09_a_stream_arrives_as_events(gateway: World, client: Any) -> None:
    container = gateway.container(chunks(b"one ", b"two ", b"three"))
    name = gateway.endpoint(container)
    answer = client.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=b"tell", ContentType="text/plain", Accept="text/plain"
    )
    assert answer["ContentType"] == "text/plain"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert b"".join(_events(answer)) == b"one two three"
    assert container.seen[-1].headers["accept"] == "text/plain"


def test_H09_a_part_arrives_before_the_next_is_made(gateway: World, client: Any) -> None:
    first_was_read = threading.Event()

    def answer(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert first_was_read.wait(60)
        sock.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        return True

    name = gateway.endpoint(gateway.container(answer))
    events = iter(client.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"")["Body"])
    assert next(events)["PayloadPart"]["Bytes"] == b"first"
    first_was_read.set()
    assert next(events)["PayloadPart"]["Bytes"] == b"second"


def test_H09_a_stream_that_breaks_ends_with_an_exception(gateway: World, client: Any) -> None:
    name = gateway.endpoint(gateway.container(chunks(b"half", end=b"5\r\nno")))
    answer = client.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"")
    got = b""
    with pytest.raises(ClientError, match="ModelStreamError"):
        for event in answer["Body"]:
            got += event["PayloadPart"]["Bytes"]
    assert got.startswith(b"half")


def test_H09_a_failure_before_the_stream_is_an_ordinary_error(gateway: World, client: Any) -> None:
    name = gateway.endpoint(gateway.container(answering(b"bad", status="500 No")))
    status, response = refusal(client.invoke_endpoint_with_response_stream, EndpointName=name, Body=b"")
    assert (status, response["Error"]["Code"], response["OriginalMessage"]) == (424, "ModelError", "bad")


def test_H09_a_client_that_leaves_ends_the_stream_at_the_container(gateway: World) -> None:
    container_was_left = threading.Event()

    def for_ever(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                sock.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        except OSError:
            container_was_left.set()
        return False

    name = gateway.endpoint(gateway.container(for_ever), timeout_s=60.0)
    client = gateway.client()
    answer = client.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"")
    next(iter(answer["Body"]))
    answer["Body"].close()
    client.close()
    assert container_was_left.wait(60)


@pytest.mark.parametrize("operation", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_H05_an_answer_that_breaks_while_it_is_passed_on_has_ended_once(
    gateway: World, client: Any, operation: str
) -> None:
    """Counted twice, the instance would look less than idle: to its drain never empty, to the others always best."""
    long = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 600_000
    name = gateway.endpoint(gateway.container(sending(long)))
    ask = getattr(client, operation)
    # All inside: where it breaks at once, not even the head of the answer arrives.
    with (
        pytest.raises((BotoCoreError, ClientError)),
        closing(ask(EndpointName=name, Body=b"")["Body"]) as body,
    ):
        for _ in body:
            pass
    assert gateway.state().outstanding == 0


def test_L02_every_invocation_is_counted(tmp_path: Path) -> None:
    batches: dict[int, Any] = {}  # one that is not taken at once is offered again: control takes none twice
    with world(tmp_path, telemetry_interval_s=0.05) as gateway:
        gateway.hub._on_metrics = lambda batch: batches.setdefault(batch.sequence, batch)
        client = gateway.client()
        name = gateway.endpoint(gateway.container())
        bad = gateway.endpoint(gateway.container(answering(b"", status="500 No")))
        for _ in range(3):
            client.invoke_endpoint(EndpointName=name, Body=b"")["Body"].read()
            refusal(client.invoke_endpoint, EndpointName=bad, Body=b"")

        def total(endpoint: str, metric: str) -> tuple[float, float]:
            points = [
                p
                for b in list(batches.values())
                for p in b.points
                if p.name == metric and ("EndpointName", endpoint) in p.dimensions
            ]
            return sum(point.count for point in points), sum(point.sum for point in points)

        eventually(lambda: total(bad, "Invocations") == (3, 3) and total(name, "Invocations") == (3, 3))
        assert total(name, "Invocation5XXErrors") == (3, 0)
        assert total(bad, "Invocation5XXErrors") == (3, 3)
        assert total(bad, "InvocationModelErrors") == (3, 3)
        assert total(bad, "Invocation4XXErrors") == (3, 0)
        count, microseconds = total(name, "ModelLatency")
        assert count == 3
        assert microseconds > 0
        assert list(batches) == sorted(batches)
