"""The port as an HTTPS proxy: AWS's hosts end here, others are tunnelled to or refused, and only with the token."""

import base64
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGTERM
from typing import Any, Literal

import botocore.config
import botocore.session
import pytest
from botocore.exceptions import ClientError

from clary import authority, certificates, credentials
from clary.links import upstream_proxy
from clary.links.upstream_proxy import UpstreamProxy
from clary.wire.sigv4 import Identity
from scenarios.gateway_world import PATIENCE_S, REGION, Container, World, answering, world

STS = "sts.us-east-1.amazonaws.com"
ANSWER = b"<GetCallerIdentityResponse><GetCallerIdentityResult/></GetCallerIdentityResponse>"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("p")) as made:
        authority.make(made.settings, datetime.now(UTC))
        yield made


@pytest.fixture
def control(gateway: World) -> Iterator[Container]:
    container = Container(gateway.settings.control_socket)
    yield container
    container.close()


def test_U02_sdk_calls_to_a_fixed_host_are_served_with_their_signature(
    gateway: World, control: Container
) -> None:
    control.behaviour = answering(ANSWER, headers="content-type: text/xml\r\n")
    _client(gateway, "sts", f"https://{STS}").get_caller_identity()
    seen = control.seen[-1]
    assert seen.headers["host"] == STS
    identity = Identity.decode(seen.headers["x-clary-identity"].encode())
    assert (identity.service, identity.region) == ("sts", "us-east-1")
    assert identity.principal.is_root
    assert "proxy-authorization" not in seen.headers


def test_Z01_a_wrong_signature_is_refused_on_a_fixed_host_too(gateway: World, control: Container) -> None:
    client = _client(gateway, "sts", f"https://{STS}", secret="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.get_caller_identity()
    assert control.seen == []


def test_U02_a_virtual_bucket_is_verified_as_signed_and_routed_by_path(
    gateway: World, control: Container
) -> None:
    control.behaviour = answering(headers='etag: "abc"\r\n')
    s3 = _client(gateway, "s3", "https://s3.eu-west-1.amazonaws.com", region="eu-west-1", s3="virtual")
    body = bytes(range(256)) * 8000
    assert s3.put_object(Bucket="my-bucket", Key="a b/ü", Body=body)["ETag"] == '"abc"'
    seen = control.seen[-1]
    assert seen.line == "PUT /my-bucket/a%20b/%C3%BC HTTP/1.1"
    assert seen.headers["host"] == "my-bucket.s3.eu-west-1.amazonaws.com"
    assert Identity.decode(seen.headers["x-clary-identity"].encode()).region == "eu-west-1"


def test_U02_the_runtime_s_own_host_reaches_instances(gateway: World) -> None:
    name = gateway.endpoint(gateway.container(answering(b"4.2")))
    runtime = _client(gateway, "sagemaker-runtime", f"https://runtime.sagemaker.{REGION}.amazonaws.com")
    for _ in range(3):
        assert runtime.invoke_endpoint(EndpointName=name, Body=b"1")["Body"].read() == b"4.2"


def test_U02_telemetry_is_answered_and_dropped(gateway: World, control: Container) -> None:
    host = "sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com"
    with _inside(gateway, host) as connection:
        for _ in range(2):
            connection.request("GET", "/telemetry?x-accountId=123456789012")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
    assert control.seen == []


@pytest.mark.parametrize("authorization", [None, "Basic Y2xhcnk6d3Jvbmc=", "Bearer x", ""])
def test_Z01_without_the_token_there_is_no_proxy(gateway: World, authorization: str | None) -> None:
    for host in (STS, "pypi.org"):
        status, headers, words = _connect(gateway, f"{host}:443", authorization)
        assert status == 407
        assert headers["proxy-authenticate"].startswith("Basic")
        assert "clary env" in words


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("localhost:443", "this machine"),
        ("127.0.0.1:443", "this machine"),
        ("[::1]:443", "this machine"),
        ("0.0.0.0:443", "this machine"),
        ("169.254.169.254:443", "link-local"),
        ("pypi.org:80", "port 443 only"),
        (f"{STS}:80", "port 443 only"),
        ("a.b.c.us-east-1.amazonaws.com:443", "no certificate"),
    ],
)
def test_Z01_where_the_proxy_does_not_lead_it_says_so(gateway: World, target: str, words: str) -> None:
    status, _, said = _connect(gateway, target, _token(gateway))
    assert status == 403
    assert words in said


def test_U02_clients_show_the_words_of_a_refusal(gateway: World) -> None:
    with _inside(gateway, "localhost") as connection, pytest.raises(OSError, match="is this machine"):
        connection.request("GET", "/")


