"""What Describe says is true at every gateway at that moment: InService answers rightly, gone does not answer."""

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import xgboost
from botocore.exceptions import ClientError

from benchmarks.chaos.experiment import Broken, Conditions, hold
from benchmarks.chaos.ledger import SignedConnection, connection_to
from benchmarks.platform import Platform, regressor

THREADS = 3
PATIENCE_S = 60.0


def rounds() -> int:
    return int(os.environ.get("CHAOS_ROUNDS", "1000"))


@dataclass(slots=True)
class _Model:
    """An endpoint configuration and what it predicts. Two that differ take turns: so an old answer shows."""

    config: str
    row: str
    expected: float


@dataclass(slots=True)
class _Shared:
    platform: Platform
    models: list[_Model]
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: threading.Event = field(default_factory=threading.Event)


def never(conditions: Conditions) -> str:
    wanted = rounds()
    with conditions.platform() as platform:
        shared = _Shared(platform, [_model(platform, trees) for trees in (3, 6)])
        with ThreadPoolExecutor(THREADS) as pool:
            share = [wanted // THREADS + (number < wanted % THREADS) for number in range(THREADS)]
            running = [pool.submit(_rounds, shared, f"stale-{n}", count) for n, count in enumerate(share)]
            for one in running:
                one.result()
    counts = shared.counts
    return (
        f"{counts['rounds']:,} rounds; {counts['right']:,} right answers the moment it was InService, "
        f"{counts['refused']:,} refusals the moment it was gone, 0 stale"
    )


def _model(platform: Platform, trees: int) -> _Model:
    name = f"trees-{trees}"
    booster, rows = regressor(trees=trees, depth=3)
    platform.deploy(name, platform.upload(booster, f"{name}.tar.gz"))
    platform.client("sagemaker").delete_endpoint(EndpointName=name)
    expected = float(booster.predict(xgboost.DMatrix(rows[:1]))[0])
    return _Model(name, ",".join(f"{value:.7g}" for value in rows[0]), expected)


def _rounds(shared: _Shared, name: str, count: int) -> None:
    gateways = _Gateways(shared.platform)
    sagemaker = shared.platform.client("sagemaker")
    try:
        for number in range(count):
            if shared.is_over.is_set():
                return
            model = shared.models[number % 2]
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=model.config)
            _wait(lambda: _status(sagemaker, name) == "InService", f"{name} InService")
            for gateway, status, answer in gateways.ask(name, model.row):
                is_right = status == 200 and abs(float(answer) - model.expected) < 1e-4
                hold(
                    is_right,
                    f"InService, but {gateway} answered {status} {answer[:80]!r} in round {number + 1}",
                )
            sagemaker.delete_endpoint(EndpointName=name)
            _wait(lambda: _status(sagemaker, name) == "gone", f"{name} gone")
            for gateway, status, answer in gateways.ask(name, model.row):
                is_refused = status == 400 and b"not found" in answer
                hold(
                    is_refused, f"gone, but {gateway} answered {status} {answer[:80]!r} in round {number + 1}"
                )
            with shared.lock:
                shared.counts += Counter(rounds=1, right=len(gateways.names), refused=len(gateways.names))
                if shared.counts["rounds"] % 100 == 0:
                    print(f"  {shared.counts['rounds']:,} rounds", flush=True)
    except BaseException:
        shared.is_over.set()
        raise
    finally:
        gateways.close()


class _Gateways:
    """One connection to each gateway, made again where it breaks."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.names = [f"gateway-{number}" for number in range(platform.settings.gateways)]
        self._connections = {name: connection_to(platform, name) for name in self.names}

    def ask(self, endpoint: str, row: str) -> list[tuple[str, int, bytes]]:
        return [(name, *self._ask(name, endpoint, row)) for name in self.names]

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _ask(self, name: str, endpoint: str, row: str) -> tuple[int, bytes]:
        try:
            return self._connections[name].invoke(endpoint, row)
        except (OSError, http.client.HTTPException):
            # A gateway that does not take a route in time is ended: that is how the promise is kept.
            self._connections[name].close()
            self._connections[name] = _again(self._platform, name)
            return self._connections[name].invoke(endpoint, row)


def _again(platform: Platform, name: str) -> SignedConnection:
    _wait(lambda: platform.process(name) is not None, f"{name} running")
    return connection_to(platform, name)


def _status(sagemaker: Any, name: str) -> str:
    try:
        return str(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return "gone"


def _wait(is_so: Callable[[], bool], what: str) -> None:
    """Looks again at once: the promise is about the very moment."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise Broken(f"waited {PATIENCE_S:.0f} s for: {what}")
        time.sleep(0.004)
