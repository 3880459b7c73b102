"""Notices on their way: retries, endpoints that hang or refuse, kills between any two steps, and alarms that tell."""

import http.client
import http.server
import json
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clary.domain.alarms import AlarmSpec
from clary.domain.notices import Notice, Post, Subscription, topic_arn
from clary.domain.principals import DEFAULT_ROLE_NAME, assumed_role
from clary.drivers.fake import FakeDriver
from clary.reconcilers.alarm_notices import AlarmNotices
from clary.reconcilers.base import LEASE_S, Runner
from clary.reconcilers.notice import HttpSender, NoticeReconciler, Undelivered, _CutOff
from clary.services import sns
from clary.store import Store
from clary.store.alarm_history import HistoryQuery
from clary.store.alarms import change_state, put_alarm
from clary.store.notices import publish
from clary.testing.clock import FakeClock
from clary.wire.operations import Call, OperationTable
from control.harness import ACCOUNT, REGION, Ids

PATIENCE_S = 60.0
ARN = topic_arn(REGION, ACCOUNT, "told")


class Killed(BaseException):
    """The process is gone."""


class World:
    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.store = Store.open(f"sqlite:///{directory / 'store.db'}", self.clock, is_durable=False)
        self.ids = Ids()
        self.table = OperationTable()
        self.table.add("sns", *sns.resources(self.store, self.clock, self.ids, lambda: f"id-{self.ids()}"))
        self.sent: list[tuple[str, Post]] = []
        self.answer: Exception | None = None
        self.restart()
        self.call("CreateTopic", Name="told")

    def restart(self) -> None:
        notices = NoticeReconciler(self.store, self.clock, self.link, self.send)
        self.runner = Runner(self.store, FakeDriver(), self.clock, [notices])
        self.runner.recover()

    def link(self, service: str, region: str, params: Mapping[str, str], lasts_s: int) -> str:
        return f"http://here/{params['Action']}"

    def send(self, url: str, request: Post) -> None:
        if self.answer is not None:
            raise self.answer
        self.sent.append((url, request))

    def call(self, operation: str, **params: Any) -> Any:
        handler = self.table.find("sns", operation)
        assert handler is not None
        principal = assumed_role(ACCOUNT, DEFAULT_ROLE_NAME, "clary", "AKIA", is_root=True)
        return handler(Call("sns", operation, ACCOUNT, REGION, principal, "r", self.clock.now()), params)

    def subscribe(self, endpoint: str = "http://e/", **attributes: str) -> str:
        arn = self.call(
            "Subscribe",
            TopicArn=ARN,
            Protocol="http",
            Endpoint=endpoint,
            ReturnSubscriptionArn=True,
            Attributes=attributes,
        )["SubscriptionArn"]
        with self.store.read() as tx:
            (found,) = [each for each in tx.resources.all("sns-subscription") if each.arn == arn]
        self.call("ConfirmSubscription", TopicArn=ARN, Token=found.spec_as(Subscription).token)
        self.runner.run_pending()
        self.sent.clear()
        return str(arn)

    def publish(self, message: str) -> None:
        self.call("Publish", TopicArn=ARN, Message=message)

    def bodies(self) -> list[str]:
        return [json.loads(request.body)["Message"] for _, request in self.sent]

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.runner.run_pending()
            self.clock.advance(1.0)
        self.runner.run_pending()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()


def test_L03_an_endpoint_is_asked_first_and_told_after_it_confirmed(world: World) -> None:
    answer = world.call("Subscribe", TopicArn=ARN, Protocol="http", Endpoint="http://e/x")
    assert answer == {"SubscriptionArn": "pending confirmation"}
    world.publish("too early")
    world.run(1)
    ((url, request),) = world.sent
    asked = json.loads(request.body)
    assert url == "http://e/x"
    assert request.headers["x-amz-sns-message-type"] == asked["Type"] == "SubscriptionConfirmation"
    assert asked["SubscribeURL"] == "http://here/ConfirmSubscription"
    arn = world.call("ConfirmSubscription", TopicArn=ARN, Token=asked["Token"])["SubscriptionArn"]
    world.sent.clear()
    world.publish("now")
    world.run(1)
    ((_, request),) = world.sent
    told = json.loads(request.body)
    assert (told["Type"], told["Message"], told["TopicArn"]) == ("Notification", "now", ARN)
    assert told["UnsubscribeURL"] == "http://here/Unsubscribe"
    assert request.headers["x-amz-sns-subscription-arn"] == arn
    assert "Signature" not in told


