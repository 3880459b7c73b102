"""What is not a runtime operation reaches control as it was sent, and nothing unverified does."""

import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from types import MappingProxyType

import pytest
from botocore.exceptions import ClientError

from clary.wire.sigv4 import Identity, sign
from scenarios.gateway_world import REGION, Behaviour, Container, Seen, World, answering, eventually, world


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("f"), max_api_bytes=1 << 20) as made:
        yield made


@pytest.fixture
def control(gateway: World) -> Iterator[Container]:
    container = Container(gateway.settings.control_socket)
    yield container
    container.close()


def json_answer(body: bytes) -> Behaviour:
    return answering(body, headers="content-type: application/x-amz-json-1.1\r\nx-amzn-requestid: theirs\r\n")


def test_U05_a_call_reaches_control_with_its_verified_caller(gateway: World, control: Container) -> None:
    control.behaviour = json_answer(b'{"Models": []}')
    answer = gateway.client("sagemaker", region="eu-central-1").list_models(NameContains="x")
    assert answer["Models"] == []
    assert answer["ResponseMetadata"]["RequestId"] == "theirs"
    seen = control.seen[-1]
    assert seen.line == "POST / HTTP/1.1"
    assert seen.headers["x-amz-target"] == "SageMaker.ListModels"
    assert seen.headers["host"].startswith("127.0.0.1:")
    assert seen.body == b'{"NameContains": "x"}'
    identity = Identity.decode(seen.headers["x-clary-identity"].encode())
    assert (identity.service, identity.region) == ("sagemaker", "eu-central-1")
    assert identity.principal.is_root
    assert identity.payload == sha256(seen.body).hexdigest()
    assert len(seen.headers["x-clary-request-id"]) == 36


def test_U05_an_upload_is_streamed_and_its_answer_comes_back(gateway: World, control: Container) -> None:
    control.behaviour = answering(headers='etag: "abc"\r\n')
    body = bytes(range(256)) * 40_000  # larger than the limit of the API
    client = gateway.client("s3")
    assert client.put_object(Bucket="bucket", Key="a b/ü.bin", Body=body)["ETag"] == '"abc"'
    seen = control.seen[-1]
    assert seen.line == "PUT /bucket/a%20b/%C3%BC.bin HTTP/1.1"
    assert sha256(seen.body).digest() == sha256(body).digest()
    assert "expect" not in seen.headers


def test_U05_a_download_is_streamed(gateway: World, control: Container) -> None:
    body = bytes(range(256)) * 40_000
    control.behaviour = answering(body, headers='etag: "abc"\r\n')
    answer = gateway.client("s3").get_object(Bucket="bucket", Key="key")
    assert sha256(answer["Body"].read()).digest() == sha256(body).digest()


