"""Time as a dependency.

Whatever decides by time takes a `Clock`; only composition roots make a `SystemClock`. Tests hand in
`clary.testing.clock.FakeClock`. Authentication alone always uses real time.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The time of day, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never run backwards, for measuring."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
