"""Control, put together: `python -m clary.main --settings FILE`, until SIGTERM.

This is the composition root of the process that answers the AWS operations and runs the reconcilers. What every
part needs is made here and handed in; nothing below reads the environment or makes a clock.
"""

import argparse
import asyncio
import functools
import gc
import logging
import os
import signal
import sqlite3
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from clary import credentials, settings
from clary.blobs.filesystem import FilesystemBlobs
from clary.catalog import Catalog
from clary.domain.alarm_evaluation import alarm_timing
from clary.domain.clock import Clock, SystemClock
from clary.domain.deployments import Verdict
from clary.domain.faults import Fault
from clary.domain.images import OwnImage
from clary.domain.instances import LogTarget
from clary.domain.resources import ENDPOINT
from clary.drivers.base import Driver, DriverError
from clary.drivers.local import LocalDriver
from clary.links import free_room, hosts, priorities, processes
from clary.links.captures import Header
from clary.links.hosts import HostClient
from clary.links.metrics import MetricBatch
from clary.links.routes import RouteHub, RoutingError, running_gateways
from clary.reconcilers import reset
from clary.reconcilers.alarm import AlarmWatch
from clary.reconcilers.alarm_notices import AlarmNotices
from clary.reconcilers.base import Runner
from clary.reconcilers.captures import CaptureShipping
from clary.reconcilers.chores import Chore, Chores, Cleaning, HostMetrics
from clary.reconcilers.endpoint import EndpointReconciler
from clary.reconcilers.notice import HttpSender, NoticeReconciler
from clary.reconcilers.scaling import ScalableTargetReconciler
from clary.reconcilers.scaling_action import ScalingAction
from clary.services import application_autoscaling, cloudwatch, ecr, iam, logs, s3, sagemaker, sns, sts
from clary.services import clary as admin
from clary.services.authorization import Authorization
from clary.settings import Settings
from clary.store import Resource, Store
from clary.store.alarms import AlarmAction
from clary.telemetry import server_log
from clary.telemetry.logs import LogsUnavailable, RemoteLogs
from clary.telemetry.metrics import Recorder
from clary.telemetry.store import MetricStore
from clary.wire import validate
from clary.wire.calling import InProcessCaller
from clary.wire.models import ServiceModels
from clary.wire.operations import OperationTable, marked_in
from clary.wire.presigning import Links
from clary.wire.server import WireServer
from clary.wire.sessions import KeyRing
from clary.wire.sigv4 import Verifier

log = logging.getLogger("clary.control")

_CLEAN_EVERY_S = 86_400.0
_SHIP_EVERY_S = 2.0
_CATCH_UP_EVERY_S = 5.0
# SQLite says the last of these where it cannot make a file beside the database.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_GIVES_WAY_BY = 5
_HOST_SAYS_WITHIN_S = 15.0  # how it is; shorter than commands wait for their answer

SERVICES = (admin, application_autoscaling, cloudwatch, ecr, iam, logs, s3, sagemaker, sns, sts)
RUNTIME_OPERATIONS = ("InvokeEndpoint", "InvokeEndpointWithResponseStream")
"""Answered by the gateways, without control."""


def operation_names() -> list[tuple[str, str]]:
    """Every (service, operation) this server answers, found without making anything."""
    names = [
        (package.__name__.rpartition(".")[2].replace("_", "-"), name)
        for package in SERVICES
        for name in marked_in(package)
    ]
    return sorted([*names, *(("sagemaker-runtime", name) for name in RUNTIME_OPERATIONS)])


