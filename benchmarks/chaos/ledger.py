"""The accounts of a load: what a client asked, what it was answered, and what the server says it served."""

import http.client
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psutil
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.platform import Platform


class SignedConnection:
    """One keep-alive connection that invokes an endpoint; every request is signed anew."""

    def __init__(self, platform: Platform, timeout_s: float = 30.0) -> None:
        key = platform.running.key
        self._url = platform.url
        self._signer = SigV4Auth(
            Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1"
        )
        self._connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=timeout_s)

    def connect(self) -> int:
        """Opens the connection now; the local port, by which the accepting gateway can be found."""
        self._connection.connect()
        return int(self._connection.sock.getsockname()[1])

    def invoke(self, endpoint: str, body: str) -> tuple[int, bytes]:
        path = f"/endpoints/{endpoint}/invocations"
        request = AWSRequest(
            "POST", self._url + path, data=body.encode(), headers={"Content-Type": "text/csv"}
        )
        self._signer.add_auth(request)
        self._connection.request("POST", path, body.encode(), dict(request.headers.items()))
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()


def connection_to(platform: Platform, gateway: str) -> SignedConnection:
    """A connection that this very gateway accepted: both accept from one socket, so it is tried until it fits."""
    identity = platform.process(gateway)
    assert identity is not None, f"{gateway} runs"
    for _ in range(200):
        connection = SignedConnection(platform)
        port = connection.connect()
        # A first request makes sure that the connection was accepted and not only queued.
        connection.invoke("nobody", "1")
        if any(c.raddr and c.raddr.port == port for c in psutil.Process(identity.pid).net_connections("tcp")):
            return connection
        connection.close()
    raise RuntimeError(f"no connection of 200 came to {gateway}")


@dataclass(slots=True)
class Ledger:
    """The client's side of the account. `broken` counts connections that ended without an answer."""

    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> int:
        return self.right + sum(self.wrong.values()) + sum(self.broken.values())

    def __str__(self) -> str:
        text = f"{self.asked:,} asked, {self.right:,} right"
        if self.wrong:
            text += f", wrong: {dict(self.wrong.most_common(3))}"
        if self.broken:
            text += f", broken: {dict(self.broken.most_common(3))}"
        return text


def served(platform: Platform, endpoint: str, variant: str = "AllTraffic") -> int:
    """The server's side of the account: the sum of Invocations as CloudWatch tells it."""
    return counted(platform, "AWS/SageMaker", "Invocations", endpoint, variant)


def counted(
    platform: Platform, namespace: str, metric: str, endpoint: str, variant: str = "AllTraffic"
) -> int:
    """The sum of a metric of the last hour."""
    now = datetime.now(UTC)
    found = platform.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=metric,
        Dimensions=[
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": variant},
        ],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=5),
        Period=60,
        Statistics=["Sum"],
    )
    points: list[dict[str, float]] = found["Datapoints"]
    return round(sum(point["Sum"] for point in points))


def served_settles_at(
    platform: Platform, endpoint: str, count: int, timeout_s: float = 30.0, variant: str = "AllTraffic"
) -> int:
    """The server's count, waited for until it reaches `count`: reports come every few seconds."""
    deadline = time.monotonic() + timeout_s
    while (found := served(platform, endpoint, variant)) < count and time.monotonic() < deadline:
        time.sleep(0.25)
    return found
