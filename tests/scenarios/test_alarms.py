"""An alarm on a user's own metric, and the web hook it tells: over the real server, control killed on the way."""

import http.server
import json
import queue
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clary.links import processes
from clary.testing.server import RunningServer

WITHIN_S = 120.0


class Hook:
    """A web server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.posted: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.status = 200
        self._messages: list[dict[str, Any]] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.status  # one for both: what is kept has been taken
                if status == 200:
                    hook.posted.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def next(self) -> Any:
        return json.loads(self.posted.get(timeout=WITHIN_S)[1])

    def told(self, alarm: str, reason: str) -> Any:
        """What an alarm tells for this reason. Other notices may come before: of the other alarm, and such as come
        twice because their answer was late."""
        wanted = [each for each in self._messages if _is_of(each, alarm, reason)]
        while not wanted:
            notice = self.next()
            if notice["Type"] == "Notification":
                self._messages.append(json.loads(notice["Message"]))
                wanted = [each for each in self._messages if _is_of(each, alarm, reason)]
        return wanted[0]

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


def test_L03_an_alarm_tells_a_web_hook_also_when_control_is_killed(place: Path, hook: Hook) -> None:
    with RunningServer(place / "d") as server:
        sns, cloudwatch = server.client("sns"), server.client("cloudwatch")
        topic = sns.create_topic(Name="on-call")["TopicArn"]
        retries = {"minDelayTarget": 1, "maxDelayTarget": 1, "numRetries": 30}
        sns.subscribe(
            TopicArn=topic,
            Protocol="http",
            Endpoint=hook.url,
            Attributes={"DeliveryPolicy": json.dumps({"healthyRetryPolicy": retries})},
        )
        asked = hook.next()
        assert asked["Type"] == "SubscriptionConfirmation"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(asked["SubscribeURL"], timeout=WITHIN_S) as answer:
            assert b"<SubscriptionArn>" in answer.read()

        cloudwatch.put_metric_alarm(
            AlarmName="queue is long",
            Namespace="Mine",
            MetricName="Length",
            Statistic="Maximum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=100,
            ComparisonOperator="GreaterThanThreshold",
            TreatMissingData="ignore",
            AlarmActions=[topic],
        )
        cloudwatch.put_composite_alarm(
            AlarmName="any", AlarmRule='ALARM("queue is long")', AlarmActions=[topic]
        )
        data = [{"MetricName": "Length", "Value": 500.0, "Timestamp": datetime.now(UTC)}]
        cloudwatch.put_metric_data(Namespace="Mine", MetricData=data)
        crossed = hook.told("queue is long", "was greater than the threshold (100.0)")
        assert crossed["NewStateValue"] == "ALARM"
        assert hook.told("any", "transitioned to ALARM")["NewStateValue"] == "ALARM"

        hook.status = 503  # the hook is away, and then control dies
        cloudwatch.set_alarm_state(AlarmName="queue is long", StateValue="OK", StateReason="seen to")
        cloudwatch.set_alarm_state(AlarmName="queue is long", StateValue="ALARM", StateReason="by hand")
        control = server.process("control")
        assert control is not None
        processes.signal(control, signal.SIGKILL)
        hook.status = 200
        until(lambda: server.process("control") not in (None, control))
        assert hook.told("queue is long", "by hand")["NewStateValue"] == "ALARM"

        history = until(lambda: cloudwatch.describe_alarm_history(AlarmName="queue is long"))
        summaries = [item["HistorySummary"] for item in history["AlarmHistoryItems"]]
        assert summaries.count("Alarm updated from OK to ALARM") == 1
        assert f"Successfully executed action {topic}" in summaries


def _is_of(message: dict[str, Any], alarm: str, reason: str) -> bool:
    return message["AlarmName"] == alarm and reason in message["NewStateReason"]


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds, as soon as it finds something; errors meanwhile are nothing."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            found = look()
        except Exception:
            if time.monotonic() > deadline:
                raise
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
