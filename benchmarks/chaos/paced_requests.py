"""What a paced client asks, and the signatures of it: a signed request is good for as long as its second lasts."""

import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.platform import Platform


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what each model says to it."""

    body: bytes
    sha256: str
    expected: Sequence[float]


class Signing:
    """SigV4 of invocations; what does not change within a second is kept that long."""

    def __init__(self, platform: Platform) -> None:
        key = platform.running.key
        self._secret, self._id = key.secret_access_key, key.access_key_id
        self._host = f"127.0.0.1:{platform.port}"
        self._second = 0
        self._made: dict[tuple[str, str], bytes] = {}

    def request(self, endpoint: str, asked: Asked) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._made.clear()
            self._begin_second(datetime.fromtimestamp(second, UTC))
        known = (endpoint, asked.sha256)
        request = self._made.get(known)
        if request is None:
            request = self._made[known] = self._sign(f"/endpoints/{endpoint}/invocations", asked)
        return request

    def _begin_second(self, now: datetime) -> None:
        self._moment = f"{now:%Y%m%dT%H%M%SZ}"
        day = f"{now:%Y%m%d}"
        self._scope = f"{day}/us-east-1/sagemaker/aws4_request"
        key = f"AWS4{self._secret}".encode()
        for part in (day, "us-east-1", "sagemaker", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key

    def _sign(self, path: str, asked: Asked) -> bytes:
        signed = "content-type;host;x-amz-date"
        canonical = (
            f"POST\n{path}\n\ncontent-type:text/csv\nhost:{self._host}\nx-amz-date:{self._moment}\n\n"
            f"{signed}\n{asked.sha256}"
        )
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self._moment}\n{self._scope}\n{hashed}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: text/csv\r\n"
            f"X-Amz-Date: {self._moment}\r\nContent-Length: {len(asked.body)}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self._id}/{self._scope}, SignedHeaders={signed}, "
            f"Signature={signature}\r\n\r\n"
        ).encode() + asked.body
