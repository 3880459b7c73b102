"""Who is told what became of requests, beside their callers: data capture.

At admission a `Sampler` says whether a request is watched and by what; each invocation of it, production's and those of
shadows, then tells the `Watch` how it ended. An endpoint that nobody watches pays nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from clary.wire.heads import Head

if TYPE_CHECKING:
    from clary.gateway.plans import EndpointPlan

MOST_KEPT = 25 << 20
"""Of an answer that is passed on while it comes no more than this is kept for a watch."""


class Answer(NamedTuple):
    """A container's answer; `content_type` is empty when it said none."""

    content_type: bytes
    body: bytes


class Watch(Protocol):
    """Told once for each variant that got the request, on the loop, after the caller has its answer."""

    def on_end(self, variant: str, answer: Answer | None) -> None:
        """The whole answer; None when the model did not give one (an error, a time-out, a client that went)."""

    def on_overflow(self, variant: str) -> None:
        """There was an answer, and it was longer than `MOST_KEPT`."""


Sampler = Callable[["EndpointPlan", Head, bytes, str], Watch | None]
"""(endpoint, head, body, request id) → who watches it; None for a request that is not sampled.

Asked at admission, only for endpoints whose route says what to capture (`endpoint.route.capture`).
"""


class Kept:
    """The parts of an answer that is passed on, as far as they are kept for a watch."""

    __slots__ = ("_is_too_long", "_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._is_too_long = False

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MOST_KEPT:
            self._is_too_long = True
            self._parts.clear()
        elif not self._is_too_long:
            self._parts.append(data)

    def tell(self, watch: Watch, variant: str, content_type: bytes) -> None:
        if self._is_too_long:
            watch.on_overflow(variant)
        else:
            watch.on_end(variant, Answer(content_type, b"".join(self._parts)))
