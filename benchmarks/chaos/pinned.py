"""Load over connections whose gateway is known, each one checked by itself."""

import http.client
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xgboost

from benchmarks.chaos.askers import Askers
from benchmarks.chaos.experiment import hold
from benchmarks.chaos.ledger import SignedConnection, connection_to
from benchmarks.platform import Platform


@dataclass(slots=True)
class _Client:
    """One client: the gateway its connection came to, and what became of it."""

    gateway: str
    connection: SignedConnection
    right: int = 0
    broken: int = 0
    right_since: int = 0  # since it broke
    wrong: list[str] = field(default_factory=list)


class PinnedLoad(Askers):
    """`each` clients a gateway. A client whose connection breaks opens another one, which must work at once."""

    def __init__(
        self, platform: Platform, endpoint: str, booster: xgboost.Booster, rows: Any, each: int
    ) -> None:
        self._platform, self._endpoint = platform, endpoint
        self._bodies = [",".join(f"{value:.7g}" for value in row) for row in rows[:200]]
        self._expected = booster.predict(xgboost.DMatrix(np.asarray(rows[:200])))
        self.clients = [
            _Client(f"gateway-{number}", connection_to(platform, f"gateway-{number}"))
            for number in range(platform.settings.gateways)
            for _ in range(each)
        ]
        super().__init__(partial(self._run, client) for client in self.clients)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for client in self.clients:
            client.connection.close()

    def until(self, more: int, timeout_s: float = 60.0) -> None:
        goal, deadline = self._answered() + more, time.monotonic() + timeout_s
        while self._answered() < goal and time.monotonic() < deadline:
            time.sleep(0.01)

    def only_broke(self, gateway: str) -> None:
        """Raises `Broken` unless every connection to this gateway broke, once, and no other did."""
        for client in self.clients:
            hold(not client.wrong, f"a client of {client.gateway}: {client.wrong[:3]}")
            expected = 1 if client.gateway == gateway else 0
            hold(
                client.broken == expected,
                f"{gateway} was killed; a connection of {client.gateway} broke {client.broken} times",
            )
            hold(client.right_since > 0, "a new connection gave no answer")

    def broken_of(self, gateway: str) -> int:
        return sum(client.broken for client in self.clients if client.gateway == gateway)

    def _answered(self) -> int:
        return sum(client.right + len(client.wrong) for client in self.clients)

    def _run(self, client: _Client) -> None:
        index = 0
        while not self.is_over.is_set():
            index = (index + 1) % len(self._bodies)
            try:
                status, answer = client.connection.invoke(self._endpoint, self._bodies[index])
            except (OSError, http.client.HTTPException):
                client.broken, client.right_since = client.broken + 1, 0
                client.connection.close()
                client.connection = SignedConnection(self._platform)
                time.sleep(0.001 if client.broken < 10 else 0.1)
                continue
            if status == 200 and abs(float(answer) - float(self._expected[index])) < 1e-4:
                client.right += 1
                client.right_since += 1
            else:
                client.wrong.append(f"{status} {answer[:100]!r}")
