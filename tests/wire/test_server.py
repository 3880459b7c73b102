"""The wire server with a toy table: in process through botocore, and over a real socket."""

import asyncio
import hashlib
import io
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from botocore.config import Config
from botocore.exceptions import ClientError

from clary.domain.clock import SystemClock
from clary.domain.faults import validation
from clary.testing.wire import TEST_ROOT, connect, example_keyring
from clary.wire.client import Client, Refused, Unreachable
from clary.wire.heads import Head
from clary.wire.http import HttpServer
from clary.wire.messages import Request
from clary.wire.models import ServiceModels
from clary.wire.operations import Answer, Call, FileBody, OperationTable, Readable, operation
from clary.wire.server import Threads, WireServer
from clary.wire.sigv4 import Identity, Verifier
from clary.wire.validate import validate


class Toys:
    """Handlers of several services; objects lie in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: list[Call] = []
        self.holds = threading.Event()
        self.holds.set()

    @operation("GetCallerIdentity")
    def get_caller_identity(self, call: Call, _: Mapping[str, Any]) -> Mapping[str, Any]:
        self.calls.append(call)
        return {"Account": call.account, "Arn": call.principal.arn, "UserId": call.principal.user_id}


class ToySageMaker:
    @operation("DescribeModel")
    def describe_model(self, call: Call, params: Mapping[str, Any]) -> Mapping[str, Any]:
        if params["ModelName"] == "bug":
            raise ZeroDivisionError
        raise validation(f'Could not find model "{params["ModelName"]}".')

    @operation("DeleteModel")
    def delete_model(self, call: Call, params: Mapping[str, Any]) -> None:
        return None


class ToyObjects:
    def __init__(self, toys: Toys) -> None:
        self._toys = toys

    @operation("PutObject")
    def put_object(self, call: Call, params: Mapping[str, Any]) -> Answer:
        body: Readable = params.get("Body", io.BytesIO())
        assert self._toys.holds.wait(300)
        digest = hashlib.md5(usedforsecurity=False)
        with (self._toys.directory / "uploading").open("wb") as file:
            while data := body.read(256 << 10):
                file.write(data)
                digest.update(data)
        (self._toys.directory / "uploading").rename(self._toys.directory / "object")
        return Answer({"ETag": f'"{digest.hexdigest()}"'}, headers={"x-amz-storage-class": "STANDARD"})

    @operation("GetObject")
    def get_object(self, call: Call, params: Mapping[str, Any]) -> Mapping[str, Any]:
        size = (self._toys.directory / "object").stat().st_size
        if params["Key"] == "in-parts":
            parts: Iterator[bytes] = iter([b"one", b"two"])
            return {"Body": parts}
        if params["Key"] == "vanished":
            return {"Body": FileBody(str(self._toys.directory / "nothing"), 0, 5), "ContentLength": 5}
        return {"Body": FileBody(str(self._toys.directory / "object"), 0, size), "ContentLength": size}


class ToyAdmin:
    @operation("GetStatus")
    def get_status(self, call: Call, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"endpoints": 0}

    @operation("Explain")
    def explain(self, call: Call, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"asked": params["Name"]}


@pytest.fixture(scope="module")
def models() -> ServiceModels:
    return ServiceModels(
        [
            ("sts", "GetCallerIdentity"),
            ("sagemaker", "DescribeModel"),
            ("sagemaker", "DeleteModel"),
            ("s3", "PutObject"),
            ("s3", "GetObject"),
        ]
    )


@pytest.fixture
def toys(tmp_path: Path) -> Toys:
    return Toys(tmp_path)


def a_server(models: ServiceModels, toys: Toys, **more: Any) -> WireServer:
    table = OperationTable()
    table.add("sts", toys)
    table.add("sagemaker", ToySageMaker())
    table.add("s3", ToyObjects(toys))
    table.add("clary", ToyAdmin())
    numbers = itertools.count()
    return WireServer(
        models,
        table,
        validate=validate,
        keys=Verifier(example_keyring()),
        clock=SystemClock(),
        new_request_id=lambda: f"id-{next(numbers)}",
        **more,
    )


@pytest.fixture
def server(models: ServiceModels, toys: Toys) -> Iterator[WireServer]:
    server = a_server(models, toys)
    yield server
    server.close()


def refusal(call: Callable[[], object]) -> tuple[str, str, int]:
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response
    return error["Error"]["Code"], error["Error"]["Message"], error["ResponseMetadata"]["HTTPStatusCode"]


def test_Z01_a_botocore_client_is_answered_in_process(server: WireServer, toys: Toys) -> None:
    answer = connect(server, region="eu-west-1").client("sts").get_caller_identity()
    assert answer["Account"] == "123456789012"
    assert answer["ResponseMetadata"]["RequestId"]
    assert toys.calls[0].region == "eu-west-1"


def test_Z01_faults_arrive_with_code_and_words(server: WireServer) -> None:
    sagemaker = connect(server).client("sagemaker")
    assert refusal(lambda: sagemaker.describe_model(ModelName="m")) == (
        "ValidationException",
        'Could not find model "m".',
        400,
    )
    assert sagemaker.delete_model(ModelName="m")["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_Z01_input_is_validated_before_the_handler_sees_it(server: WireServer) -> None:
    sagemaker = connect(server).client("sagemaker", config=Config(parameter_validation=False))
    code, message, status = refusal(lambda: sagemaker.describe_model(ModelName="-bad-"))
    assert (code, status) == ("ValidationException", 400)
    assert "1 validation error detected" in message


def test_Z01_a_bug_is_an_internal_failure_with_the_request_id_in_the_log(
    server: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    sagemaker = connect(server).client("sagemaker")
    code, message, status = refusal(lambda: sagemaker.describe_model(ModelName="bug"))
    assert (code, status) == ("InternalFailure", 500)
    assert "ZeroDivision" not in message
    [record] = [each for each in caplog.records if each.getMessage() == "operation failed"]
    assert record.exc_info is not None
    assert record.__dict__["operation"] == "DescribeModel" and record.__dict__["request_id"]


def test_Z01_what_is_not_built_is_refused_by_name(server: WireServer) -> None:
    clients = connect(server)
    assert refusal(lambda: clients.client("sagemaker").list_models())[:2] == (
        "ValidationException",
        "ListModels is not supported by this server",
    )
    s3 = clients.client("s3")
    assert refusal(lambda: s3.list_buckets()) == (
        "NotImplemented",
        "ListBuckets is not supported by this server",
        501,
    )
    iam = clients.client("iam")
    assert refusal(lambda: iam.list_users())[0] == "ValidationError"
    events = clients.client("events")
    assert "not served here" in refusal(lambda: events.list_rules())[1]


@pytest.mark.parametrize("size", [0, 5, 3 << 20])
def test_S3_bodies_go_in_and_out_with_checksums_and_chunks(server: WireServer, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    clients = connect(server)
    for config in (Config(), Config(s3={"payload_signing_enabled": False})):
        s3 = clients.client("s3", config=config)
        etag = s3.put_object(Bucket="bucket", Key="k", Body=data, ChecksumAlgorithm="CRC32")["ETag"]
        assert etag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == data


def test_a_request_signed_for_another_service_is_refused(server: WireServer) -> None:
    client = connect(server).client("sagemaker")
    client._request_signer._signing_name = "logs"
    code, message, _ = refusal(lambda: client.describe_model(ModelName="m"))
    assert code == "InvalidSignatureException" and "sagemaker" in message


# -- over a socket


def signed_head(method: str, target: str, service: str, body: bytes, *headers: tuple[str, str]) -> bytes:
    """A request as a gateway forwards it."""
    identity = identity_of(service, hashlib.sha256(body).hexdigest())
    lines = [
        f"{method} {target} HTTP/1.1",
        "host: h",
        f"content-length: {len(body)}",
        f"x-clary-identity: {identity.encode().decode()}",
        "x-clary-request-id: rid-7",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def identity_of(service: str, payload: str) -> Identity:
    grant = example_keyring().grant(TEST_ROOT.access_key_id, "")
    assert grant is not None
    return Identity(grant.principal, service, "us-east-1", "20261121T000000Z", "0" * 64, payload)


async def exchange(path: Path, data: bytes) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        return await read_answer(reader)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = b""
        while length := int(await reader.readline(), 16):
            body += await reader.readexactly(length)
            await reader.readexactly(2)
    return int(status.split()[1]), headers, body


def over_socket(server: WireServer, tmp_path: Path, scenario: Callable[[Path], Awaitable[None]]) -> None:
    async def main() -> None:
        listening: HttpServer = await server.serve(tmp_path / "control.sock")
        try:
            await asyncio.wait_for(scenario(tmp_path / "control.sock"), 60)
        finally:
            await listening.close(1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


JSON = (("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "SageMaker.DescribeModel"))


def test_Z01_a_forwarded_request_is_answered_with_the_gateways_request_id(
    server: WireServer, tmp_path: Path
) -> None:
    async def scenario(path: Path) -> None:
        body = b'{"ModelName":"m"}'
        status, headers, answer = await exchange(
            path, signed_head("POST", "/", "sagemaker", body, *JSON) + body
        )
        assert status == 400 and headers["x-amzn-requestid"] == "rid-7"
        assert json.loads(answer)["__type"] == "ValidationException"

    over_socket(server, tmp_path, scenario)
    assert ((tmp_path / "control.sock").stat().st_mode & 0o777) == 0o600


def test_Z04_a_body_other_than_the_signed_one_is_refused(server: WireServer, tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        body = b'{"ModelName":"m"}'
        forged = body.replace(b"m", b"n")
        status, _, answer = await exchange(path, signed_head("POST", "/", "sagemaker", body, *JSON) + forged)
        assert status == 403 and json.loads(answer)["__type"] == "InvalidSignatureException"

    over_socket(server, tmp_path, scenario)


def test_Z04_a_request_that_no_gateway_verified_is_refused(server: WireServer, tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        status, _, _ = await exchange(path, b"GET /_clary/status HTTP/1.1\r\nhost: h\r\n\r\n")
        assert status == 500

    over_socket(server, tmp_path, scenario)


def test_an_api_body_too_large_is_refused_in_its_protocol(
    models: ServiceModels, toys: Toys, tmp_path: Path
) -> None:
    server = a_server(models, toys, max_api_bytes=100)

    async def scenario(path: Path) -> None:
        body = b'{"ModelName":"' + b"m" * 200 + b'"}'
        status, _, answer = await exchange(path, signed_head("POST", "/", "sagemaker", body, *JSON) + body)
        assert status == 413 and json.loads(answer)["__type"] == "RequestEntityTooLargeException"

    over_socket(server, tmp_path, scenario)
    server.close()


def test_S3_an_upload_streams_and_comes_back_from_its_file(server: WireServer, tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        body = bytes(range(256)) * (32 << 10)
        status, headers, _ = await exchange(path, signed_head("PUT", "/b/k", "s3", body) + body)
        assert status == 200 and headers["x-amz-storage-class"] == "STANDARD"
        status, headers, answer = await exchange(path, signed_head("GET", "/b/k", "s3", b""))
        assert status == 200 and answer == body
        status, headers, answer = await exchange(path, signed_head("GET", "/b/in-parts", "s3", b""))
        assert answer == b"onetwo"
        status, headers, answer = await exchange(path, signed_head("GET", "/b/vanished", "s3", b""))
        assert status == 503 and b"<Code>ServiceUnavailable</Code>" in answer

    over_socket(server, tmp_path, scenario)


def test_S3_an_upload_that_breaks_off_or_is_forged_is_not_committed(
    server: WireServer, toys: Toys, tmp_path: Path
) -> None:
    async def scenario(path: Path) -> None:
        body = b"a" * (1 << 20)
        forged = body[:-1] + b"b"
        status, _, answer = await exchange(path, signed_head("PUT", "/b/k", "s3", body) + forged)
        assert status == 400 and b"XAmzContentSHA256Mismatch" in answer
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(signed_head("PUT", "/b/k", "s3", body) + body[: 1 << 19])
        await writer.drain()
        writer.close()

    over_socket(server, tmp_path, scenario)
    server.close()
    assert not (toys.directory / "object").exists()


def test_slow_uploads_do_not_starve_the_api_and_too_many_are_told_to_slow_down(
    models: ServiceModels, toys: Toys, tmp_path: Path
) -> None:
    server = a_server(models, toys, threads=Threads(api=1, api_queue=1, uploads=1, uploads_queue=1))
    toys.holds.clear()

    async def scenario(path: Path) -> None:
        body = b"a" * (1 << 20)
        put = signed_head("PUT", "/b/k", "s3", body) + body
        held = []
        for _ in range(2):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(put)
            held.append((reader, writer))
        while server.uploads_taken < 2:  # noqa: ASYNC110 -- what is waited for is the server's own state
            await asyncio.sleep(0.01)
        status, _, answer = await exchange(path, put)
        assert status == 503 and b"<Code>SlowDown</Code>" in answer
        question = b'{"ModelName":"m"}'
        status, _, _ = await exchange(path, signed_head("POST", "/", "sagemaker", question, *JSON) + question)
        assert status == 400
        toys.holds.set()
        for reader, writer in held:
            assert (await read_answer(reader))[0] == 200
            writer.close()

    over_socket(server, tmp_path, scenario)
    server.close()


def test_an_upload_larger_than_the_pipe_waits_for_its_reader(
    server: WireServer, toys: Toys, tmp_path: Path
) -> None:
    toys.holds.clear()

    async def scenario(path: Path) -> None:
        body = b"a" * (16 << 20)
        asyncio.get_running_loop().call_later(0.05, toys.holds.set)
        status, _, _ = await exchange(path, signed_head("PUT", "/b/k", "s3", body) + body)
        assert status == 200

    over_socket(server, tmp_path, scenario)
    assert (toys.directory / "object").stat().st_size == 16 << 20


def test_the_admin_api_is_json_without_a_model(server: WireServer, tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        status, headers, answer = await exchange(path, signed_head("GET", "/_clary/status", "clary", b""))
        assert (status, json.loads(answer)) == (200, {"endpoints": 0})
        assert headers["content-type"] == "application/json"
        _, _, answer = await exchange(path, signed_head("GET", "/_clary/why/my-endpoint", "clary", b""))
        assert json.loads(answer) == {"asked": "my-endpoint"}
        status, _, answer = await exchange(path, signed_head("GET", "/_clary/nothing", "clary", b""))
        assert status == 404

    over_socket(server, tmp_path, scenario)


def test_the_command_lines_client_signs_and_reads(server: WireServer) -> None:
    """Against a small gateway: verifies, forwards."""
    verifier = Verifier(example_keyring())
    ready: list[int] = []
    bound, done = threading.Event(), threading.Event()

    async def main() -> None:
        async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            text = await reader.readuntil(b"\r\n\r\n")
            line, *lines = text.strip().split(b"\r\n")
            headers = {name.lower(): value for name, value in (entry.split(b": ", 1) for entry in lines)}
            body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
            method, target, _ = line.split()
            head = Head(method, target, headers)
            identity = verifier.verify(head, hashlib.sha256(body).hexdigest())
            named = {name.decode(): value.decode() for name, value in headers.items()}
            request = Request(method.decode(), head.path.decode(), head.query.decode(), named, body)
            response = server.answer(request, identity, "rid")
            assert isinstance(response.body, bytes)
            fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
            status = f"HTTP/1.1 {response.status} X\r\ncontent-length: {len(response.body)}\r\n{fields}\r\n"
            writer.write(status.encode() + response.body)
            await writer.drain()
            writer.close()

        listening = await asyncio.start_server(front, "127.0.0.1", 0)
        ready.append(listening.sockets[0].getsockname()[1])
        bound.set()
        await asyncio.get_running_loop().run_in_executor(None, done.wait, 300)
        listening.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert bound.wait(300)
    url = f"http://127.0.0.1:{ready[0]}"
    client = Client(url, TEST_ROOT.access_key_id, TEST_ROOT.secret_access_key, "us-east-1")
    try:
        assert client.admin("GET", "/_clary/why/some name") == {"asked": "some name"}
        with pytest.raises(Refused, match="Could not find model") as caught:
            client.call_json("sagemaker", "DescribeModel", {"ModelName": "m"})
        assert caught.value.code == "ValidationException"
    finally:
        done.set()
        thread.join(300)
    with pytest.raises(Unreachable):
        client.admin("GET", "/_clary/status")
