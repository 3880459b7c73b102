"""What the host knows of users' own images: whether it can run one, what a runner is told, and what is left of it.

The instance's process is `runner`, forked from a zygote like any other, so everything but the container itself is as
for the built-in runtimes. A container carries labels with the data directory and the instance: what a killed runner
leaves is found by them and removed.
"""

import logging
import os
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clary.catalog import Manifest
from clary.domain.images import OwnImage, parse_image
from clary.domain.instances import Failure, InstanceSpec
from clary.host import failures
from clary.host.engine import notes
from clary.host.engine.api import EngineError
from clary.host.engine.creation import INSTANCE, OWNER, Placing, creation, port_of
from clary.host.engine.engines import Engine, Engines, NoEngine
from clary.host.engine.images import Held, Images
from clary.host.engine.runner import Plan
from clary.host.environments import Environment
from clary.host.failures import Refused
from clary.host.identity import TOKEN_FILE
from clary.host.models_files import MODELS, MULTI_MODEL, make_place
from clary.host.rungs import placed
from clary.links import instances as files
from clary.settings import Settings

RUNNER = Manifest(
    directory=Path(__file__).parent,
    name="container",
    version="1",
    module="",
    repositories=(),
    roles=("serve",),
    entry="clary.host.engine.runner:main",
    preload=("clary.host.engine.runner",),
    environment="host",
)
"""The runner, as zygotes want to know it."""

PYTHON = Environment(RUNNER.name, "host", Path(sys.executable))
SUMMARY_KEEPS_S = 3.0
_IDENTIFIER = re.compile(r"\b[0-9a-f]{64}\b")

log = logging.getLogger(__name__)