def test_L03_raw_delivery_filters_and_other_messages_for_other_protocols(world: World) -> None:
    world.subscribe("http://raw/", RawMessageDelivery="true")
    world.subscribe("http://few/", FilterPolicy='{"n": [{"numeric": [">", 1]}]}')
    world.call(
        "Publish",
        TopicArn=ARN,
        Message=json.dumps({"default": "d", "http": "h"}),
        MessageStructure="json",
        MessageAttributes={"n": {"DataType": "Number", "StringValue": "1"}},
    )
    world.run(1)
    ((url, request),) = world.sent
    assert (url, request.body) == ("http://raw/", b"h")
    assert request.headers["x-amz-sns-rawdelivery"] == "true"
    world.call(
        "Publish",
        TopicArn=ARN,
        Message="m",
        MessageAttributes={"n": {"DataType": "Number", "StringValue": "2"}},
    )
    world.run(1)
    few = [json.loads(request.body) for url, request in world.sent if url == "http://few/"]
    assert [each["MessageAttributes"] for each in few] == [{"n": {"Type": "Number", "Value": "2"}}]


def test_L03_a_notice_is_sent_again_until_the_endpoint_takes_it(world: World) -> None:
    world.subscribe()
    world.publish("a")
    world.answer = Undelivered("the endpoint answered 503")
    world.run(30)
    world.answer = None
    world.run(30)
    assert world.bodies() == ["a"]


def test_L03_what_is_given_up_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    arn = world.subscribe()
    world.answer = Undelivered("the endpoint answered 503")
    world.publish("a")
    world.run(70)
    assert "a notice is given up" in caplog.text
    world.answer = Undelivered("the endpoint answered 404", is_final=True)
    world.publish("b")
    world.run(1)
    world.answer = None
    world.run(60)
    assert world.sent == []
    with world.store.read() as tx:
        (found,) = [each for each in tx.resources.all("sns-subscription") if each.arn == arn]
        steps = [(event.step, event.detail["error"]) for event in tx.events.of(found.uid)]
    assert steps == [
        ("notice given up", "the endpoint answered 503"),
        ("notice given up", "the endpoint answered 404"),
    ]


def test_L03_a_kill_before_or_after_sending_loses_no_notice(world: World) -> None:
    world.subscribe()
    world.publish("a")
    world.publish("b")
    send = world.send

    def before(url: str, request: Post) -> None:
        raise Killed

    def after(url: str, request: Post) -> None:
        send(url, request)
        raise Killed

    for dying in (before, after):
        world.runner = Runner(
            world.store,
            FakeDriver(),
            world.clock,
            [NoticeReconciler(world.store, world.clock, world.link, dying)],
        )
        with pytest.raises(Killed):
            world.runner.run_pending()
        world.clock.advance(LEASE_S + 1)
        world.restart()
    world.run(5)
    assert world.bodies() == ["a", "a", "b"]  # the second kill came after the endpoint had it


