"""AWS clients that run in process: real botocore, real signatures, real serializing, no socket.

    clients = connect(server)
    clients.client("sagemaker").create_model(...)

A client's request is caught just before it would be sent, its signature is verified, the wire server answers
it, and botocore parses the answer. Every successful answer is also checked against the operation's output shape.
"""

import hashlib
import io
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from clary.domain.faults import Fault
from clary.testing.shapes import check_output
from clary.wire.faults import serialize_fault
from clary.wire.heads import Head
from clary.wire.identify import identify, is_form
from clary.wire.messages import Request, Response
from clary.wire.operations import FileBody
from clary.wire.server import WireServer
from clary.wire.sigv4 import Credentials, KeyRing, Verifier

TEST_ACCOUNT = "123456789012"
TEST_REGION = "us-east-1"
TEST_ROOT = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
ENDPOINT_URL = "http://127.0.0.1:8470"


def example_keyring(account: str = TEST_ACCOUNT) -> KeyRing:
    """The keys that `connect` signs with."""
    return KeyRing(TEST_ROOT, bytes(32), account)


class Clients:
    """Makes botocore clients of one wire server."""

    def __init__(self, server: WireServer, verifier: Verifier, credentials: Credentials, region: str) -> None:
        self._server = server
        self._verifier = verifier
        self._credentials = credentials
        self._region = region
        self._session = botocore.session.Session()

    def client(self, service: str, *, config: Config | None = None, endpoint_url: str = ENDPOINT_URL) -> Any:
        """A botocore client. It makes one attempt, so that a fault shows as it is."""
        once = Config(retries={"total_max_attempts": 1})
        client = self._session.create_client(
            service,
            region_name=self._region,
            endpoint_url=endpoint_url,
            aws_access_key_id=self._credentials.access_key_id,
            aws_secret_access_key=self._credentials.secret_access_key,
            aws_session_token=self._credentials.session_token or None,
            config=once.merge(config) if config is not None else once,
        )
        client.meta.events.register("before-send.*.*", self._answer)  # type: ignore[arg-type]
        client.meta.events.register("after-call.*.*", _check)
        return client

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        head, body = _received(request)
        response = self.exchange(head, body)
        headers = {name.lower(): value for name, value in response.headers}
        content = b"" if request.method == "HEAD" else b"".join(_parts(response))
        return AWSResponse(request.url, response.status, headers, _Raw(content))  # type: ignore[arg-type]

    def exchange(self, head: Head, body: bytes) -> Response:
        """One raw request: verified as a gateway does, answered as control does."""
        request_id = str(uuid.uuid4())
        form = body if is_form(head) else b""
        try:
            identity = self._verifier.verify(
                head, hashlib.sha256(body).hexdigest() if _is_hashed(head) else None
            )
        except Fault as fault:
            return serialize_fault(
                identify(head, form),
                fault,
                request_id,
                method=head.method.decode(),
                resource=head.path.decode(),
            )
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers.items()}
        request = Request(head.method.decode(), head.path.decode(), head.query.decode(), headers, body)
        return self._server.answer(request, identity, request_id)


def connect(
    server: WireServer,
    *,
    keyring: KeyRing | None = None,
    credentials: Credentials = TEST_ROOT,
    region: str = TEST_REGION,
    now: Callable[[], float] | None = None,
) -> Clients:
    """Clients of `server`. `keyring` must be the one that the server's `keys` verify with."""
    keyring = keyring or example_keyring()
    verifier = Verifier(keyring) if now is None else Verifier(keyring, now)
    return Clients(server, verifier, credentials, region)


def _is_hashed(head: Head) -> bool:
    return len(head.get(b"x-amz-content-sha256")) in (0, 64)


def _received(request: AWSPreparedRequest) -> tuple[Head, bytes]:
    body: Any = request.body or b""
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, str):
        body = body.encode()
    headers = {name.lower().encode(): _encoded(value) for name, value in request.headers.items()}
    _, _, rest = request.url.partition("://")
    netloc, slash, target = rest.partition("/")
    headers.setdefault(b"host", netloc.encode())
    return Head(request.method.encode(), (slash + target or "/").encode(), headers), bytes(body)


def _encoded(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _parts(response: Response) -> Iterator[bytes]:
    body = response.body
    if isinstance(body, bytes):
        yield body
    elif isinstance(body, FileBody):
        with open(body.path, "rb") as file:  # noqa: PTH123 -- a plain read of a path that the handler gave
            file.seek(body.offset)
            yield file.read(body.length)
    else:
        yield from body


class _Raw(io.BytesIO):
    """What botocore takes for urllib3's response."""

    def stream(self, size: int = 65536, **_: object) -> Iterator[bytes]:
        while data := self.read(size):
            yield data


# A stream (it can be closed) is for the caller to read; the rest must fit the output's shape.
def _check(http_response: AWSResponse, parsed: dict[str, Any], model: Any, **_: object) -> None:
    if http_response.status_code < 300:
        check_output(model, {name: value for name, value in parsed.items() if not hasattr(value, "close")})