def test_U05_head_tells_the_length_without_a_body(gateway: World, control: Container) -> None:
    def head(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 7777\r\netag: "abc"\r\n\r\n')
        return True

    control.behaviour = head
    client = gateway.client("s3")
    for _ in range(3):
        assert client.head_object(Bucket="bucket", Key="key")["ContentLength"] == 7777
    assert control.connections == 1


def test_U05_chunks_of_control_arrive(gateway: World, control: Container) -> None:
    def chunked(sock: socket.socket, seen: Seen) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n<List\r\n")
        sock.sendall(b"d\r\nAllMyBuckets/\r\n0\r\n\r\n")
        return True

    control.behaviour = chunked
    answer = _raw(gateway, "GET", "/")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"<List" in answer


def test_Z01_what_a_client_says_of_itself_is_dropped(gateway: World, control: Container) -> None:
    control.behaviour = answering(b"")
    _raw(gateway, "GET", "/bucket", unsigned={"x-clary-identity": "root", "x-clary-anything": "1"})
    seen = control.seen[-1]
    assert seen.headers["x-clary-identity"].startswith("{")
    assert "x-clary-anything" not in seen.headers


def test_Z01_what_is_not_signed_never_reaches_control(gateway: World, control: Container) -> None:
    client = gateway.client("sagemaker")
    client._request_signer._credentials.secret_key = "wrong"
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        client.list_models()
    s3 = gateway.client("s3")
    s3._request_signer._credentials.secret_key = "wrong"
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3.put_object(Bucket="bucket", Key="key", Body=b"x" * 100_000)
    assert control.seen == []


def test_U05_an_upload_is_only_asked_for_when_it_may_come(gateway: World, control: Container) -> None:
    """`Expect: 100-continue`: a wrong signature is refused before a byte of the body is sent."""
    control.behaviour = answering(b"")
    waits = {"expect": "100-continue"}
    good = _raw(gateway, "PUT", "/bucket/key", body=b"x" * 10, unsigned=waits)
    assert good.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    bad = _raw(gateway, "PUT", "/bucket/key", body=b"x" * 10, unsigned={**waits, "x-amz-unsigned": "1"})
    assert bad.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("service", ["sagemaker", "s3", "sts"])
def test_Z04_without_control_the_refusal_is_quick_and_plain(gateway: World, service: str) -> None:
    client = gateway.client(service)
    call = {
        "sagemaker": client.list_models if service == "sagemaker" else None,
        "s3": client.list_buckets if service == "s3" else None,
        "sts": client.get_caller_identity if service == "sts" else None,
    }[service]
    assert call is not None
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert "control plane is not running" in caught.value.response["Error"]["Message"]


def test_Z04_control_that_dies_in_a_call_is_a_refusal_and_the_next_call_works(
    gateway: World, control: Container
) -> None:
    client = gateway.client("sagemaker")
    control.behaviour = lambda sock, seen: False
    with pytest.raises(ClientError) as caught:
        client.list_models()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    control.behaviour = json_answer(b'{"Models": []}')
    assert client.list_models()["Models"] == []


def test_H02_a_request_too_large_is_refused_in_its_protocol(gateway: World, control: Container) -> None:
    with pytest.raises(ClientError) as caught:
        gateway.client("sagemaker").create_model(
            ModelName="m", PrimaryContainer={"Environment": {"a": "x" * (1 << 20)}}
        )
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert control.seen == []


def test_U05_an_upload_its_client_gives_up_ends_at_control(gateway: World, control: Container) -> None:
    head = _signed_head(gateway, "PUT", "/bucket/key", {"content-length": "1000000"}, sha256(b"").hexdigest())
    with _connect(gateway) as sock:
        sock.sendall(head + b"x" * 1000)
        eventually(lambda: control.connections == 1)
    eventually(lambda: not any(thread.is_alive() for thread in control._threads[1:]))
    assert len(control.seen) <= 1
    assert all((b"x" * 1000).startswith(seen.body) for seen in control.seen)  # as far as it was passed on


def test_U05_an_early_answer_of_control_reaches_a_client_that_still_sends(
    gateway: World, control: Container
) -> None:
    """Control refuses on the head alone; the client, in the middle of a long upload, learns why."""

    def refuse(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 409 Conflict\r\ncontent-length: 5\r\n\r\nearly")
        while sock.recv(65536):
            pass

    control.raw = refuse
    head = _signed_head(gateway, "PUT", "/bucket/key", {"content-length": "100000000"}, "UNSIGNED-PAYLOAD")
    with _connect(gateway) as sock:
        sock.sendall(head + b"x" * 100_000)
        assert b"409 Conflict" in sock.recv(65536)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_Z04_the_gateway_holds_little_of_what_the_other_side_does_not_take(
    gateway: World, control: Container, direction: str
) -> None:
    """64 MiB on the way, and a receiver that takes nothing until the sender is stuck."""
    size = 64 << 20
    let_go = threading.Event()
    stuck = threading.Event()
    taken = []

    def take_all(sock: socket.socket) -> None:
        assert let_go.wait(60)
        while data := sock.recv(1 << 20):
            taken.append(len(data))

    def send_all(sock: socket.socket) -> None:
        sock.settimeout(1.0)
        piece, sent = b"x" * (1 << 16), 0
        while sent < size:
            try:
                sent += sock.send(piece)
            except TimeoutError:
                stuck.set()
        stuck.set()

    def download(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        send_all(sock)

    before = gateway.state().memory_bytes
    with _connect(gateway) as sock:
        if direction == "up":
            control.raw = take_all
            more = {"content-length": str(size)}
            sock.sendall(_signed_head(gateway, "PUT", "/bucket/key", more, "UNSIGNED-PAYLOAD"))
            sender = threading.Thread(target=send_all, args=(sock,))
            sender.start()
        else:
            control.raw = download
            sock.sendall(_signed_head(gateway, "GET", "/bucket/key", {}, sha256(b"").hexdigest()))
        assert stuck.wait(60)
        assert gateway.state().memory_bytes - before < 16 << 20
        let_go.set()
        if direction == "up":
            sender.join(60)
        else:
            while sum(taken) < size and (data := sock.recv(1 << 20)):
                taken.append(len(data))
    eventually(lambda: sum(taken) >= size)


def _connect(gateway: World) -> socket.socket:
    return socket.create_connection(gateway.listening.getsockname(), timeout=60)


def _signed_head(gateway: World, method: str, path: str, unsigned: dict[str, str], body_sha256: str) -> bytes:
    headers = {"host": "127.0.0.1"}
    headers |= sign(
        gateway.root, method, path, headers, body_sha256, service="s3", region=REGION, at=datetime.now(UTC)
    )
    lines = [f"{name}: {value}\r\n" for name, value in (headers | unsigned).items()]
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


def _raw(
    gateway: World,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    unsigned: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """One request on a connection of its own, with all that comes back."""
    more = {"connection": "close", "content-length": str(len(body)), **unsigned}
    head = _signed_head(gateway, method, path, more, sha256(body).hexdigest())
    with _connect(gateway) as sock:
        sock.sendall(head)
        got = b""
        if "expect" in unsigned:
            got = sock.recv(65536)
            if not got.startswith(b"HTTP/1.1 100"):
                return got
        sock.sendall(body)
        while data := sock.recv(65536):
            got += data
    return got