def test_L03_nobody_waits_for_an_endpoint_that_hangs(world: World) -> None:
    for number in range(5):
        world.subscribe(f"http://slow{number}/")
    world.subscribe("http://quick/")
    world.publish("m")
    hanging, release = threading.Semaphore(0), threading.Event()

    def hang(url: str, request: Post) -> None:
        hanging.release()
        release.wait(PATIENCE_S)

    notices = NoticeReconciler(world.store, world.clock, world.link, hang)
    with world.store.write() as tx:
        leases = tx.work.take(6, LEASE_S)
    threads = [threading.Thread(target=notices.reconcile, args=(lease,)) for lease in leases[:3]]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert hanging.acquire(timeout=PATIENCE_S)
    assert notices.reconcile(leases[3]) == 0.5
    release.set()
    for thread in threads:
        thread.join()
    assert notices.reconcile(leases[3]) == 0.0


def test_L03_endpoints_that_failed_before_leave_a_place_for_others(world: World) -> None:
    for number in range(4):
        world.subscribe(f"http://slow{number}/")
    world.publish("m")
    world.answer = Undelivered("it did not answer")
    world.runner.run_pending()  # each has failed once
    world.answer = None
    world.subscribe("http://quick/")
    world.publish("n")
    world.clock.advance(60)
    hanging, release = threading.Semaphore(0), threading.Event()

    def hang(url: str, request: Post) -> None:
        if "slow" in url:
            hanging.release()
            release.wait(PATIENCE_S)

    notices = NoticeReconciler(world.store, world.clock, world.link, hang)
    with world.store.write() as tx:
        leases = tx.work.take(5, LEASE_S)
        quick = [lease for lease in leases if "quick" in _endpoint(world, lease.uid)]
    slow = [lease for lease in leases if lease not in quick]
    threads = [threading.Thread(target=notices.reconcile, args=(lease,)) for lease in slow[:2]]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert hanging.acquire(timeout=PATIENCE_S)
    assert notices.reconcile(slow[2]) == 0.5
    assert [notices.reconcile(lease) for lease in quick] == [0.0]
    release.set()
    for thread in threads:
        thread.join()


def _endpoint(world: World, uid: str) -> str:
    with world.store.read() as tx:
        found = tx.resources.get(uid)
    return found.spec_as(Subscription).endpoint if found else ""


def test_L03_who_never_confirms_is_forgotten_after_three_days(world: World) -> None:
    world.call("Subscribe", TopicArn=ARN, Protocol="http", Endpoint="http://e/")
    world.run(1)
    world.clock.advance(3 * 86_400 + 1)
    world.run(1)
    assert world.call("ListSubscriptions")["Subscriptions"] == []


def test_L03_an_alarm_tells_its_topic_in_cloudwatchs_form(world: World) -> None:
    world.subscribe()
    actions = [AlarmNotices(lambda: str(uuid.UUID(int=1)))]
    spec = AlarmSpec(
        "errors",
        namespace="AWS/SageMaker",
        metric="Invocation5XXErrors",
        dimensions=(("EndpointName", "e"),),
        statistic="Sum",
        threshold=1.0,
        alarm_actions=(ARN, ARN + "-gone"),
    )
    with world.store.write() as tx:
        alarm = put_alarm(tx, "a" * 32, ACCOUNT, REGION, spec, world.clock.now())
        change_state(tx, alarm, "ALARM", "it crossed", "", world.clock.now(), actions)
    world.run(1)
    ((_, request),) = world.sent
    told = json.loads(request.body)
    assert told["Subject"] == f'ALARM: "errors" in {REGION}'
    message = json.loads(told["Message"])
    assert (message["OldStateValue"], message["NewStateValue"]) == ("INSUFFICIENT_DATA", "ALARM")
    assert message["NewStateReason"] == "it crossed"
    assert message["Trigger"]["Dimensions"] == [{"value": "e", "name": "EndpointName"}]
    assert message["Trigger"]["Statistic"] == "SUM"
    with world.store.read() as tx:
        items = tx.alarm_history.page(HistoryQuery(ACCOUNT, REGION, type="Action", descending=False))
    assert [item.summary for item in items] == [
        f"Successfully executed action {ARN}",
        f"Failed to execute action {ARN}-gone: the topic does not exist",
    ]