RoleEnvironment = Callable[[InstanceSpec, Path], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Ready:
    """An image that can be started now."""

    engine: Engine
    held: Held


class Containers:
    """Thread-safe."""

    def __init__(
        self,
        engines: Engines,
        settings: Settings,
        environ: Mapping[str, str],
        role_environment: RoleEnvironment,
        repositories: Sequence[str] = (),
    ) -> None:
        """`repositories`: the images that are answered without an engine, to be named in refusals."""
        self._repositories = ", ".join(repositories)
        self._engines = engines
        self._settings = settings
        self._environ = environ
        self._role_environment = role_environment
        self._left: set[str] = set()
        self._lock = threading.Lock()
        self._removing = threading.Lock()
        self._tidying: threading.Thread | None = None
        self._summary, self._summarised_at = "", float("-inf")

    @property
    def summary(self) -> str:
        """For people; asked often, so an engine hears of it every few seconds only."""
        now = time.monotonic()
        if now - self._summarised_at > SUMMARY_KEEPS_S:
            self._summary, self._summarised_at = self._engines.summary, now
        return self._summary

    def look_up(self, image: str) -> OwnImage:
        """For CreateModel. What is wrong stands in the answer."""
        if parse_image(image) is None:
            return OwnImage(refusal=f'image "{image}" is invalid')
        try:
            return self._images(self._engines.get()).look_up(image)
        except (NoEngine, EngineError) as error:
            return OwnImage(
                refusal=f"an image of one's own needs a container engine, and {error}", engine=False
            )

    def obtain(self, spec: InstanceSpec, progress: Callable[[str], None]) -> Ready:
        """The image at hand. Raises `Refused`."""
        try:
            engine = self._engines.get()
        except NoEngine as error:
            raise Refused(
                "ImageNotSupported",
                f"no runtime answers for the image {spec.image}; there are {self._repositories}, and an image of "
                f"one's own needs a container engine: {error}",
            ) from error
        self._check(spec, engine)
        return Ready(engine, self._images(engine).obtain(spec.image, progress))

    def plan(self, spec: InstanceSpec, directory: Path, ready: Ready) -> files.Launch:
        """What the minder needs for the runner, everything in place. Raises `Refused`."""
        with self._removing, self._lock:
            self._left.discard(spec.instance_id)  # the runner makes way for its own container
        published = not _can_enter(ready.engine)
        role = {} if published else self._role_environment(spec, directory)
        token = directory / TOKEN_FILE.lstrip("/")
        if role and token.exists():
            token.chmod(0o444)  # the container's user is nobody's here; the directory above keeps others out
        environment = {
            "AWS_REGION": spec.log.region,
            "AWS_DEFAULT_REGION": spec.log.region,
            **role,
            **spec.environment,
            **({MULTI_MODEL: "true"} if spec.models is not None else {}),
        }
        placing = Placing(
            owner=self._owner,
            mounts=_mounts(spec, directory),
            environment=environment,
            processes=self._settings.sandbox_processes,
            network=self._settings.container_network,
            published=published,
        )
        plan = Plan(
            engine=ready.engine.client.path,
            name=self._name(spec.instance_id),
            creation=creation(spec, spec.image, placing, ready.engine.abilities),
            directory=str(directory),
            port=port_of(environment),
            published=published,
            platform=f"{self._settings.host}:{self._settings.port}" if role else "",
        )
        variables = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        return files.Launch(entry=RUNNER.entry, environment=variables, config=asdict(plan))

    def failure(self, spec: InstanceSpec, directory: Path, exit: files.Exit | None) -> Failure | None:
        """Why it ended, as far as the engine knows more than an exit code tells."""
        note = notes.read(directory)
        if note is None or exit is None:
            return None
        if note.refused:
            return _not_started(spec, note.refused)
        if note.out_of_memory:
            return _out_of_memory(spec)
        if note.removed and note.exit_code is None:
            return _taken_away(spec)
        return None

    def has_left(self, directory: Path) -> bool:
        """Whether an instance that has ended may have left its container with the engine."""
        note = notes.read(directory)
        return note is None or not note.removed

    def discard(self, instance_id: str) -> None:
        """Removes what is left of an instance's container; later, where the engine does not answer now."""
        with self._lock:
            self._left.add(instance_id)
        self.tidy()

    def tidy_later(self) -> None:
        """Removes, beside everything else, what could not be removed before. Every few seconds."""
        # One at a time: an engine that hangs is waited for longer than it takes until the next call.
        if self._left and not (self._tidying is not None and self._tidying.is_alive()):
            self._tidying = threading.Thread(target=self.tidy, name="tidy-containers", daemon=True)
            self._tidying.start()

    def tidy_within(self, seconds: float) -> None:
        """The same, and waits a while for its end: an engine may hang."""
        self.tidy_later()
        if self._tidying is not None:
            self._tidying.join(seconds)

    def tidy(self) -> None:
        """Removes what is still to be removed."""
        with self._lock:
            left = sorted(self._left)
        if not left:
            return
        try:
            engine = self._engines.get()
        except NoEngine:
            return  # with its next one, what is left is still there
        for id in left:
            self._remove(engine, id)

    def _remove(self, engine: Engine, id: str) -> None:
        """Once: by the same name there may be another container a moment later."""
        with self._removing:
            with self._lock:
                if id not in self._left:
                    return
            try:
                engine.client.remove(self._name(id))
            except EngineError as error:
                log.warning("a container could not be removed", extra={"instance": id, "error": str(error)})
                return
            with self._lock:
                self._left.discard(id)

    def sweep(self, live: Callable[[], Collection[str]]) -> None:
        """Removes this server's containers that belong to no live instance: what an earlier host could not."""
        engine = self._engines.running()
        if engine is None:
            return
        try:
            found = engine.client.labelled(f"{OWNER}={self._owner}")
        except EngineError as error:
            log.warning("containers could not be listed", extra={"error": str(error)})
            return
        wanted = live()  # after the list, so that what was started since is in no danger
        for container in found:
            if (id := container.get("Labels", {}).get(INSTANCE, "")) not in wanted:
                log.warning("a container without an instance is removed", extra={"instance": id})
                self.discard(id)

    @property
    def _owner(self) -> str:
        return str(self._settings.data_dir)

    def _name(self, instance_id: str) -> str:
        """Two servers with one engine never mean the same container."""
        return f"clary-{instance_id}-{zlib.crc32(self._owner.encode()):08x}"

    def _images(self, engine: Engine) -> Images:
        return Images(engine.client, self._settings.container_pull, self._environ)

    def _check(self, spec: InstanceSpec, engine: Engine) -> None:
        if spec.network_isolated and not _can_enter(engine):
            raise Refused(
                "StartFailed",
                f"EnableNetworkIsolation needs a container network that can be entered, and {engine.summary} belongs "
                "to another user: run Clary as root, or use rootless Podman or Docker of the same user",
            )
        try:
            port = port_of(spec.environment)
        except ValueError:
            port = 0
        if not 0 < port < 65536:
            raise Refused("StartFailed", "SAGEMAKER_BIND_TO_PORT in the model's Environment is no port")


def _can_enter(engine: Engine) -> bool:
    return os.geteuid() == 0 or engine.abilities.rootless


def _mounts(spec: InstanceSpec, directory: Path) -> tuple[tuple[str, str], ...]:
    (directory / "opt/ml").mkdir(parents=True, exist_ok=True)
    own = placed(directory / "opt/ml", "/opt/ml")
    if spec.models is None:
        return own
    # Models come and go while the container runs, so it sees the directory and not what is in it now.
    make_place(directory)
    others = (mount for mount in own if not mount[1].startswith(f"/{MODELS}"))
    return (*others, (str(directory / MODELS), f"/{MODELS}"))


def _out_of_memory(spec: InstanceSpec) -> Failure:
    reason = (
        f"the {spec.container} container reached the memory of {spec.instance_type} "
        f"({spec.memory_bytes / (1 << 20):,.0f} MiB) and was ended by the kernel"
    )
    return replace(
        failures.refused(spec, Refused("OutOfMemory", reason)), memory_limit_bytes=spec.memory_bytes
    )


def _taken_away(spec: InstanceSpec) -> Failure:
    """The engine knew nothing of it any more when it was asked how it ended."""
    reason = f"the {spec.container} container was ended and removed from outside (docker rm, podman rm)"
    return failures.refused(spec, Refused("Killed", reason))


def _not_started(spec: InstanceSpec, said: str) -> Failure:
    """What to do comes first: reasons are cut at their end, and an engine has many words."""
    hint = ""
    if "executable file not found" in said or "no such file or directory" in said:
        hint = "the image needs a program `serve` on its PATH, or an ENTRYPOINT that takes the argument `serve`: "
    refused = failures.refused(spec, Refused("StartFailed", ""))
    said = _IDENTIFIER.sub(lambda found: found[0][:12], said)
    return replace(
        refused,
        reason=f"the {spec.container} container could not be started by the container engine: {hint}{said}",
    )