class Control:
    """A running control process. `close` ends it; instances and gateways go on."""

    def __init__(self, found: Settings, clock: Clock) -> None:
        self._settings = found
        self._clock = clock
        self._host = HostClient(found.host_socket)
        self._store = Store.open(found.store_url, clock, has_reserve=True)
        self._blobs = FilesystemBlobs(found.objects_dir, clock)
        self._metrics = MetricStore(found.data_dir / "metrics.db", clock)
        self._logs = RemoteLogs(self._host.call_raw)
        self._driver: Driver = LocalDriver(self._host)
        self._hub = RouteHub(found, on_metrics=self._ingest)
        self._keys = KeyRing.load(credentials.path(found), found.account)
        self._identities = iam.Identities(
            self._store, self._keys, found.keys_dir, _new_uid, self._announce_identities
        )
        self._authorization = Authorization(lambda: self._identities.rights, lambda: datetime.now(UTC))
        self._table = OperationTable()
        self._call = InProcessCaller(lambda: self._models, self._table, validate.validate, clock)
        self._endpoints = EndpointReconciler(
            self._store,
            self._driver,
            self._hub,
            clock,
            invocation_timeout_s=found.invocation_timeout_s,
            stop_grace_s=found.stop_grace_s,
            zones=found.zones,
            tell=self._count_deployment,
            command_options=found.command_options,
        )
        links = Links(self._keys.root, f"http://127.0.0.1:{found.port}")
        self._notices = NoticeReconciler(self._store, clock, links, HttpSender())
        self._scaling = ScalableTargetReconciler(
            self._store, self._metrics, self._call, clock, _new_uid, alarm_timing(found.autoscaling_timing)
        )
        self._runner = Runner(
            self._store, self._driver, clock, [self._endpoints, self._notices, self._scaling]
        )
        # What alarms may set in motion:
        self._alarm_actions: list[AlarmAction] = [AlarmNotices(_new_id), ScalingAction()]
        self._alarms = AlarmWatch(
            self._store, self._metrics, clock, self._alarm_actions, alarm_timing(found.alarm_timing)
        )
        self._captures = CaptureShipping(found.captures_dir, self._blobs, clock, self._count_lost_captures)
        self._host_metrics = HostMetrics(self._host, self._metrics)
        cleaning = Cleaning(self._store, self._blobs, clock, timedelta(seconds=found.upload_keep_s))
        self._chores = Chores(
            Chore("host-metrics", found.telemetry_interval_s, self._host_metrics.collect),
            Chore("captures", _SHIP_EVERY_S, lambda: self._captures.ship()),
            Chore("identities", _CATCH_UP_EVERY_S, self._identities.catch_up),
            Chore("cleaning", _CLEAN_EVERY_S, cleaning.clean, is_due_at_start=True),
        )

    @functools.cached_property
    def _models(self) -> ServiceModels:
        return ServiceModels(self._table.implemented())

    def table(self) -> OperationTable:
        """Everything that is answered, entered once."""
        found = self._settings
        images = Catalog.load(own=found.images_dir)
        table = self._table
        table.add(
            "s3", *s3.resources(self._blobs, account=found.account, max_object_bytes=found.max_object_bytes)
        )
        table.add(
            "sagemaker",
            *sagemaker.resources(
                self._store,
                self._clock,
                _new_uid,
                _Images(images, self._host),
                self._blobs,
                startup_timeout_s=found.startup_timeout_s,
                most_instances=found.max_endpoint_instances,
                why_not_isolated=self._why_not_isolated,
                authorize=self._authorization.check,
            ),
        )
        table.add("sts", *sts.resources(self._keys, lambda: self._identities.rights, time.time))
        table.add("iam", *iam.resources(self._store, self._identities, _new_uid))
        table.add(
            "application-autoscaling",
            *application_autoscaling.resources(
                self._store, self._clock, _new_uid, alarm_timing(found.autoscaling_timing)
            ),
        )
        table.add("ecr", *ecr.resources(images))
        table.add("logs", *logs.resources(self._logs))
        table.add(
            "cloudwatch",
            *cloudwatch.resources(self._metrics, self._clock, self._store, _new_uid, self._alarm_actions),
        )
        table.add("sns", *sns.resources(self._store, self._clock, _new_uid, _new_id))
        table.add(
            "clary",
            *admin.resources(
                self._store,
                self._clock,
                found,
                log_tail=self._log_tail,
                reset=self._reset,
                parts=self._parts,
                ask_host=self._host.call,
            ),
        )
        return table

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        table = self.table()
        wire = WireServer(
            self._models,
            table,
            validate=validate.validate,
            keys=Verifier(self._keys),
            clock=self._clock,
            new_request_id=lambda: str(uuid.uuid4()),
            max_api_bytes=self._settings.max_api_bytes,
            authorize=self._authorization.check,
            hold_s=self._settings.hold_describe_s,
            s3_base_domain=self._settings.s3_base_domain,
        )
        await self._begin()
        server = await wire.serve(self._settings.control_socket)
        self._chores.start()
        gc.freeze()  # what start-up made stays: it need not be looked at again
        log.info("control is ready", extra={"socket": str(self._settings.control_socket)})
        await stop.wait()
        wire.stop_holding()
        await server.close(self._settings.stop_grace_s)
        wire.close()
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    async def _begin(self) -> None:
        self._identities.apply()  # before any gateway connects: with its routes it takes users and roles
        self._hub.start()
        await asyncio.get_running_loop().run_in_executor(None, self._withdraw_orphans)
        self._runner.start()
        self._alarms.start()

    def _close(self) -> None:
        self._chores.stop()
        self._alarms.stop()
        self._runner.stop()
        self._hub.close()
        self._host.close()

    def _withdraw_orphans(self) -> None:
        """Routes of the last life whose endpoint is gone: a power cut may have kept the one and not the other."""
        with self._store.read() as tx:
            orphans = [
                route.key
                for route in self._hub.routes()
                if tx.resources.find(route.key.account, route.key.region, ENDPOINT.name, route.key.name)
                is None
            ]
        if orphans:
            log.warning("routes without an endpoint are withdrawn", extra={"count": len(orphans)})
            self._hub.withdraw(*orphans)

    def _count_lost_captures(self, header: Header, records: int) -> None:
        log.warning(
            "captured requests are given up: their bucket was not made within an hour",
            extra={"bucket": header.bucket, "endpoint": header.endpoint, "records": records},
        )
        dimensions = {"EndpointName": header.endpoint, "VariantName": header.variant}
        self._count(header.account, header.region, "CaptureRecordsDropped", dimensions, records)

    def _count_deployment(self, endpoint: Resource, verdict: Verdict) -> None:
        """`Deployments` and `DeploymentRollbacks` of each endpoint."""
        dimensions = {"EndpointName": endpoint.name}
        self._count(endpoint.account, endpoint.region, "Deployments", dimensions, 1)
        if verdict in ("rolled-back", "rollback-failed"):
            self._count(endpoint.account, endpoint.region, "DeploymentRollbacks", dimensions, 1)

    def _count(self, account: str, region: str, name: str, dimensions: dict[str, str], number: int) -> None:
        """Counts what control itself saw, in the namespace `Clary`."""
        recorder = Recorder("control", self._clock)
        recorder.series(account, region, "Clary", name, dimensions, "Count").add(1.0, number)
        batch = recorder.drain()
        try:
            self._metrics.put(batch.points if batch is not None else ())
        except Exception:  # what was counted is done, whether or not its metric can be stored
            log.exception("a metric could not be stored", extra={"metric": name})

    def _ingest(self, batch: MetricBatch) -> None:
        self._metrics.ingest(batch)

    def _announce_identities(self) -> None:
        try:
            self._hub.announce_identities()
        except RoutingError as error:
            raise iam.not_everywhere(str(error)) from error

    def _log_tail(self, target: LogTarget, lines: int) -> Sequence[str]:
        try:
            page = self._logs.read(target.account, target.region, target.group, target.stream, forward=False)
        except LogsUnavailable as error:
            return [f"(the log cannot be read now: {error})"]
        return [] if page is None else [event.message for event in page.events][-lines:]

    def _reset(self) -> None:
        """Back to an empty server: instances, routes, resources, objects, metrics and logs. May be repeated."""
        try:
            reset.empty(self._runner, self._store, self._driver, self._hub)
            self._captures.clear()
            self._blobs.clear()
            self._metrics.clear()
            self._hub.begin_metrics(self._metrics.since_ms)
            self._host_metrics.collect()
            self._logs.clear()
        except (DriverError, RoutingError, LogsUnavailable) as error:
            text = f"Reset did not finish: {error}. Try again."
            raise Fault("ServiceUnavailable", text, 503) from error
        self._identities.publish()

    def _why_not_isolated(self) -> str:
        """A host that is away says nothing: it refuses such an instance itself where it cannot isolate one."""
        try:
            status = self._host.call("status", hosts.GetStatus(), hosts.HostStatus, _HOST_SAYS_WITHIN_S)
        except (hosts.HostError, hosts.HostUnavailable):
            return ""
        return "" if status.sandbox_rung > 0 else f"it needs sandbox rung 1, and this is {status.sandbox}"

    def _parts(self) -> dict[str, object]:
        """How the other processes are, as far as control can see."""
        parts: dict[str, object] = {"Gateways": len(running_gateways(self._settings))}
        try:
            status = self._host.call("status", hosts.GetStatus(), hosts.HostStatus, _HOST_SAYS_WITHIN_S)
        except (hosts.HostError, hosts.HostUnavailable) as error:
            return parts | {"Host": f"does not answer: {error}", "Environments": {}}
        environments = {
            e.name: e.state if e.state == "ready" else f"{e.state}: {e.detail}" for e in status.environments
        }
        return parts | {
            "Host": "answers",
            "Environments": environments,
            "Zygotes": list(status.zygotes),
            "Sandbox": status.sandbox,
            "Processors": status.processors,
            "ContainerEngine": status.engine,
        }