def test_L03_a_deleted_topic_takes_its_subscriptions_and_notices_along(world: World) -> None:
    world.subscribe()
    world.publish("a")
    world.call("DeleteTopic", TopicArn=ARN)
    world.run(3)
    assert world.sent == []
    with world.store.write() as tx:
        assert publish(tx, Notice("Notification", "1", ARN, "m", world.clock.now())) == 0
        assert tx.resources.all("sns-subscription") == []


@dataclass(frozen=True, slots=True)
class Heard:
    """What an endpoint was sent."""

    path: str
    body: bytes
    authorization: str | None


@contextmanager
def endpoint_answering(status: int) -> Iterator[tuple[str, list[Heard]]]:
    """An endpoint that takes one post: its host and port, and what it heard once this has ended."""
    heard: list[Heard] = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(Heard(self.path, body, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", heard
        thread.join()


@pytest.mark.parametrize(
    ("status", "is_final"), [(200, None), (302, True), (404, True), (429, False), (500, False)]
)
def test_L03_what_an_endpoint_answers_decides(status: int, is_final: bool | None) -> None:
    with endpoint_answering(status) as (host, heard):
        url = f"http://{host}/hook?a=b"
        if is_final is None:
            HttpSender(PATIENCE_S)(url, Post({}, b"body"))
        else:
            with pytest.raises(Undelivered, match=str(status)) as caught:
                HttpSender(PATIENCE_S)(url, Post({}, b"body"))
            assert caught.value.is_final is is_final
    assert heard == [Heard("/hook?a=b", b"body", None)]
    with pytest.raises(Undelivered):
        HttpSender(PATIENCE_S)(url, Post({}, b"nobody is there"))


def test_L03_an_endpoint_that_answers_a_byte_at_a_time_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)

        def trickle() -> None:
            with suppress(OSError), listener.accept()[0] as connection:
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(Undelivered):
            HttpSender(0.5)(f"http://127.0.0.1:{listener.getsockname()[1]}/", Post({}, b""))
        thread.join()


def test_L03_an_endpoint_that_is_reached_too_late_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class AtOnce(threading.Timer):
        """Its time is over before there is a connection to cut."""

        def start(self) -> None:
            self.function(*self.args, **self.kwargs)

    monkeypatch.setattr(threading, "Timer", AtOnce)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(Undelivered, match="too long"),
    ):
        HttpSender(PATIENCE_S)(f"http://127.0.0.1:{listener.getsockname()[1]}/", Post({}, b""))


def test_L03_an_encrypted_exchange_that_is_cut_off_stays_encrypted() -> None:
    near, far = socket.socketpair()
    tls = ssl.create_default_context().wrap_socket(
        near, server_hostname="hook.example", do_handshake_on_connect=False
    )
    connection = http.client.HTTPSConnection("hook.example")
    connection.sock = tls
    with far, tls:
        _CutOff(connection, PATIENCE_S)._end()
        assert far.recv(1) == b""
        with pytest.raises(OSError):  # it has ended, and not: it has no encryption
            tls.unwrap()


def test_L03_a_name_that_no_host_can_have_is_given_up_like_others() -> None:
    for url in ("http://a..b/", f"http://{'a' * 64}.example/"):
        with pytest.raises(Undelivered):
            HttpSender(PATIENCE_S)(url, Post({}, b""))


def test_L03_an_endpoint_s_credentials_are_sent() -> None:
    with endpoint_answering(200) as (host, heard):
        HttpSender(PATIENCE_S)(f"http://me:s%40e@{host}", Post({}, b""))
    assert [each.authorization for each in heard] == ["Basic bWU6c0Bl"]


def test_L03_binary_attributes_travel_as_base64(world: World) -> None:
    world.subscribe()
    world.call(
        "Publish",
        TopicArn=ARN,
        Message="m",
        MessageAttributes={"b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}},
    )
    world.run(1)
    told = json.loads(world.sent[0][1].body)
    assert told["MessageAttributes"] == {"b": {"Type": "Binary", "Value": "AP8="}}
