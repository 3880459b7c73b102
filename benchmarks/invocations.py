"""Requests that are written beforehand, so that a client only sends: plain for an instance, signed for the port."""

from collections.abc import Iterable, Iterator

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.platform import Platform

CSV = "text/csv"


def plain(body: bytes, content_type: str = CSV) -> bytes:
    """As an instance gets it."""
    head = f"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def signed(
    platform: Platform, endpoint: str, bodies: Iterable[bytes], content_type: str = CSV
) -> Iterator[bytes]:
    """The same as InvokeEndpoint, each signed by botocore. A signature is good for five minutes."""
    key = platform.running.key
    signer = SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1")
    path = f"/endpoints/{endpoint}/invocations"
    for body in bodies:
        request = AWSRequest(
            "POST",
            platform.running.url + path,
            data=body,
            headers={"Content-Type": content_type, "Accept": content_type},
        )
        signer.add_auth(request)
        request.headers["Host"] = f"127.0.0.1:{platform.port}"
        request.headers["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        yield f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body