def test_U02_other_hosts_are_reached_through_the_proxy_that_was_set_before(gateway: World) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def corporate_proxy() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(PATIENCE_S)
                while b"\r\n\r\n" not in b"".join(asked):
                    asked.append(sock.recv(4096))
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                sock.sendall(b"you said " + sock.recv(5))

        thread = threading.Thread(target=corporate_proxy, daemon=True)
        thread.start()
        url = f"http://me:pw@127.0.0.1:{listening.getsockname()[1]}"
        upstream_proxy.note(gateway.settings, UpstreamProxy(url))
        with _raw_connect(gateway, "index.invalid:443", _token(gateway)) as sock:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
            sock.sendall(b"hello")
            said = b""
            while part := sock.recv(4096):
                said += part
        thread.join(PATIENCE_S)
    upstream_proxy.note(gateway.settings, UpstreamProxy())
    assert said == b"you said hello"
    assert b"".join(asked).startswith(b"CONNECT index.invalid:443 HTTP/1.1\r\n")
    assert base64.b64encode(b"me:pw") in b"".join(asked)


def test_Z01_what_is_no_tls_ends_and_the_gateway_goes_on(gateway: World) -> None:
    with _raw_connect(gateway, f"{STS}:443", _token(gateway)) as sock:
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass
    with socket.create_connection(_address(gateway), PATIENCE_S) as sock:
        sock.sendall(b"CONN")
        sock.sendall(b"ECT /\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 400 ")
    with _inside(gateway, STS) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 403


def test_U02_a_request_that_comes_in_bytes_is_an_ordinary_request(gateway: World) -> None:
    with socket.create_connection(_address(gateway), PATIENCE_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"COPY / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert sock.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_Z04_a_gateway_stops_at_once_whatever_hangs_in_its_front(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        authority.make(made.settings, datetime.now(UTC))
        with (
            socket.create_connection(_address(made), PATIENCE_S) as silent,
            _inside(made, STS) as idle,
        ):
            idle.request("GET", "/")
            idle.getresponse().read()
            process = made.processes[0]
            process.send_signal(SIGTERM)
            assert process.wait(PATIENCE_S) == 0
            assert silent.recv(1) == b""


def _client(
    gateway: World,
    service: str,
    url: str,
    *,
    secret: str = "",
    region: str = REGION,
    s3: Literal["auto", "virtual"] = "auto",
) -> Any:
    token = credentials.proxy_token(gateway.settings)
    host, port = _address(gateway)
    client = botocore.session.Session().create_client(
        service,
        region_name=region,
        endpoint_url=url,
        verify=str(certificates.authority_file(gateway.settings)),
        aws_access_key_id=gateway.root.access_key_id,
        aws_secret_access_key=secret or gateway.root.secret_access_key,
        config=botocore.config.Config(
            retries={"total_max_attempts": 1},
            read_timeout=PATIENCE_S,
            proxies={"https": f"http://clary:{token}@{host}:{port}"},
            s3={"addressing_style": s3},
        ),
    )
    gateway.clients.append(client)
    return client


@contextlib.contextmanager
def _inside(gateway: World, host: str) -> Iterator[http.client.HTTPSConnection]:
    """The standard library's client, through the proxy, trusting nothing but the authority."""
    trusting = ssl.create_default_context(cafile=str(certificates.authority_file(gateway.settings)))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    connection = http.client.HTTPSConnection(*_address(gateway), timeout=PATIENCE_S, context=trusting)
    connection.set_tunnel(host, 443, {"Proxy-Authorization": _token(gateway)})
    try:
        yield connection
    finally:
        connection.close()


def _connect(gateway: World, target: str, authorization: str | None) -> tuple[int, dict[str, str], str]:
    with _raw_connect(gateway, target, authorization) as sock:
        answer = b""
        while part := sock.recv(4096):
            answer += part
    head, _, body = answer.decode().partition("\r\n\r\n")
    line, *fields = head.split("\r\n")
    assert line.split(" ", 2)[2] == body.strip()
    return int(line.split()[1]), dict(field.split(": ", 1) for field in fields), body


def _raw_connect(gateway: World, target: str, authorization: str | None) -> socket.socket:
    sock = socket.create_connection(_address(gateway), PATIENCE_S)
    said = "" if authorization is None else f"Proxy-Authorization: {authorization}\r\n"
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{said}\r\n".encode())
    return sock


def _token(gateway: World) -> str:
    said = f"clary:{credentials.proxy_token(gateway.settings)}"
    return f"Basic {base64.b64encode(said.encode()).decode()}"


def _address(gateway: World) -> tuple[str, int]:
    host, port = gateway.listening.getsockname()
    return host, port
