"""Control's end of the route link, against gateways that the test plays: what it promises, it keeps.

Each played gateway has the identity of a real process (a sleeping one), because control asks the kernel who runs.
"""

import errno
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from clary import settings as clary_settings
from clary.domain.instances import InstanceId
from clary.domain.routes import EndpointKey, EndpointRoute, Target, VariantRoute
from clary.links import processes, route_messages
from clary.links.frames import receive_frame, send_frame
from clary.links.metrics import MetricBatch, MetricPoint
from clary.links.route_messages import (
    PROTOCOL,
    Applied,
    Change,
    Drain,
    Drained,
    FromControl,
    FromGateway,
    Hello,
    Metrics,
    MetricsTaken,
    Refused,
    Snapshot,
)
from clary.links.routes import RouteHub, RoutingError, StaleRoute
from clary.settings import Settings
from scarce_threads import refuse_threads

PATIENCE_S = 60.0
A_MOMENT_S = (
    0.1  # how long nothing is seen to happen; only ever too short to notice a fault, never a false alarm
)

_M = TypeVar("_M")


def key(name: str) -> EndpointKey:
    return EndpointKey("123456789012", "us-east-1", name)


def route(name: str, generation: int = 1, uid: str = "uid", instance: str = "i-1") -> EndpointRoute:
    variant = VariantRoute("All", 1.0, (Target(InstanceId(instance), "unix:/x"),))
    return EndpointRoute(key(name), name, uid, generation, (variant,))


class PlayedGateway:
    """A sleeping process, and the test speaking for it."""

    def __init__(self, settings: Settings, number: int) -> None:
        self.settings = settings
        self.process = subprocess.Popen(["sleep", "600"])
        identity = processes.identify(self.process.pid)
        assert identity is not None
        self.identity = identity
        self.number = number
        self.sock: socket.socket | None = None
        processes.record(settings.run_dir / f"gateway-{number}.pid.json", identity)

    def connect(self, protocol: int = PROTOCOL) -> "PlayedGateway":
        self.disconnect()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self.settings.routes_socket))
        self.say(Hello(protocol, self.number, self.identity.pid, self.identity.start_time))
        return self

    def say(self, message: FromGateway) -> None:
        assert self.sock is not None
        send_frame(self.sock, route_messages.encode(message))

    def hear(self, kind: type[_M]) -> _M:
        assert self.sock is not None
        frame = receive_frame(self.sock)
        assert frame is not None
        message: FromControl = route_messages.decode_from_control(frame)
        assert isinstance(message, kind), message
        return message

    def join(self) -> "PlayedGateway":
        """Connects and applies what there is."""
        self.connect()
        self.say(Applied(self.hear(Snapshot).version))
        return self

    def apply(self) -> Change:
        change = self.hear(Change)
        self.say(Applied(change.version))
        return change

    def disconnect(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def end(self) -> None:
        self.disconnect()
        self.process.kill()
        self.process.wait()


class Scene:
    def __init__(self, settings: Settings, starts_within_s: float = 0.0) -> None:
        self.settings = settings
        self.starts_within_s = starts_within_s
        self.batches: list[MetricBatch] = []
        self.take: Callable[[MetricBatch], None] = self.batches.append
        self.gateways: list[PlayedGateway] = []
        self.pool = ThreadPoolExecutor(32)
        self.hub = self.new_hub()

    def new_hub(self) -> RouteHub:
        hub = RouteHub(
            self.settings, on_metrics=lambda batch: self.take(batch), starts_within_s=self.starts_within_s
        )
        hub.start()
        self.hub = hub
        return hub

    def gateway(self) -> PlayedGateway:
        gateway = PlayedGateway(self.settings, len(self.gateways))
        self.gateways.append(gateway)
        return gateway

    def publish(self, *routes: EndpointRoute) -> list["Future[None]"]:
        return [self.pool.submit(self.hub.publish, each) for each in routes]

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.end()
        self.hub.close()
        self.pool.shutdown()


def done(future: "Future[_M]") -> _M:
    return future.result(PATIENCE_S)


def is_waiting(future: "Future[None]") -> bool:
    try:
        future.result(A_MOMENT_S)
    except NotYet:
        return True
    return False


def make_settings(directory: Path, ack_timeout_s: float) -> Settings:
    settings = clary_settings.load({"data_dir": directory, "gateway_ack_timeout_s": ack_timeout_s}, {})
    settings.run_dir.mkdir(parents=True)
    return settings


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(make_settings(tmp_path, PATIENCE_S))
    yield made
    made.close()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Scene]:
    """Control waits for a gateway only half a second."""
    made = Scene(make_settings(tmp_path, 0.5))
    yield made
    made.close()


