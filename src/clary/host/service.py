"""The host: puts its parts together, answers its link, and does what has to be done every second.

SIGTERM to a host ends the host and leaves the instances running; `stop_all` on the link ends the instances. A
host that was killed in any other way is as good.
"""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from clary.blobs.base import BlobReader
from clary.blobs.filesystem import FilesystemBlobs
from clary.catalog import Catalog, Manifest
from clary.domain.clock import Clock
from clary.host import archives, cgroups, limits
from clary.host.artifacts import Artifacts
from clary.host.cpu_groups import CpuGroups
from clary.host.disk_limits import DiskLimits, room_at
from clary.host.disk_watch import DiskWatch
from clary.host.engine.containers import Containers
from clary.host.engine.engines import Engines
from clary.host.environments import EnvironmentFailed, Environments
from clary.host.failures import Refused
from clary.host.groups import Groups, unit_of, units
from clary.host.identity import role_environment
from clary.host.installing import has_gpu
from clary.host.launching import Launcher
from clary.host.metering import Metering
from clary.host.models import Models
from clary.host.records import Instance
from clary.host.rungs import Boxes, choose
from clary.host.supervise import Instances
from clary.host.uids import Uids
from clary.host.unpacking import Unpacker
from clary.host.watching import MemoryWatch, Pace, PingWatcher
from clary.host.zygotes import Zygotes
from clary.links import hosts, processes
from clary.links.decoding import decode_json
from clary.settings import Settings
from clary.telemetry.logs import LogFiles, link_operations

TICK_S = 1.0
TIDY_WITHIN_S = 15.0

log = logging.getLogger(__name__)

A = TypeVar("A")
R = TypeVar("R")


