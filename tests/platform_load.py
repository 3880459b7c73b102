"""Constant load on an endpoint, with every answer written down."""

import threading
from types import TracebackType
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from clary.testing.server import RunningServer
from platform_models import csv, eventually, numbers


class Load:
    """Asks for the same prediction again and again, on threads, without retries, inside a `with` block."""

    def __init__(
        self, server: RunningServer, endpoint: str, features: Any, threads: int = 2, **members: Any
    ) -> None:
        """`members` are more of the request's."""
        self._members = members
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._runtime = server.client("sagemaker-runtime")
        self._endpoint = endpoint
        self._body = csv(features)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = 20) -> list[float]:
        """Answers to requests that begin from now on: at least so many, and no failure."""
        known = len(self.failures)
        begun = len(self.answers) + len(self._threads)  # those that are under way now do not count
        enough = begun + count
        eventually(
            lambda: len(self.failures) > known or len(self.answers) >= enough, f"answers of {self._endpoint}"
        )
        assert self.failures[known:] == []
        return self.answers[begun:]

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                answer = self._runtime.invoke_endpoint(
                    EndpointName=self._endpoint,
                    ContentType="text/csv",
                    Accept="text/csv",
                    Body=self._body,
                    **self._members,
                )
                self.answers.append(round(numbers(answer["Body"].read())[0], 3))
            except (ClientError, BotoCoreError, ValueError) as error:
                self.failures.append(str(error))
