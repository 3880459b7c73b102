"""Load with a ledger: what a client asked, what it was answered, and what the server says it served."""

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psutil
import xgboost
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
    lock: threading.Lock = field(default_factory=threading.Lock)

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


class Load:
    """Threads that invoke one endpoint without a pause and check every single prediction."""

    def __init__(
        self, platform: Platform, endpoint: str, booster: xgboost.Booster, rows: Any, threads: int = 4
    ) -> None:
        self._platform, self._endpoint = platform, endpoint
        self._bodies = [",".join(f"{value:.7g}" for value in row) for row in rows[:500]]
        self._expected = booster.predict(xgboost.DMatrix(np.asarray(rows[:500])))
        self.ledger = Ledger()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def until(self, more: int, timeout_s: float = 60.0) -> None:
        """Waits until that many further requests were answered, right or wrong, or the time is over."""
        goal, deadline = self.ledger.asked + more, time.monotonic() + timeout_s
        while self.ledger.asked < goal and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self, number: int) -> None:
        connection, index = SignedConnection(self._platform), number
        while not self._stop.is_set():
            index = (index + 1) % len(self._bodies)
            try:
                status, answer = connection.invoke(self._endpoint, self._bodies[index])
            except (OSError, http.client.HTTPException) as error:
                with self.ledger.lock:
                    self.ledger.broken[type(error).__name__] += 1
                connection.close()
                connection = SignedConnection(self._platform)
                time.sleep(0.01)  # where nobody listens it would spin
                continue
            self._enter(status, answer, float(self._expected[index]))
        connection.close()

    def _enter(self, status: int, answer: bytes, expected: float) -> None:
        with self.ledger.lock:
            if status != 200:
                self.ledger.wrong[f"{status} {answer[:120]!r}"] += 1
            elif abs(float(answer) - expected) > 1e-4:
                self.ledger.wrong["another prediction"] += 1
            else:
                self.ledger.right += 1


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