class Host:
    """A running host. `close` leaves its instances running."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        clock: Clock,
        environ: Mapping[str, str],
        blobs: BlobReader | None = None,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        me = processes.current()
        self._logs = LogFiles(settings.logs_dir, clock, settings.log_max_bytes)
        self._environments = Environments(
            settings.cache_dir / "environments",
            settings.index_urls,
            environ,
            find_links=settings.find_links,
            allows_cuda=settings.cuda == "yes" or (settings.cuda == "auto" and has_gpu()),
        )
        self._zygotes = Zygotes(clock, settings.zygote_idle_s, settings.zygote_max_idle)
        blobs = blobs or FilesystemBlobs(settings.objects_dir, read_only=True)
        self._unpacker = Unpacker(clock)
        self._artifacts = Artifacts(
            settings.artifacts_dir,
            blobs,
            archives.Limits(
                settings.archive_max_members, settings.archive_max_bytes, settings.archive_max_ratio
            ),
            clock,
            self._unpacker,
        )
        self._rung = choose(settings.sandbox, settings.sandbox_uid_base)
        log.info("sandbox", extra={"rung": self._rung.number, "why": self._rung.why})
        boxes = Boxes(
            self._rung,
            hidden=[settings.data_dir],
            uids=Uids(settings.instances_dir, settings.sandbox_uid_base, settings.sandbox_uids),
            processes=settings.sandbox_processes,
        )
        cores = len(os.sched_getaffinity(0))
        self._cpu_groups = CpuGroups(cgroups.find(cores), settings.instances_dir, cores)
        self._cpu_groups.sweep()
        log.info("processors", extra={"how": self._cpu_groups.ground.summary})
        self._containers = Containers(
            Engines(settings.container_engine, environ, settings.run_dir / "podman.sock"),
            settings,
            environ,
            partial(role_environment, settings),
            catalog.repositories,
        )
        launcher = Launcher(
            catalog=catalog,
            environments=self._environments,
            artifacts=self._artifacts,
            zygotes=self._zygotes,
            logs=self._logs,
            clock=clock,
            max_payload_bytes=settings.max_invocation_bytes,
            boxes=boxes,
            cpu_groups=self._cpu_groups,
            role_environment=partial(role_environment, settings),
            containers=self._containers,
        )
        self._metering = Metering(
            f"host:{me.pid}:{me.start_time}", settings.data_dir, clock, settings.metric_keep_s
        )
        self._models = Models(
            settings, lambda id: self._instances.find(id), blobs, self._unpacker, clock, self._metering.took
        )
        self._instances = Instances(settings.instances_dir, launcher, self._logs, clock, self._models.was_at)
        self._memory = MemoryWatch(self._instances)
        self._watcher = PingWatcher(
            self._instances, Pace(settings.ping_interval_s, settings.ping_timeout_s), clock
        )
        self._instances.open(self._watcher)
        self._disk = DiskWatch(
            self._instances,
            lambda: units(self._instances.running()),
            partial(room_at, settings.instances_dir),
            DiskLimits(settings.instance_disk_bytes, settings.disk_reserve_bytes),
            clock,
        )
        self._disk.start()
        sweep = partial(self._containers.sweep, self._instances.live)
        threading.Thread(target=sweep, name="sweep", daemon=True).start()
        self._closing = threading.Event()
        self._ticker = threading.Thread(target=self._tick_on, args=(clock,), name="ticker", daemon=True)
        self._ticker.start()
        self._models.recover(self._instances.running())
        self._server = hosts.HostServer(settings.host_socket, self._handlers())
        self._prewarm(settings.prewarm)

    def close(self) -> None:
        self._closing.set()
        self._disk.stop()
        self._instances.close()
        self._server.close()
        self._ticker.join()
        self._watcher.close()
        self._zygotes.close()
        self._unpacker.close()
        self._cpu_groups.sweep()

    def _handlers(self) -> dict[str, hosts.Handler]:
        instances, groups = self._instances, Groups(self._instances)
        own: dict[str, hosts.Handler] = {
            "start": hosts.handler(hosts.Start, _refusing(lambda a: groups.start(a.spec))),
            "inspect": hosts.handler(hosts.Inspect, lambda a: groups.inspect(a.ids)),
            "stop": hosts.handler(hosts.StopInstances, lambda a: groups.stop(a.ids, a.grace_s)),
            "remove": hosts.handler(hosts.Remove, _refusing(lambda a: groups.remove(a.ids))),
            "list": hosts.handler(hosts.ListInstances, lambda a: groups.list()),
            "wait": hosts.handler(hosts.Wait, lambda a: instances.wait(a.seen, a.timeout_s)),
            "stop_all": hosts.handler(hosts.StopAll, lambda a: self._stop_all(a.grace_s)),
            "prewarm": hosts.handler(hosts.Prewarm, lambda a: self._prewarm(a.frameworks)),
            "take_metrics": hosts.handler(
                hosts.TakeMetrics, lambda a: self._metering.take(a.source, a.acked_sequence, a.since_ms)
            ),
            "look_up_image": hosts.handler(hosts.LookUpImage, lambda a: self._containers.look_up(a.image)),
            "status": hosts.handler(hosts.GetStatus, lambda a: self._status()),
        }
        return (
            own
            | self._models.handlers()
            | {name: _plain(answer) for name, answer in link_operations(self._logs).items()}
        )

    def _stop_all(self, grace_s: float) -> int:
        ended = self._instances.stop_all(grace_s)
        # What the engine had no time for: there may be no host soon that tries again.
        self._containers.tidy_within(TIDY_WITHIN_S)
        return ended

    def _status(self) -> hosts.HostStatus:
        disk = shutil.disk_usage(self._settings.data_dir)
        return hosts.HostStatus(
            pid=os.getpid(),
            environments=tuple(self._environment_statuses()),
            zygotes=self._zygotes.names(),
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            artifacts_bytes=self._artifacts.size_bytes(),
            sandbox_rung=self._rung.number,
            sandbox=self._rung.summary,
            engine=self._containers.summary,
            has_cpu_groups=self._cpu_groups.ground.group is not None,
            processors=self._cpu_groups.ground.summary,
        )

    def _environment_statuses(self) -> Iterator[hosts.EnvironmentStatus]:
        """An older environment is told of from its first use on, by its version."""
        for manifest in self._catalog.manifests:
            yield self._environment_status(manifest)
            if (older := manifest.in_older_environment()) != manifest:
                status = self._environment_status(older)
                if status.state != "absent":
                    yield replace(status, name=f"{older.name} {older.version}")

    def _environment_status(self, manifest: Manifest) -> hosts.EnvironmentStatus:
        if (found := self._environments.ready(manifest)) is not None:
            size = self._environments.size_bytes(manifest)
            return hosts.EnvironmentStatus(manifest.name, found.key, "ready", str(found.python), size)
        progress = self._environments.progress_of(manifest)
        failed = self._environments.failure_of(manifest)
        state = "building" if progress else "failed" if failed else "absent"
        return hosts.EnvironmentStatus(manifest.name, "", state, progress or failed or "")

    def _prewarm(self, frameworks: Iterable[str]) -> None:
        for name in frameworks:
            if (manifest := self._catalog.named(name)) is None:
                log.warning("a framework to prewarm is unknown", extra={"framework": name})
                continue
            thread = threading.Thread(
                target=self._ready_framework, args=(manifest,), name=f"prewarm-{name}", daemon=True
            )
            thread.start()

    def _ready_framework(self, manifest: Manifest) -> None:
        try:
            environment = self._environments.obtain(manifest, lambda text: None)
            if manifest.fork_safe and not self._closing.is_set():
                self._zygotes.warm(environment, manifest)
        except (EnvironmentFailed, Refused) as error:
            log.warning(
                "a framework could not be prewarmed", extra={"framework": manifest.name, "error": str(error)}
            )

    def _tick_on(self, clock: Clock) -> None:
        metered_at = clock.monotonic()
        while not self._closing.wait(TICK_S):
            now = clock.monotonic()
            meter = now - metered_at >= self._settings.telemetry_interval_s
            if meter:
                metered_at = now
            try:
                self._tick(meter)
            except Exception:
                log.exception("the host's tick failed")

    def _tick(self, meter: bool) -> None:
        running = self._instances.running()
        for unit in units(running):
            try:
                self._measure(unit, meter)
            except Exception:  # it takes nothing from the others, nor from those that have to be ended
                log.exception("an instance cannot be measured", extra={"instance": unit[0].id})
        self._instances.enforce()
        if meter:
            self._containers.tidy_later()
        self._logs.mark()
        if meter:
            for instance in running:
                if instance.spec.models is not None and instance.state.phase == "ready":
                    self._metering.hold(instance, self._models.loaded_count(instance.id))
            known = {id for each in running for id in (each.id, unit_of(each.spec))}
            self._metering.drain(known.__contains__)
            # By what there is now: one that came since the look above may have models already.
            self._models.keep(self._instances.is_live)
            self._zygotes.end_idle()

    def _measure(self, unit: Sequence[Instance], meter: bool) -> None:
        measured = [(each, limits.usage(*each.roots)) for each in unit if each.minder is not None]
        if not measured:
            return
        self._memory.check(measured)
        if meter:
            self._metering.observe(*measured)


def _refusing(function: Callable[[A], R]) -> Callable[[A], R]:
    """What the host will not do, and a disk that will not, in the link's words."""

    def call(arguments: A) -> R:
        try:
            return function(arguments)
        except Refused as error:
            raise hosts.HostError(error.code, str(error)) from error
        except OSError as error:
            raise hosts.HostError("Storage", f"the host's disk: {error}") from error

    return call


def _plain(answer: Callable[[Mapping[str, object]], object]) -> hosts.Handler:
    return lambda raw: answer(decode_json(raw, dict[str, object]))
