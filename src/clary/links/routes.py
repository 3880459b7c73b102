"""Control's end of the route link: publishing a route returns when every gateway uses it.

Plain threads: one accepts, and each gateway has one that reads and one that sends. A sender is level-triggered: it
compares what it has sent with what there is, so publications that come together leave as one Change, and a gateway
that connects anew needs no special case.

What must hold:
  - A route's file is in place before anybody hears of it, and gone before its withdrawal is announced.
  - `publish` and `withdraw` return only when every gateway that runs has applied them. The pid files say who runs,
    not the connections: a gateway that hangs or starts still takes requests. One that does not apply in time is
    killed (the supervisor starts another, which begins from the newest routes).

    RoutingError                the route may not be in force: do not report it, try again
    └── StaleRoute              a newer generation of the same endpoint is already published
"""

import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from logging import getLogger
from queue import Empty, Full, Queue
from signal import SIGKILL

import msgspec

from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.links import processes, route_messages
from clary.links.frames import FrameError, receive_frame, send_frame
from clary.links.metrics import MetricBatch
from clary.links.processes import ProcessIdentity
from clary.links.route_book import FIRST_VERSION, RouteBook
from clary.links.route_messages import (
    PROTOCOL,
    Applied,
    Drain,
    Drained,
    FromControl,
    Hello,
    Metrics,
    MetricsTaken,
    Refused,
)
from clary.settings import Settings

log = getLogger(__name__)

_ACCEPT_AGAIN_S = 0.1
_LOOK_S = 0.02
_ENDS_WITHIN_S = 10.0  # a process that was killed, on a machine that is busy
_MOST_WITHDRAWN = 1000  # beyond it, those everybody has applied are forgotten


class RoutingError(Exception):
    """It is not certain that every gateway uses the route."""


class StaleRoute(RoutingError):
    """The endpoint has a newer route than the one to be published."""


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    number: int
    identity: ProcessIdentity


def running_gateways(settings: Settings) -> list[GatewayProcess]:
    """The gateways that run, by their pid files."""
    found = []
    for path in settings.run_dir.glob("gateway-*.pid.json"):
        identity = processes.alive(path)
        number = path.name.removeprefix("gateway-").removesuffix(".pid.json")
        if identity is not None and number.isdigit():
            found.append(GatewayProcess(int(number), identity))
    return found


def _kill(identity: ProcessIdentity) -> None:
    processes.signal(identity, SIGKILL)


@dataclass(eq=False, slots=True)
class _Member:
    """One connected gateway: what it was sent and what it has answered."""

    sock: socket.socket
    process: GatewayProcess
    sent: int = 0  # 0: nothing yet, so a Snapshot comes first
    applied: int = 0
    drains_sent: set[int] = field(default_factory=set)
    taken: list[MetricsTaken] = field(default_factory=list)
    is_gone: bool = False


@dataclass(eq=False, slots=True)
class _Draining:
    message: Drain
    answers: dict[ProcessIdentity, tuple[InstanceId, ...]] = field(default_factory=dict)


