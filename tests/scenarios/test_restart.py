"""`clary restart`: every process is replaced while callers, who try nothing twice, notice nothing."""

import argparse
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

from clary.cli import restart
from clary.supervisor import names_of, roles
from clary.testing.server import RunningServer
from platform_models import csv, deploy, invoke, numbers, predictions, processes_of, regressor, rows


class Callers:
    """Threads that invoke an endpoint for as long as they may, on connections of their own, with one attempt each."""

    def __init__(self, server: RunningServer, endpoint: str, features: Any, threads: int = 4) -> None:
        self.answers: list[list[float]] = []
        self.errors: list[Exception] = []
        self._over = threading.Event()
        clients = [server.client("sagemaker-runtime", user_agent_extra=f"caller-{n}") for n in range(threads)]
        self._threads = [
            threading.Thread(target=self._call, args=(client, endpoint, csv(features)), daemon=True)
            for client in clients
        ]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _call(self, client: Any, endpoint: str, body: str) -> None:
        # Connections that are busy and connections that lie idle for a while are both in use.
        for number in count():
            if self._over.wait(0.5 if number % 50 == 49 else 0.0):
                return
            try:
                answer = client.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=body)
                self.answers.append(numbers(answer["Body"].read()))
            except Exception as error:  # noqa: BLE001 every failure is the finding
                self.errors.append(error)


def test_U03_a_restart_of_everything_costs_no_request(place: Path) -> None:
    booster, features = regressor(), rows(1)
    with RunningServer(place / "d") as server:
        deploy(server, "steady", booster)
        before = {role: server.process(role) for role in roles(server.settings)}
        with Callers(server, "steady", features) as callers:
            arguments = argparse.Namespace(data_dir=str(server.data_dir))
            assert restart.run(arguments) == 0
            assert restart.run(arguments) == 0  # back under the first names
        assert callers.errors == []
        expected = predictions(booster, features)
        assert len(callers.answers) > 100
        assert all(abs(answer[0] - expected[0]) < 1e-5 for answer in callers.answers)
        after = {role: server.process(role) for role in roles(server.settings)}
        assert all(after[role] is not None and after[role] != before[role] for role in before)
        assert invoke(server, "steady", features) == callers.answers[-1]
        spares = [name for role in before for name in names_of(role, server.settings)[1:]]
        deadline = time.monotonic() + 60
        while any(server.process(name) for name in spares) and time.monotonic() < deadline:
            time.sleep(0.1)  # they have nothing left to answer, but say so to whoever is about to ask
        assert [name for name in spares if server.process(name) is not None] == []
    assert processes_of(server) == []
