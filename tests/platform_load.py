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
        self._round = 0  # each request belongs to the one in which it begins
        self._answers: list[tuple[int, float]] = []
        self._failures: list[tuple[int, str]] = []
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

    @property
    def answers(self) -> list[float]:
        return [answer for _, answer in self._answers]

    @property
    def failures(self) -> list[str]:
        return [failure for _, failure in self._failures]

    def more(self, count: int = 20) -> list[float]:
        """Answers to requests that begin from now on: at least so many, and no failure of one of them."""
        self._round = since = self._round + 1

        def begun(told: list[tuple[int, Any]]) -> list[Any]:
            return [each for number, each in told if number >= since]

        eventually(
            lambda: begun(self._failures) or len(begun(self._answers)) >= count,
            f"answers of {self._endpoint}",
        )
        assert begun(self._failures) == []
        return begun(self._answers)

    def _ask(self) -> None:
        while not self._over.is_set():
            number = self._round
            try:
                answer = self._runtime.invoke_endpoint(
                    EndpointName=self._endpoint,
                    ContentType="text/csv",
                    Accept="text/csv",
                    Body=self._body,
                    **self._members,
                )
                self._answers.append((number, round(numbers(answer["Body"].read())[0], 3)))
            except (ClientError, BotoCoreError, ValueError) as error:
                self._failures.append((number, str(error)))
