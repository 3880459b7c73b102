"""Links that may be followed without keys: a query operation with its signature in the URL.

Such a link lets whoever holds it make one call, as it is written, until it ends; nothing else can be made of it.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from clary.wire.canonical import canonical_query
from clary.wire.sigv4 import Credentials, signing_key

LONGEST_S = 604_800

_ALGORITHM = "AWS4-HMAC-SHA256"


class Links:
    """Links to this server. `now` gives real time, as authentication goes by it."""

    def __init__(
        self,
        credentials: Credentials,
        endpoint_url: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._credentials = credentials
        self._endpoint_url = endpoint_url
        self._now = now

    def __call__(self, service: str, region: str, params: Mapping[str, str], lasts_s: int) -> str:
        """A GET of a query operation, `Action` and `Version` among its parameters."""
        amz_date = f"{self._now():%Y%m%dT%H%M%SZ}"
        scope = f"{amz_date[:8]}/{region}/{service}/aws4_request"
        signed = {
            **params,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self._credentials.access_key_id}/{scope}",
            "X-Amz-Date": amz_date,
            "X-Amz-Expires": str(min(lasts_s, LONGEST_S)),
            "X-Amz-SignedHeaders": "host",
        }
        query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in signed.items())
        host = urlsplit(self._endpoint_url).netloc
        request = "\n".join(
            (
                "GET",
                "/",
                canonical_query(query.encode()).decode(),
                f"host:{host}",
                "",
                "host",
                hashlib.sha256(b"").hexdigest(),
            )
        )
        text = "\n".join((_ALGORITHM, amz_date, scope, hashlib.sha256(request.encode()).hexdigest()))
        key = signing_key(self._credentials.secret_access_key, amz_date[:8], region, service)
        signature = hmac.new(key, text.encode(), "sha256").hexdigest()
        return f"{self._endpoint_url}/?{query}&X-Amz-Signature={signature}"