class RouteHub:
    """The routes in force and the gateways that hold them. All methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        expected_gateways: Callable[[], list[GatewayProcess]] | None = None,
        on_metrics: Callable[[MetricBatch], None] = lambda batch: None,
        *,
        kill: Callable[[ProcessIdentity], None] = _kill,
        starts_within_s: float = 30.0,
    ) -> None:
        self._settings = settings
        self._starts_within_s = starts_within_s
        self._expected = expected_gateways or (lambda: running_gateways(settings))
        self._on_metrics = on_metrics
        self._kill = kill
        self._changed = threading.Condition()
        self._book = RouteBook()
        self._members: set[_Member] = set()
        self._drains: dict[int, _Draining] = {}
        self._last_drain = 0
        self._batches: Queue[tuple[_Member, MetricBatch]] = Queue(maxsize=1000)
        self._key_locks = [threading.Lock() for _ in range(64)]
        self._listener: socket.socket | None = None
        self._closed = False

    def start(self) -> None:
        """Loads the routes of the last life and opens the link."""
        self._settings.routes_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._book = RouteBook(route_messages.read_routes(self._settings.routes_dir))
        path = self._settings.routes_socket
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(64)
        self._spawn("routes-accept", self._accept, self._listener)
        self._spawn("routes-metrics", self._take_metrics)

    def close(self) -> None:
        """Ends the link. The gateways go on with what they have."""
        with self._changed:
            self._closed = True
            members = list(self._members)
            self._changed.notify_all()
        if self._listener is not None:
            self._settings.routes_socket.unlink(missing_ok=True)
            _end(self._listener)
        for member in members:
            _end(member.sock)

    def publish(self, route: EndpointRoute) -> None:
        """Makes the route the one in force and returns when every gateway uses it. May be repeated.

        Raises `StaleRoute` when the endpoint has a newer one, `RoutingError` when it may not be in force.
        """
        with self._key_locks[hash(route.key) % len(self._key_locks)]:
            version = self._put(route)
        self._settle(version)

    def withdraw(self, *keys: EndpointKey) -> None:
        """Takes routes out of force and returns when no gateway uses them. Unknown keys are no error."""
        version = FIRST_VERSION
        for key in keys:
            with self._key_locks[hash(key) % len(self._key_locks)]:
                version = max(version, self._remove(key))
        self._settle(version)

    def announce_identities(self) -> None:
        """Returns when every gateway has read the file of users, keys and roles anew. Raises `RoutingError`."""
        with self._changed:
            version = self._book.change_identities()
            self._changed.notify_all()
        self._settle(version)

    def begin_metrics(self, since_ms: int) -> None:
        """Returns when no gateway has metrics any more of what it saw before this moment. Raises `RoutingError`."""
        with self._changed:
            version = self._book.begin_metrics(since_ms)
            self._changed.notify_all()
        self._settle(version)

    def drain(self, ids: Iterable[InstanceId], timeout_s: float) -> set[InstanceId]:
        """Waits until no gateway has requests outstanding at these instances; those still busy after the time.

        Withdraw or replace their route first, or new requests keep coming. A gateway that says nothing leaves
        all of them busy; one that has died holds no requests.
        """
        wanted = tuple(ids)
        draining = self._begin_drain(wanted, timeout_s)
        deadline = time.monotonic() + timeout_s + self._settings.gateway_ack_timeout_s
        try:
            while self._without(lambda member: member.process.identity in draining.answers):
                if time.monotonic() > deadline:
                    return set(wanted)
                self._pause(deadline)
        finally:
            with self._changed:
                del self._drains[draining.message.number]
        return {busy for answer in draining.answers.values() for busy in answer}

    def routes(self) -> list[EndpointRoute]:
        """The routes in force or on their way."""
        with self._changed:
            return self._book.all()

    def _put(self, route: EndpointRoute) -> int:
        with self._changed:
            known = self._book.get(route.key)
            if known == route:
                return self._book.changed_in(route.key)
        if known is not None and known.uid == route.uid and known.generation > route.generation:
            raise StaleRoute(f"generation {known.generation} of endpoint {route.name} is already published")
        try:
            route_messages.write_route(self._settings.routes_dir, route)
        except OSError as error:
            raise RoutingError(f"the route of endpoint {route.name} could not be stored: {error}") from error
        with self._changed:
            self._changed.notify_all()
            return self._book.put(route)

    def _remove(self, key: EndpointKey) -> int:
        with self._changed:
            if self._book.get(key) is None:
                return self._book.changed_in(key)
        try:
            route_messages.remove_route(self._settings.routes_dir, key)
        except OSError as error:
            raise RoutingError(f"the route of endpoint {key.name} could not be removed: {error}") from error
        with self._changed:
            self._changed.notify_all()
            if self._book.withdrawn > _MOST_WITHDRAWN:
                self._book.forget_withdrawn(
                    min((m.applied for m in self._members), default=self._book.version)
                )
            return self._book.remove(key)

    def _settle(self, version: int) -> None:
        """Waits until every gateway has applied `version`; ends those that do not in time.

        One that is only starting gets the time that a start may take. Time in which this thread was to look and did
        not come to it does not count: on a machine that stands still, or is so busy, the gateways did not run either.
        """
        deadline = time.monotonic() + self._settings.gateway_ack_timeout_s
        while late := self._without(lambda member: member.applied >= version):
            if self._closed:
                raise RoutingError("control is stopping")
            overdue = [gateway for gateway in late if self._is_overdue(gateway, deadline)]
            if overdue:
                self._end_late(overdue)
            else:
                began = time.monotonic()
                self._pause(began + _LOOK_S)
                deadline += max(0.0, time.monotonic() - began - _LOOK_S)

    def _is_overdue(self, gateway: GatewayProcess, deadline: float) -> bool:
        is_starting = processes.age_s(gateway.identity) < self._starts_within_s
        return time.monotonic() > deadline and not is_starting

    def _end_late(self, late: Collection[GatewayProcess]) -> None:
        for gateway in late:
            log.warning("gateway did not apply routes in time", extra={"gateway": gateway.number})
            self._kill(gateway.identity)
        left = processes.wait_gone([gateway.identity for gateway in late], _ENDS_WITHIN_S)
        if left:
            raise RoutingError(f"{len(left)} gateway(s) neither applied the routes nor ended")

    def _without(self, is_done: Callable[[_Member], bool]) -> list[GatewayProcess]:
        """The gateways that run and are not done; of those connected first, since they are cheap to ask."""
        with self._changed:
            connected = {member.process.identity: member for member in self._members}
            late = [member.process for member in connected.values() if not is_done(member)]
        late = [gateway for gateway in late if processes.is_alive(gateway.identity)]
        return late or [gateway for gateway in self._expected() if gateway.identity not in connected]

    def _pause(self, deadline: float) -> None:
        """Until something changed. Not for long: that a process has ended is no change anybody tells."""
        with self._changed:
            self._changed.wait(min(max(deadline - time.monotonic(), 0.001), _LOOK_S))

    def _begin_drain(self, ids: tuple[InstanceId, ...], timeout_s: float) -> _Draining:
        with self._changed:
            self._last_drain += 1
            draining = _Draining(Drain(self._last_drain, ids, timeout_s))
            self._drains[self._last_drain] = draining
            self._changed.notify_all()
            return draining

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if self._closed:
                    return
                # Out of descriptors, say. Without this thread no gateway would ever connect again.
                log.warning("route link could not accept a gateway", extra={"error": str(error)})
                time.sleep(_ACCEPT_AGAIN_S)
                continue
            try:
                self._spawn("routes-read", self._serve, sock)
            except RuntimeError as error:  # no more threads now: the gateway connects again
                log.warning("route link could not serve a gateway", extra={"error": str(error)})
                _end(sock)

    def _serve(self, sock: socket.socket) -> None:
        """Reads one gateway's messages until it goes."""
        member: _Member | None = None
        try:
            member = self._welcome(sock)
            while member is not None and (frame := receive_frame(sock)) is not None:
                self._hear(member, frame)
        except (OSError, FrameError, msgspec.DecodeError, RuntimeError) as error:
            log.info("gateway link broke", extra={"error": str(error)})
        finally:
            if member is not None:
                self._forget(member)
            _end(sock)

    def _welcome(self, sock: socket.socket) -> _Member | None:
        frame = receive_frame(sock)
        hello = None if frame is None else route_messages.decode_from_gateway(frame)
        if not isinstance(hello, Hello):
            return None
        if hello.protocol != PROTOCOL:
            reason = f"this control speaks version {PROTOCOL} of the route link, not {hello.protocol}"
            send_frame(sock, route_messages.encode(Refused(PROTOCOL, reason)))
            return None
        member = _Member(sock, GatewayProcess(hello.number, ProcessIdentity(hello.pid, hello.start_time)))
        with self._changed:
            if self._closed:
                return None
            self._members.add(member)
        try:
            self._spawn("routes-send", self._send, member)
        except RuntimeError:
            self._forget(member)  # or it would be waited for as long as its process lives
            raise
        log.info("gateway connected", extra={"gateway": hello.number, "pid": hello.pid})
        return member

    def _hear(self, member: _Member, frame: bytes) -> None:
        message = route_messages.decode_from_gateway(frame)
        if isinstance(message, Metrics):
            with suppress(Full):  # not acknowledged, so it comes again
                self._batches.put_nowait((member, message.batch))
            return
        with self._changed:
            if isinstance(message, Applied):
                member.applied = message.version
            elif isinstance(message, Drained) and message.number in self._drains:
                self._drains[message.number].answers[member.process.identity] = message.still_busy
            self._changed.notify_all()

    def _forget(self, member: _Member) -> None:
        with self._changed:
            member.is_gone = True
            self._members.discard(member)
            self._changed.notify_all()

    def _send(self, member: _Member) -> None:
        """Sends one gateway what it lacks, whenever there is something."""
        while True:
            with self._changed:
                while not (messages := self._lacking(member)):
                    if self._closed or member.is_gone:
                        return
                    self._changed.wait()
            try:
                for message in messages:
                    send_frame(member.sock, route_messages.encode(message))
            except OSError:
                _end(member.sock)  # its reader forgets it
                return

    def _lacking(self, member: _Member) -> list[FromControl]:
        if member.is_gone or self._closed:
            return []
        messages: list[FromControl] = list(member.taken)
        member.taken.clear()
        if member.sent != self._book.version:
            messages.append(self._book.news(member.sent))
            member.sent = self._book.version
        for number, draining in self._drains.items():
            if number not in member.drains_sent:
                member.drains_sent.add(number)
                messages.append(draining.message)
        return messages

    def _take_metrics(self) -> None:
        """Hands batches on, on a thread of its own: storing them must not hold up acknowledgements of routes."""
        while not self._closed:
            try:
                member, batch = self._batches.get(timeout=0.5)
            except Empty:
                continue
            try:
                self._on_metrics(batch)
            except (
                Exception
            ):  # whatever it is, the batch was not stored: the gateway keeps it and sends again
                log.exception("metrics of a gateway were not stored", extra={"source": batch.source})
                continue
            with self._changed:
                member.taken.append(MetricsTaken(batch.source, batch.sequence))
                self._changed.notify_all()

    def _spawn(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, name=name, daemon=True).start()


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