def test_without_gateways_a_route_is_in_force_at_once(scene: Scene) -> None:
    scene.hub.publish(route("a"))
    assert scene.hub.routes() == [route("a")]
    scene.hub.withdraw(key("a"))
    assert scene.hub.routes() == []


def test_publishing_returns_when_every_gateway_has_applied(scene: Scene) -> None:
    one, other = scene.gateway().join(), scene.gateway().join()
    (published,) = scene.publish(route("a"))
    assert one.apply().put == (route("a"),)
    assert is_waiting(published)
    assert other.apply().put == (route("a"),)
    done(published)


def test_I01_new_identities_are_announced_until_every_gateway_has_them(scene: Scene) -> None:
    one, other = scene.gateway().join(), scene.gateway().join()
    announced = scene.pool.submit(scene.hub.announce_identities)
    first = one.apply()
    assert first.put == ()
    assert is_waiting(announced)
    assert other.apply().identities == first.identities
    done(announced)
    (published,) = scene.publish(route("a"))
    assert one.apply().identities == other.apply().identities == first.identities
    done(published)


def test_a_gateway_that_runs_but_is_not_connected_is_waited_for(scene: Scene) -> None:
    gateway = scene.gateway()
    (published,) = scene.publish(route("a"))
    assert is_waiting(published)
    gateway.connect()
    snapshot = gateway.hear(Snapshot)
    assert snapshot.routes == (route("a"),)
    assert is_waiting(published)
    gateway.say(Applied(snapshot.version))
    done(published)


def test_a_gateway_that_ends_is_no_longer_waited_for(scene: Scene) -> None:
    gateway = scene.gateway().join()
    (published,) = scene.publish(route("a"))
    gateway.hear(Change)
    assert is_waiting(published)
    gateway.end()
    done(published)


def test_a_gateway_that_loses_its_link_must_apply_all_the_same(scene: Scene) -> None:
    gateway = scene.gateway().join()
    (published,) = scene.publish(route("a"))
    gateway.hear(Change)
    gateway.disconnect()
    assert is_waiting(published)
    gateway.join()
    done(published)


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_gateway_that_does_not_apply_in_time_is_ended(hasty: Scene, is_connected: bool) -> None:
    good, bad = hasty.gateway().join(), hasty.gateway()
    # Beforehand, whatever comes: how long this test takes for it must not matter.
    good.say(Applied(1 << 30))
    good.say(Metrics(batch(1)))
    good.hear(MetricsTaken)  # so control has heard what was said before
    if is_connected:
        bad.join()
    (published,) = hasty.publish(route("a"))
    done(published)
    assert bad.process.wait(PATIENCE_S) == -9
    assert good.process.poll() is None


def test_time_in_which_the_machine_stands_still_is_held_against_no_gateway(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = scene.gateway().join()
    skipped_s: list[float] = []
    pause = scene.hub._pause
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(skipped_s), sleep=time.sleep)

    def stand_still(deadline: float) -> None:
        pause(deadline)
        skipped_s.append(10 * PATIENCE_S)

    (published,) = scene.publish(route("a"))
    change = gateway.hear(Change)
    with monkeypatch.context() as patch:
        patch.setattr("clary.links.routes.time", clock)
        patch.setattr(scene.hub, "_pause", stand_still)
        while len(skipped_s) < 3:
            assert is_waiting(published)
        gateway.say(Applied(change.version))
        done(published)
    assert gateway.process.poll() is None


def test_U03_a_gateway_that_is_only_starting_is_waited_for(tmp_path: Path) -> None:
    """Its process is young: it may take longer to come up than a gateway takes to apply a route."""
    scene = Scene(make_settings(tmp_path, 0.05), starts_within_s=PATIENCE_S)
    try:
        starting = scene.gateway()
        (published,) = scene.publish(route("a"))
        assert is_waiting(published)
        starting.join()
        done(published)
        assert starting.process.poll() is None
    finally:
        scene.close()