class _Images:
    """The catalog's images, and beyond them those of the host's container engine."""

    def __init__(self, catalog: Catalog, host: HostClient) -> None:
        self._catalog = catalog
        self._host = host
        self.repositories = catalog.repositories

    def resolve(self, image_uri: str) -> object | None:
        return self._catalog.resolve(image_uri)

    def own(self, image_uri: str) -> OwnImage:
        try:
            return self._host.call("look_up_image", hosts.LookUpImage(image_uri), OwnImage)
        except (hosts.HostError, hosts.HostUnavailable) as error:
            text = f"Whether there is an image {image_uri} cannot be told now: {error}. Try again."
            raise Fault("ServiceUnavailable", text, 503) from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="clary.main", description="Clary's control process.")
    parser.add_argument(
        "--settings", type=Path, required=True, help="the settings file that `clary up` wrote"
    )
    found = settings.read(parser.parse_args().settings)
    server_log.configure(found.log_level)
    try:
        processes.record(found.run_dir / "control.pid.json")
        priorities.give_way(_GIVES_WAY_BY)  # serving goes first
        uvloop.run(Control(found, SystemClock()).run())
    except Exception as error:
        if not _is_full_disk(error):
            raise
        where = {"data_dir": str(found.data_dir), "error": str(error)}
        log.error(
            "control cannot run, its disk is full or failing: free some space; it is started again",
            extra=where,
        )
        sys.exit(os.EX_TEMPFAIL)


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether this, or what led to it, is a disk that cannot be written, in whosever words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in free_room.NO_ROOM:
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _new_uid() -> str:
    return uuid.uuid4().hex


def _new_id() -> str:
    """As clients see ids."""
    return str(uuid.uuid4())


if __name__ == "__main__":
    main()
