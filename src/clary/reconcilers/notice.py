"""Brings notices to their subscribers: the oldest first, each again and again as the subscription's policy says.

A notice leaves its row only after the endpoint took it, so a kill between the two sends it twice and none is lost.
Only `AT_ONCE` workers wait for endpoints at any time, and one of them never for an endpoint that fails: endpoints that
hang hold up nobody but themselves for longer than their first time-out.
"""

import base64
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from urllib.parse import unquote, urlsplit

from clary.domain.clock import Clock
from clary.domain.notice_retries import delays, parse_policy
from clary.domain.notices import (
    PENDING,
    SUBSCRIPTION_KIND,
    TOKEN_LASTS,
    Notice,
    Post,
    Subscription,
    post,
)
from clary.store import Lease, Resource, Store
from clary.store.deliveries import Delivery

log = logging.getLogger(__name__)

AT_ONCE = 3
TIMEOUT_S = 15.0

_LEASE_S = 60.0
_BUSY_S = 0.5
_UNSUBSCRIBE_LASTS_S = 604_800


class Undelivered(Exception):
    """The endpoint did not take it; the message says why. `is_final`: it never will."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


class Link(Protocol):
    def __call__(self, service: str, region: str, params: Mapping[str, str], lasts_s: int) -> str:
        """A URL that calls an operation of this server when it is followed."""


Send = Callable[[str, Post], None]
"""Posts to a URL. Raises `Undelivered`."""


class NoticeReconciler:
    """One key a subscription."""

    kind = SUBSCRIPTION_KIND
    settled: frozenset[str] = frozenset()

    def __init__(self, store: Store, clock: Clock, link: Link, send: Send) -> None:
        self._store = store
        self._clock = clock
        self._link = link
        self._send = send
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._places_for_more = threading.BoundedSemaphore(AT_ONCE - 1)  # tries with endpoints that fail

    def reconcile(self, lease: Lease) -> float | None:
        with self._store.read() as tx:
            subscription = tx.resources.get(lease.uid)
            delivery = tx.deliveries.next(lease.uid)
        if subscription is None:
            return None
        if self._is_forgotten(subscription):
            with self._store.write() as tx:
                tx.work.hold(lease, _LEASE_S)
                tx.resources.delete(subscription.uid)
            return None
        if delivery is None:
            return self._lasts_s(subscription) if subscription.status == PENDING else None
        wait_s = (delivery.due_at - self._clock.now()) / timedelta(seconds=1)
        if wait_s > 0:
            return wait_s
        with ExitStack() as held:
            wanted = [self._places_for_more] if delivery.is_endpoint_failing else []
            for places in (*wanted, self._places):
                if not places.acquire(blocking=False):
                    return _BUSY_S
                held.callback(places.release)
            self._deliver(lease, subscription, delivery)
        return 0.0

    def _is_forgotten(self, subscription: Resource) -> bool:
        """Nobody confirmed it in time."""
        return subscription.status == PENDING and self._lasts_s(subscription) <= 0

    def _lasts_s(self, subscription: Resource) -> float:
        return (subscription.created_at + TOKEN_LASTS - self._clock.now()) / timedelta(seconds=1)

    def _deliver(self, lease: Lease, subscription: Resource, delivery: Delivery) -> None:
        spec = subscription.spec_as(Subscription)
        request = post(
            delivery.notice,
            subscription.arn,
            is_raw=spec.is_raw,
            url=self._url(subscription, delivery.notice),
        )
        try:
            self._send(spec.endpoint, request)
        except Undelivered as error:
            self._put_off(lease, subscription, delivery, error)
            return
        with self._store.write() as tx:
            tx.work.hold(lease, _LEASE_S)
            tx.deliveries.delete(delivery.id)

    def _put_off(self, lease: Lease, subscription: Resource, delivery: Delivery, error: Undelivered) -> None:
        waits = delays(parse_policy(subscription.spec_as(Subscription).delivery_policy))
        is_over = error.is_final or delivery.attempts >= len(waits)
        fields = {"subscription": subscription.arn, "notice": delivery.notice.id, "error": str(error)}
        with self._store.write() as tx:
            tx.work.hold(lease, _LEASE_S)
            if is_over:
                tx.deliveries.delete(delivery.id)
                tx.events.add(
                    subscription.uid, "notice given up", notice=delivery.notice.id, error=str(error)
                )
            else:
                tx.deliveries.put_off(delivery.id, waits[delivery.attempts])
        if is_over:
            log.warning("a notice is given up", extra=fields | {"attempts": delivery.attempts + 1})
        else:
            log.info("a notice did not arrive yet", extra=fields)

    def _url(self, subscription: Resource, notice: Notice) -> str:
        params = {"Version": "2010-03-31"}
        if notice.type == "SubscriptionConfirmation":
            params |= {"Action": "ConfirmSubscription", "TopicArn": notice.topic_arn, "Token": notice.token}
            lasts_s = int(TOKEN_LASTS / timedelta(seconds=1))
        else:
            params |= {"Action": "Unsubscribe", "SubscriptionArn": subscription.arn}
            lasts_s = _UNSUBSCRIBE_LASTS_S
        return self._link("sns", subscription.region, params, lasts_s)


@dataclass(frozen=True, slots=True)
class HttpSender:
    """Posts over HTTP, without following redirects. 4xx is final but for 408 and 429, as on AWS.

    The time-out is one for the whole exchange: an endpoint that answers a byte at a time does not get another for each.
    """

    timeout_s: float = TIMEOUT_S

    def __call__(self, url: str, request: Post) -> None:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        cut_off = _CutOff(connection, self.timeout_s)
        cut_off.start()
        try:
            headers = {**request.headers, **_credentials(parts.username, parts.password)}
            connection.connect()
            cut_off.check()
            connection.request("POST", target, body=request.body, headers=headers)
            status = connection.getresponse().status
        except (OSError, UnicodeError, http.client.HTTPException) as error:  # no host can have some names
            raise Undelivered(f"{type(error).__name__}: {error}") from error
        finally:
            cut_off.cancel()
            connection.close()
        if not 200 <= status < 300:
            is_final = 300 <= status < 500 and status not in (408, 429)
            raise Undelivered(f"the endpoint answered {status}", is_final=is_final)

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self.timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=self.timeout_s)


class _CutOff:
    """Ends an exchange after its time: whoever waits for the endpoint learns that it is gone.

    Where nothing is connected yet there is nothing to end: who has connected then has to `check`.
    """

    def __init__(self, connection: http.client.HTTPConnection, after_s: float) -> None:
        self._connection = connection
        self._timer = threading.Timer(after_s, self._end)
        self._is_over = False

    def start(self) -> None:
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def check(self) -> None:
        """Raises `TimeoutError` when the time is over."""
        if self._is_over:
            raise TimeoutError("it took too long to connect")

    def _end(self) -> None:
        self._is_over = True  # before the look at the socket: one of the two sees the other's
        if (sock := self._connection.sock) is not None:
            with suppress(OSError):
                # As of any socket: one of TLS gives up its encryption first, and what is being sent would go in clear.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    """Those of a URL, as `https://user:password@host/` has them."""
    if user is None:
        return {}
    plain = f"{unquote(user)}:{unquote(password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(plain.encode()).decode()}"}