def test_publications_at_the_same_time_leave_together(scene: Scene) -> None:
    gateway = scene.gateway().join()
    published = scene.publish(*(route(f"e-{number}") for number in range(24)))
    put: set[str] = set()
    while len(put) < 24:
        put |= {each.name for each in gateway.apply().put}
    for each in published:
        done(each)


def test_the_same_route_again_is_no_change_but_must_have_been_applied(scene: Scene) -> None:
    gateway = scene.gateway().join()
    (first,) = scene.publish(route("a"))
    change = gateway.hear(Change)
    (second,) = scene.publish(route("a"))
    assert is_waiting(second)
    gateway.say(Applied(change.version))
    done(first)
    done(second)
    (next_one,) = scene.publish(route("b"))
    assert gateway.apply().version == change.version + 1
    done(next_one)


def test_an_older_generation_never_replaces_a_newer_one(scene: Scene) -> None:
    scene.hub.publish(route("a", generation=5))
    with pytest.raises(StaleRoute, match="generation 5"):
        scene.hub.publish(route("a", generation=4))
    scene.hub.publish(route("a", generation=1, uid="another endpoint of that name"))
    assert scene.hub.routes()[0].generation == 1


def test_withdrawing_returns_when_no_gateway_uses_the_route(scene: Scene) -> None:
    gateway = scene.gateway().join()
    (published,) = scene.publish(route("a"))
    gateway.apply()
    done(published)
    withdrawn = scene.pool.submit(scene.hub.withdraw, key("a"), key("unknown"))
    change = gateway.hear(Change)
    assert (change.put, change.removed) == ((), (key("a"),))
    assert is_waiting(withdrawn)
    gateway.say(Applied(change.version))
    done(withdrawn)


def test_withdrawing_what_is_gone_still_waits_for_who_may_use_it(scene: Scene) -> None:
    """Control died between removing the file and telling the gateways; the next life withdraws again."""
    gateway = scene.gateway()
    withdrawn = scene.pool.submit(scene.hub.withdraw, key("a"))
    assert is_waiting(withdrawn)
    gateway.connect()
    snapshot = gateway.hear(Snapshot)
    assert is_waiting(withdrawn)
    gateway.say(Applied(snapshot.version))
    done(withdrawn)


