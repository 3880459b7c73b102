"""Requests that are written beforehand, so that a client only sends: plain for an instance, signed for the port."""

from collections.abc import Iterable, Iterator

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.platform import Platform


def plain(body: bytes) -> bytes:
    """One row of CSV, as an instance gets it."""
    return (
        b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    ) + body


def signed(platform: Platform, endpoint: str, bodies: Iterable[bytes]) -> Iterator[bytes]:
    """The same as InvokeEndpoint, each signed by botocore. A signature is good for five minutes."""
    key = platform.running.key
    signer = SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1")
    path = f"/endpoints/{endpoint}/invocations"
    for body in bodies:
        request = AWSRequest(
            "POST",
            platform.running.url + path,
            data=body,
            headers={"Content-Type": "text/csv", "Accept": "text/csv"},
        )
        signer.add_auth(request)
        request.headers["Host"] = f"127.0.0.1:{platform.port}"
        request.headers["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        yield f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
