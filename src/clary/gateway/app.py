"""A gateway put together: made from settings and a listening socket, runs until it is told to stop."""

import asyncio
import resource
import socket
from collections.abc import Coroutine
from logging import getLogger
from pathlib import Path
from typing import Any

from clary import credentials
from clary.domain.clock import SystemClock
from clary.gateway.accept import Acceptor
from clary.gateway.callers import Callers
from clary.gateway.capture import Capturer
from clary.gateway.door import Door, State
from clary.gateway.forward import Forwarding
from clary.gateway.front import Front
from clary.gateway.host_link import HostLink
from clary.gateway.link import RouteLink
from clary.gateway.models import Models
from clary.gateway.public_hosts import Certificates, is_telemetry
from clary.gateway.request_ids import request_ids
from clary.gateway.role_credentials import RoleCredentials
from clary.gateway.routes import RouteTable
from clary.gateway.runtime import Runtime
from clary.gateway.streams import LONGEST_STREAM_S
from clary.gateway.tunnels import Tunnels
from clary.gateway.upstream import Upstream, sweep
from clary.links import processes, upstream_proxy
from clary.settings import Settings
from clary.telemetry.metrics import Recorder
from clary.wire.exchange import Exchange
from clary.wire.faults import http_refusal
from clary.wire.http import HttpServer
from clary.wire.sigv4 import KeyRing, Verifier

log = getLogger(__name__)

QUIET_S = 3.0
"""A gateway that retires closes a connection only after it has been idle for so long."""

_SWEEP_S = 0.1
_STOP_MARGIN_S = 5.0


class Gateway:
    """One gateway process. Must be made and run on its loop."""

    def __init__(self, settings: Settings, number: int, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        process = processes.current()
        recorder = Recorder(
            f"gateway-{number}:{process.pid}:{process.start_time}", SystemClock(), settings.metric_keep_s
        )
        keyring = KeyRing.load(settings.keys_dir / "credentials.json", settings.account)
        verifier = Verifier(keyring)
        callers = Callers(settings.keys_dir, keyring, verifier)
        ids = request_ids()
        self._settings = settings
        self._number = number
        self._process = process
        self._listening = listening
        self._loop = loop
        self._table = RouteTable(recorder, loop, retry_user_code=settings.retry_user_code)
        self._link = RouteLink(settings, number, process, self._table, recorder, callers.load)
        self._control = Upstream(f"unix:{settings.control_socket}", loop, self._table.connections)
        self._capturer = Capturer(
            settings.captures_dir,
            process,
            recorder,
            SystemClock(),
            most_spooled_bytes=settings.capture_spool_bytes,
            rotate_s=settings.capture_rotate_s,
        )
        self._host = HostLink(settings.host_socket)
        self._models = Models(self._host, loop)
        self._runtime = Runtime(
            self._table,
            verifier,
            ids,
            self._models,
            max_body_bytes=settings.max_invocation_bytes,
            authorise=callers.authorise_invocation,
            sampler=self._capturer.sample,
        )
        self._role_credentials = RoleCredentials(keyring, callers, settings.instances_dir)
        self._forwarding = Forwarding(self._control, verifier, ids, max_body_bytes=settings.max_api_bytes)
        self._server = HttpServer(self._handle, refusal=http_refusal)
        self._inside = HttpServer(self._handle_inside, refusal=http_refusal)  # of TLS, under AWS's host names
        self._front = Front(
            self._server.connection,
            self._inside.connection,
            credentials.proxy_token(settings),
            Certificates(settings).context,
            Tunnels(lambda: upstream_proxy.noted(settings)),
        )
        self._door = Door(settings.gateway_socket(number), listening, self._state, self.retire)
        self._stop = asyncio.Event()
        self._quiet_s = 0.0

    async def run(self) -> None:
        """Serves until `stop`, then finishes what is under way."""
        # The pid file comes before the routes: from here on control waits for this gateway to apply changes.
        processes.record(self._settings.run_dir / f"gateway-{self._number}.pid.json")
        await self._link.start()
        self._capturer.start(self._loop)
        self._models.start()
        self._sweep()
        self._door.open()
        acceptor = Acceptor(self._listening.dup(), self._front.connection, sharers=self._settings.gateways)
        log.info("gateway is ready", extra={"gateway": self._number, "routes": self._table.version})
        await self._stop.wait()
        log.info("gateway is stopping", extra={"gateway": self._number, "gently": self._quiet_s > 0})
        await acceptor.close()
        grace_s = self._settings.invocation_timeout_s + _STOP_MARGIN_S
        if self._quiet_s:
            grace_s = max(grace_s, LONGEST_STREAM_S + _STOP_MARGIN_S)
            self._server.stop_accepting(self._quiet_s)
            self._inside.stop_accepting(self._quiet_s)
            await self._front.drain(self._quiet_s, grace_s)
        self._front.close()
        await asyncio.gather(self._server.close(grace_s), self._inside.close(grace_s))
        self._sweeping.cancel()
        self._models.close()
        self._host.close()
        self._capturer.close()
        await self._link.close()
        await self._door.close()
        self._table.close()
        self._control.close()

    def stop(self) -> None:
        """Takes no new connections and ends when the requests under way have ended."""
        if self._stop.is_set() and self._quiet_s:  # it retires already; now it is to be quick
            self._quiet_s = 0.0
            self._server.stop_accepting()
            self._inside.stop_accepting()
            self._front.close()
        self._stop.set()

    def retire(self) -> None:
        """As `stop`, and no client notices: another gateway accepts already, and a connection that is idle here
        stays long enough to answer whoever is about to use it."""
        self._quiet_s = QUIET_S
        self._stop.set()

    def _handle(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        if self._runtime.takes(exchange) or self._role_credentials.takes(exchange):
            return None
        return self._forwarding.answer(exchange)

    def _handle_inside(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        if is_telemetry(exchange.head):
            exchange.respond(200)
            return None
        return self._handle(exchange)

    def _sweep(self) -> None:
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)  # whatever becomes of this one
        sweep(self._table.connections, self._loop.time())

    def _state(self) -> State:
        return State(
            number=self._number,
            pid=self._process.pid,
            routes_version=self._table.version,
            outstanding=self._table.outstanding,
            connections=len(self._server.connections)
            + len(self._inside.connections)
            + len(self._front.openings),
            memory_bytes=_resident_bytes(),
            is_stopping=self._stop.is_set(),
        )


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