def test_routes_outlive_control(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        scene.hub.publish(route(name))
    scene.hub.withdraw(key("b"))
    scene.hub.close()
    hub = scene.new_hub()
    assert sorted(each.name for each in hub.routes()) == ["a", "c"]
    gateway = scene.gateway().connect()
    assert sorted(each.name for each in gateway.hear(Snapshot).routes) == ["a", "c"]


def test_a_routes_file_is_in_place_before_anybody_hears_of_it(scene: Scene) -> None:
    gateway = scene.gateway().join()
    (published,) = scene.publish(route("a"))
    gateway.hear(Change)
    assert route_messages.read_routes(scene.settings.routes_dir) == [route("a")]
    gateway.say(Applied(2))
    done(published)
    withdrawn = scene.pool.submit(scene.hub.withdraw, key("a"))
    gateway.hear(Change)
    assert route_messages.read_routes(scene.settings.routes_dir) == []
    gateway.say(Applied(3))
    done(withdrawn)


def test_a_route_that_cannot_be_stored_is_not_in_force(scene: Scene) -> None:
    scene.settings.routes_dir.rename(scene.settings.run_dir / "elsewhere")
    with pytest.raises(RoutingError, match="could not be stored"):
        scene.hub.publish(route("a"))
    assert scene.hub.routes() == []


def test_another_version_of_the_link_is_told_so(scene: Scene) -> None:
    gateway = scene.gateway().connect(protocol=99)
    assert "not 99" in gateway.hear(Refused).reason


@pytest.mark.parametrize("noise", [b"\xff\xff\xff\xff", b"\0\0\0\x02{}", b"GET / HTTP/1.1\r\n\r\n"])
def test_noise_ends_a_link_and_nothing_else(scene: Scene, noise: bytes) -> None:
    gateway = scene.gateway().join()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(PATIENCE_S)
        stranger.connect(str(scene.settings.routes_socket))
        stranger.sendall(noise)
        with suppress(ConnectionResetError):  # some of the noise may not even have been read
            assert stranger.recv(1) == b""
    (published,) = scene.publish(route("a"))
    gateway.apply()
    done(published)


def test_a_gateway_that_could_not_be_accepted_is_accepted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [OSError(errno.EMFILE, "Too many open files")]

    class Reluctant(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            if refusals:
                raise refusals.pop()
            return super().accept()

    monkeypatch.setattr(socket, "socket", Reluctant)
    scene = Scene(make_settings(tmp_path, PATIENCE_S))
    try:
        gateway = scene.gateway().join()
        (published,) = scene.publish(route("a"))
        gateway.apply()
        done(published)
        assert refusals == []
    finally:
        scene.close()


def test_a_gateway_that_there_was_no_thread_for_is_not_waited_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = ["routes-read", "routes-send"]
    refuse_threads(monkeypatch, lacking)
    gateway = scene.gateway()
    for _ in range(2):
        with suppress(OSError):  # it may be closed before it has said who it is
            gateway.connect()
        assert gateway.sock is not None
        with suppress(ConnectionResetError):
            assert gateway.sock.recv(1) == b""
    gateway.join()
    (published,) = scene.publish(route("a"))
    gateway.apply()
    done(published)
    assert lacking == []


def test_draining_asks_every_gateway_and_joins_their_answers(scene: Scene) -> None:
    one, other = scene.gateway().join(), scene.gateway().join()
    ids = [InstanceId("i-1"), InstanceId("i-2")]
    drained = scene.pool.submit(scene.hub.drain, ids, PATIENCE_S)
    for gateway, busy in ((one, ()), (other, (InstanceId("i-2"),))):
        wish = gateway.hear(Drain)
        assert wish.instance_ids == ("i-1", "i-2")
        gateway.say(Drained(wish.number, busy))
    assert done(drained) == {"i-2"}


def test_a_gateway_that_connects_anew_is_asked_to_drain_again(scene: Scene) -> None:
    gateway = scene.gateway().join()
    drained = scene.pool.submit(scene.hub.drain, [InstanceId("i-1")], PATIENCE_S)
    gateway.hear(Drain)
    gateway.join()
    gateway.say(Drained(gateway.hear(Drain).number, ()))
    assert done(drained) == set()


def test_a_gateway_that_has_ended_holds_no_requests(scene: Scene) -> None:
    gateway = scene.gateway().join()
    drained = scene.pool.submit(scene.hub.drain, [InstanceId("i-1")], PATIENCE_S)
    gateway.hear(Drain)
    gateway.end()
    assert done(drained) == set()


def test_a_gateway_that_says_nothing_leaves_everything_busy(hasty: Scene) -> None:
    hasty.gateway().join()
    assert hasty.hub.drain([InstanceId("i-1")], 0.1) == {"i-1"}


def batch(sequence: int) -> MetricBatch:
    point = MetricPoint("1", "r", "n", "m", (("a", "b"),), "None", 5, 1.0, 2.0, 2.0, 2.0, {2000: 1.0})
    return MetricBatch("gateway-0:1:2", sequence, (point,))


def test_L02_metrics_are_acknowledged_once_they_are_stored(scene: Scene) -> None:
    gateway = scene.gateway().join()
    gateway.say(Metrics(batch(1)))
    assert gateway.hear(MetricsTaken) == MetricsTaken("gateway-0:1:2", 1)
    assert scene.batches == [batch(1)]


def test_L02_metrics_that_could_not_be_stored_are_not_acknowledged(scene: Scene) -> None:
    tried = threading.Event()

    def refuse(batch: MetricBatch) -> None:
        tried.set()
        raise OSError("disk full")

    scene.take = refuse
    gateway = scene.gateway().join()
    gateway.say(Metrics(batch(1)))
    assert tried.wait(PATIENCE_S)
    scene.take = scene.batches.append
    gateway.say(Metrics(batch(1)))
    assert gateway.hear(MetricsTaken).sequence == 1
    assert scene.batches == [batch(1)]


def test_storing_metrics_does_not_hold_up_routes(scene: Scene) -> None:
    let_go = threading.Event()
    scene.take = lambda batch: (let_go.wait(PATIENCE_S), None)[1]
    gateway = scene.gateway().join()
    gateway.say(Metrics(batch(1)))
    (published,) = scene.publish(route("a"))
    gateway.apply()
    done(published)
    let_go.set()


def test_nobody_waits_for_a_hub_that_closes(scene: Scene) -> None:
    scene.gateway().join()
    (published,) = scene.publish(route("a"))
    assert is_waiting(published)
    scene.hub.close()
    with pytest.raises(RoutingError, match="stopping"):
        done(published)
