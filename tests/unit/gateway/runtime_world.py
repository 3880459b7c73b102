"""A runtime whose instances a test plays by hand: it sees what was sent there, and answers or breaks off."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from clary.domain.instances import InstanceId
from clary.domain.principals import assumed_role
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.gateway.models import Models
from clary.gateway.plans import TargetState
from clary.gateway.request_ids import request_ids
from clary.gateway.routes import RouteTable
from clary.gateway.runtime import Runtime
from clary.gateway.upstream import Broken, Connection, Headers, Waiter
from clary.gateway.watching import Answer, Sampler
from clary.links.metrics import MetricPoint
from clary.telemetry.metrics import Recorder
from clary.wire.exchange import Exchange
from clary.wire.heads import Head
from clary.wire.sigv4 import Signer, Verifier

ACCOUNT, REGION = "111122223333", "eu-west-1"
KEY = EndpointKey(ACCOUNT, REGION, "ep")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Noon:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Wire:
    """The connection to an instance, as an invocation uses it."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@dataclass
class Sent:
    """One request at an instance, to be answered by the test."""

    target: TargetState
    data: bytes
    waiter: Waiter
    is_fresh: bool
    container: int = 0  # of several, which
    wire: Wire = field(default_factory=Wire)

    @property
    def text(self) -> str:
        return (self.data + self.wire.written).decode()

    def answer(self, body: bytes = b"1.0", status: int = 200, **headers: str) -> None:
        self.head(status, **headers)
        if body:
            self.waiter.on_body(body)
        self.waiter.on_complete()

    def head(self, status: int = 200, **headers: str) -> None:
        fields: Headers = [(b"content-type", b"text/csv")]
        fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.waiter.on_head(cast(Connection, self.wire), status, fields)

    def break_off(self, how: Broken = Broken.LOST) -> None:
        self.waiter.on_broken(how)


class Instance:
    """In the place of a target's upstream."""

    def __init__(self, target: TargetState, sent: list[Sent], container: int = 0) -> None:
        self.loop = target.upstream.loop
        self._target = target
        self._sent = sent
        self._container = container

    def send(self, data: bytes, waiter: Waiter, deadline: float, *, fresh: bool = False) -> None:
        sent = Sent(self._target, data, waiter, fresh, self._container)
        self._sent.append(sent)
        waiter.on_connected(cast(Connection, sent.wire))

    def close(self) -> None: ...


class Asked:
    """A client's request, and what it was answered."""

    on_lost: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.content = body
        self.status = 0
        self.fields = b""
        self.body = b""
        self.is_whole = False

    def collect(self, limit: int, done: Callable[[Any, bytes], None], refused: object) -> None:
        done(self, self.content)

    def respond(self, status: int, fields: bytes = b"", body: bytes = b"") -> None:
        assert not self.status, "it was answered already"
        self.status, self.fields, self.body, self.is_whole = status, fields, body, True

    def start(self, status: int, fields: bytes, length: int | None = None) -> None:
        self.status, self.fields = status, fields

    def push(self, data: bytes) -> bool:
        self.body += data
        return True

    def end(self) -> None:
        self.is_whole = True

    def abort(self) -> None:
        self.status = -1

    @property
    def message(self) -> str:
        return str(msgspec.json.decode(self.body)["Message"])

    def header(self, name: str) -> str:
        for line in self.fields.decode().split("\r\n"):
            found, _, value = line.partition(": ")
            if found.lower() == name.lower():
                return value
        return ""


class Noting:
    """A watch that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Answer | str | None]] = []

    def on_end(self, variant: str, answer: Answer | None) -> None:
        self.told.append((variant, answer))

    def on_overflow(self, variant: str) -> None:
        self.told.append((variant, "too long"))


@dataclass
class AskedOfHost:
    """A call of the host, to be answered by the test."""

    operation: str
    arguments: Any
    answer: asyncio.Future[Any]


class PlayedHost:
    """In the place of the host's link."""

    def __init__(self) -> None:
        self.asked: list[AskedOfHost] = []

    async def call(self, operation: str, arguments: object, result: type[Any], timeout_s: float) -> Any:
        self.asked.append(AskedOfHost(operation, arguments, asyncio.get_running_loop().create_future()))
        return await self.asked[-1].answer

    def of(self, operation: str) -> list[AskedOfHost]:
        return [each for each in self.asked if each.operation == operation]


class _AnySignature:
    def signer(self, head: Head, body_sha256: str | None = None) -> Signer:
        principal = assumed_role(ACCOUNT, "role", "session", "AKIA", is_root=True)
        return Signer(principal, "sagemaker", REGION)


class World:
    """`chances` are drawn in turn; 0.0 when there are none."""

    def __init__(self, sampler: Sampler | None = None, *, retry_user_code: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.recorder = Recorder("test", Noon())
        self.table = RouteTable(self.recorder, loop, retry_user_code=retry_user_code)
        self.host = PlayedHost()
        self.models = Models(self.host, loop, lambda: NOW.timestamp())
        self.chances: list[float] = []
        self.sent: list[Sent] = []
        self.runtime = Runtime(
            self.table,
            cast(Verifier, _AnySignature()),
            request_ids(),
            self.models,
            max_body_bytes=64 << 20,
            chance=lambda: self.chances.pop(0) if self.chances else 0.0,
            now=lambda: NOW.timestamp(),
            sampler=sampler,
        )

    def publish(self, *variants: VariantRoute, shadows: tuple[VariantRoute, ...] = (), **more: Any) -> None:
        version = self.table.version + 1
        route = EndpointRoute(KEY, "Ep", "u", version, variants, shadows=shadows, **more)
        self.table.change(version, [route], [])
        plan = self.table.find(KEY)
        assert plan is not None
        for each in (*(p for named in plan.variants.values() for p in named.plans), *plan.shadows):
            for number, of_container in enumerate((each, *each.by_container.values()), -1):
                for target in of_container.targets:
                    if not isinstance(target.upstream, Instance):
                        target.upstream = cast(Any, Instance(target, self.sent, max(0, number)))
                        for place, hop in enumerate(target.hops):
                            hop.upstream = cast(Any, Instance(target, self.sent, place))

    def ask(self, body: bytes = b"1,2", stream: bool = False, **headers: str) -> Asked:
        fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        operation = b"invocations-response-stream" if stream else b"invocations"
        asked = Asked(
            Head(b"POST", b"/endpoints/Ep/" + operation, {b"content-type": b"text/csv", **fields}), body
        )
        assert self.runtime.takes(cast(Exchange, asked))
        return asked

    def metrics(self) -> dict[tuple[str, str], MetricPoint]:
        """(metric, variant) → what was counted since the last time, without the series of a configuration."""
        self.table.flush_meters()
        batch = self.recorder.drain()
        points = batch.points if batch is not None else ()
        return {(p.name, dict(p.dimensions)["VariantName"]): p for p in points if len(p.dimensions) == 2}


def variant(name: str, *instances: str, weight: float = 1.0, **more: Any) -> VariantRoute:
    targets = tuple(Target(InstanceId(instance), f"unix:/none/{instance}") for instance in instances)
    return VariantRoute(name, weight, targets, **more)


def story(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())
