"""A small signed client for the command line: what `clary status` and its like need, without botocore's weight.

ClientError
├── Unreachable     nobody listens there, or it stopped in the middle
└── Refused         the server answered with a fault: `code`, `message`, `status`
"""

import hashlib
import http.client
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from clary.wire.sigv4 import Credentials, sign

_TARGETS = {
    "sagemaker": ("SageMaker", "1.1"),
    "logs": ("Logs_20140328", "1.1"),
}


class ClientError(Exception):
    """A call did not succeed."""


class Unreachable(ClientError):
    """There is no answer."""


class Refused(ClientError):
    """The answer is a fault."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message


def _now() -> datetime:
    return datetime.now(UTC)


class Client:
    """Calls one server. A call opens its own connection, so a client may be kept for as long as one likes."""

    def __init__(
        self,
        endpoint_url: str,
        access_key_id: str,
        secret_access_key: str,
        region: str,
        *,
        timeout_s: float = 30.0,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._netloc = urlsplit(endpoint_url).netloc
        self._credentials = Credentials(access_key_id, secret_access_key)
        self._region = region
        self._timeout_s = timeout_s
        self._now = now

    def call_json(self, service: str, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Calls an operation of a JSON service by its botocore name and gives the output members."""
        prefix, version = _TARGETS[service]
        headers = {
            "content-type": f"application/x-amz-json-{version}",
            "x-amz-target": f"{prefix}.{operation}",
        }
        return self._exchange("POST", "/", headers, json.dumps(params).encode(), service)

    def admin(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Calls an operation of this server's own, below `/_clary/`."""
        body = b"" if params is None else json.dumps(params).encode()
        return self._exchange(
            method, quote(path, safe="/-_.~"), {"accept": "application/json"}, body, "clary"
        )

    def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes, service: str
    ) -> dict[str, Any]:
        headers = {"host": self._netloc, **headers}
        signature = sign(
            self._credentials,
            method,
            target,
            headers,
            hashlib.sha256(body).hexdigest(),
            service=service,
            region=self._region,
            at=self._now(),
        )
        connection = http.client.HTTPConnection(self._netloc, timeout=self._timeout_s)
        try:
            connection.request(method, target, body=body or None, headers={**headers, **signature})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"no answer from http://{self._netloc}: {error}") from error
        finally:
            connection.close()
        return _outcome(response.status, response.getheader("x-amzn-errortype"), content)


def _outcome(status: int, error_type: str | None, content: bytes) -> dict[str, Any]:
    try:
        members = json.loads(content) if content else {}
    except ValueError as error:
        raise Unreachable(f"the answer (status {status}) is not JSON") from error
    if not isinstance(members, dict):
        raise Unreachable(f"the answer (status {status}) is not a JSON object")
    if status < 300:
        return members
    code = error_type or str(members.get("__type", "UnknownError"))
    raise Refused(status, code, str(members.get("message", members.get("Message", ""))))
