"""Brings one instance up, as far as its process: environment, artefacts, fork. One thread an instance.

Each step asks first whether the instance is still wanted, and nothing before the last one leaves anything in the
instance's directory that a second try would mind: a host that is killed here simply begins again.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from clary.catalog import Catalog, Manifest
from clary.domain.clock import Clock
from clary.domain.instances import InstanceId, InstanceSpec
from clary.host import model_files, model_requirements, user_code
from clary.host.artifacts import Artifacts
from clary.host.cpu_groups import CpuGroups
from clary.host.engine import notes
from clary.host.engine.containers import PYTHON, RUNNER, Containers, Ready
from clary.host.environments import Environment, EnvironmentFailed, Environments
from clary.host.failures import Refused
from clary.host.models_files import MODELS, MULTI_MODEL, make_place
from clary.host.rungs import Boxes
from clary.host.unpacking import Cancelled
from clary.host.zygotes import Zygotes
from clary.links import instances as files
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.telemetry.logs import LogFiles

CLAIM_TIMEOUT_S = 30.0
LITTLE_ROOM_BYTES = 1 << 20

LISTENER = "fd:3"
"""On rung 1 the minder binds the socket and hands it in as this descriptor."""

log = logging.getLogger(__name__)

TELLS_NOBODY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Libraries that report to their makers do so only where an instance's own Environment says that they may."""

_ROOT = Path("/")
_OPT_ML = re.compile(r"(?<![\w.-])/opt/ml(?![\w.-])")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What serves an instance's artefacts."""

    manifest: Manifest
    requirements: str
    runs_script: bool
    hint: str = ""  # what may be the matter if the requirements cannot be installed


class Launcher:
    """The steps. Stateless between instances, thread-safe."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        environments: Environments,
        artifacts: Artifacts,
        zygotes: Zygotes,
        logs: LogFiles,
        clock: Clock,
        max_payload_bytes: int,
        boxes: Boxes,
        cpu_groups: CpuGroups,
        role_environment: Callable[[InstanceSpec, Path], dict[str, str]] = lambda spec, directory: {},
        containers: Containers | None = None,
    ) -> None:
        self.containers = containers
        self._catalog = catalog
        self._environments = environments
        self._artifacts = artifacts
        self._zygotes = zygotes
        self._logs = logs
        self._clock = clock
        self._max_payload_bytes = max_payload_bytes
        self._boxes = boxes
        self._cpu_groups = cpu_groups
        self._role_environment = role_environment

    def resolve(self, spec: InstanceSpec) -> Manifest:
        """The framework for an instance. Raises `Refused`."""
        manifest = self._catalog.resolve(spec.image)
        if manifest is None:
            raise Refused("ImageNotSupported", self._no_runtime(spec.image))
        if manifest.script and user_code.is_announced(spec):
            manifest = self._for_script(manifest)
        if spec.role not in manifest.roles:
            raise Refused("ImageNotSupported", f"{manifest.name} has no runtime for the role {spec.role!r}")
        for wanted, what in ((spec.command, "a command"), (spec.mounts, "mounts"), (spec.devices, "devices")):
            if wanted:
                raise Refused("ImageNotSupported", f"{what} of an instance needs a container engine")
        self._boxes.check(spec)
        return manifest

    def _no_runtime(self, image: str) -> str:
        if instead := self._catalog.refusal(image):
            return f"no runtime answers for the image {image}: {instead}"
        return (
            f"no runtime answers for the image {image}; there are "
            f"{', '.join(self._catalog.repositories)}, and an image of one's own needs a container engine"
        )

    def for_artifacts(self, spec: InstanceSpec, directory: Path, manifest: Manifest) -> Chosen:
        """With the artefacts in place: what serves them, of which version, with which packages on top.

        Raises `Refused`.
        """
        images = self._catalog.resolve(spec.image) or manifest
        runs_script = bool(manifest.script) and user_code.is_there(spec, directory)
        if not runs_script and (other := self._instead_of(manifest, spec, directory)) is not None:
            images = manifest = other
        chosen = self._for_script(manifest) if runs_script else manifest
        requirements = user_code.requirements_of(spec, directory, chosen.packages) if runs_script else ""
        hint = ""
        if chosen.own_requirements:
            requirements, hint = model_requirements.read(directory / model_files.MODEL)
        if images.older is not None and (
            images.older.is_asked_for(spec.environment) or model_files.needs_older(images.older, directory)
        ):
            chosen = chosen.in_older_environment()
        return Chosen(chosen, requirements, runs_script, hint)

    def _instead_of(self, manifest: Manifest, spec: InstanceSpec, directory: Path) -> Manifest | None:
        """Who serves the model in place of its image's framework, by the names of its files."""
        other = self._catalog.instead_of(manifest, model_files.names(directory))
        if other is None or spec.role not in other.roles:
            return None
        log.info(
            "another framework serves this model",
            extra={"instance": spec.instance_id, "image": manifest.name, "served_by": other.name},
        )
        return replace(other, on_top=manifest.on_top)

    def _for_script(self, manifest: Manifest) -> Manifest:
        found = self._catalog.named(manifest.script)
        if found is None:
            raise Refused("ImageNotSupported", f"{manifest.name} needs {manifest.script} for scripts")
        return replace(found, on_top=manifest.on_top)

    def has_environment(self, manifest: Manifest, requirements: str) -> bool:
        return self._environments.ready(manifest, manifest.on_top + requirements) is not None

    def obtain_environment(
        self, manifest: Manifest, progress: Callable[[str], None], requirements: str = "", hint: str = ""
    ) -> Environment:
        try:
            return self._environments.obtain(manifest, progress, manifest.on_top + requirements)
        except EnvironmentFailed as error:
            raise Refused("EnvironmentFailed", f"{hint}. {error}" if hint else str(error)) from error

    def place_artifacts(self, spec: InstanceSpec, directory: Path, is_cancelled: Callable[[], bool]) -> None:
        """Fetches what the instance needs and links it where the instance looks for it."""
        for artifact in spec.artifacts:
            content = self._artifacts.obtain(artifact, spec.download_timeout_s, is_cancelled)
            if is_cancelled():
                raise Cancelled
            _link(content, directory, _below(directory, artifact.path))

    def launch(
        self, spec: InstanceSpec, directory: Path, environment: Environment, manifest: Manifest
    ) -> ProcessIdentity:
        """Has the instance forked and says who minds it. If a minder is there already, that one."""
        if (minder := files.minder_of(directory)) is not None:
            return minder  # of an earlier host: its instance reads what would be written anew here
        if spec.models is not None:
            make_place(directory)
        for folder in ("tmp", "opt/ml/model"):
            (directory / folder).parent.mkdir(parents=True, exist_ok=True)
            if not (directory / folder).is_symlink():
                (directory / folder).mkdir(exist_ok=True)
        files.write(directory, files.LAUNCH, self._describe(spec, directory, environment, manifest))
        return self._fork(spec, directory, environment, manifest, spec.environment)

    def container_for(self, spec: InstanceSpec) -> Containers | None:
        """What runs an instance whose image no runtime answers for."""
        return self.containers if self._catalog.resolve(spec.image) is None else None

    def launch_container(self, spec: InstanceSpec, directory: Path, ready: Ready) -> ProcessIdentity:
        """The same for an image of the user's own: what is forked is the container's runner."""
        assert self.containers is not None, "it made the image ready"
        files.write(directory, files.LAUNCH, self.containers.plan(spec, directory, ready))
        return self._fork(spec, directory, PYTHON, RUNNER, {})

    def await_container(
        self, directory: Path, minder: ProcessIdentity, is_cancelled: Callable[[], bool]
    ) -> None:
        """Until the container runs or never will: the time an instance has to become ready counts from here."""
        pause = _Pause()
        while notes.read(directory) is None and processes.is_alive(minder) and not is_cancelled():
            pause.take()

    def _fork(
        self,
        spec: InstanceSpec,
        directory: Path,
        environment: Environment,
        manifest: Manifest,
        variables: Mapping[str, str],
    ) -> ProcessIdentity:
        if (minder := files.minder_of(directory)) is not None:
            return minder
        log_descriptor = self._logs.open_stream(spec.log)
        try:
            self._zygotes.fork(environment, manifest, variables, directory, log_descriptor)
        finally:
            os.close(log_descriptor)
        return self.await_claim(directory)

    def await_claim(self, directory: Path) -> ProcessIdentity:
        """Whichever minder got the lock writes process.json within moments."""
        deadline = self._clock.monotonic() + CLAIM_TIMEOUT_S
        pause = _Pause()
        while self._clock.monotonic() < deadline:
            if (minder := files.minder_of(directory)) is not None:
                return minder
            pause.take()
        if shutil.disk_usage(directory).free < LITTLE_ROOM_BYTES:
            raise Refused("DiskFull", "the disk is full: free some space, then try again")
        raise Refused("StartFailed", "the process that minds the instance did not begin")

    def _describe(
        self, spec: InstanceSpec, directory: Path, environment: Environment, manifest: Manifest
    ) -> files.Launch:
        own = {**self._role_environment(spec, directory), **spec.environment}
        if spec.models is not None:
            own[MULTI_MODEL] = "true"
        spec = replace(spec, environment=own)
        box = self._boxes.plan(spec, directory, readable_for(environment, manifest))
        root = directory if box is None else _ROOT
        variables = instance_environment(spec, root, environment)
        config: dict[str, object] = {
            "module": manifest.module,
            "model_dir": str(root / "opt/ml/model"),
            "environment": variables,
            "listen": f"unix:{directory / files.SOCKET}" if box is None else LISTENER,
            "vcpus": spec.vcpus,
            "memory_bytes": spec.memory_bytes,
            "max_payload_bytes": self._max_payload_bytes,
            "container": spec.container,
        }
        if spec.models is not None:
            config |= {"models": True, "models_dir": str(root / MODELS)}
        return files.Launch(
            entry=manifest.entry,
            environment=variables,
            config=config,
            cpu_group=self._cpu_groups.plan(spec),
            sandbox=box,
        )

    def clear(self, id: InstanceId) -> None:
        """What was made for an instance outside its directory, once nothing of it runs."""
        self._cpu_groups.remove(id)


def readable_for(environment: Environment, manifest: Manifest) -> tuple[Path, ...]:
    """What an instance reads besides the system and the model server: its environment, its framework's folder."""
    folders = [environment.python.parent.parent]
    if manifest.path:
        folders.append(manifest.directory / manifest.path)
    return tuple(folders)


def instance_environment(spec: InstanceSpec, root: Path, environment: Environment) -> dict[str, str]:
    """All an instance finds in its environment: nothing of the server's own, and the user's word last but for
    the places that must be right. `root` is where its `/opt/ml` and `/tmp` lie: on rung 0 its directory.
    """
    variables = {
        "LANG": "C.UTF-8",
        **TELLS_NOBODY,
        "AWS_REGION": spec.log.region,
        "AWS_DEFAULT_REGION": spec.log.region,
        **rewrite_opt_ml(spec.environment, root),
    }
    binaries = str(environment.python.parent)
    variables["PATH"] = os.pathsep.join((binaries, variables.get("PATH", os.defpath)))
    temporary = str(root / "tmp")
    # The private root is read-only, so that a home there would be of no use.
    variables.setdefault("HOME", temporary if root == _ROOT else str(root))
    variables["TMPDIR"] = temporary
    return variables


def rewrite_opt_ml(variables: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Without a root of its own an instance finds `/opt/ml` in its directory: values that name it say so."""
    place = str(directory / "opt/ml")
    return {name: _OPT_ML.sub(lambda _: place, value) for name, value in variables.items()}


def withdraw(directory: Path) -> ProcessIdentity | None:
    """No minder starts the instance from now on, and this is the one that has. Raises `OSError`.

    A minder says who it is before it looks for launch.json again; here it is the other way round. So of the two at
    least one sees the other, and nobody has to be waited for.
    """
    # Where nothing can be written, a minder cannot say who it is and starts nothing either.
    with suppress(OSError):
        (directory / files.LAUNCH).unlink(missing_ok=True)
    return files.minder_of(directory)


class _Pause:
    """Sleeps, a little longer each time."""

    def __init__(self) -> None:
        self._s = 0.001

    def take(self) -> None:
        time.sleep(self._s)
        self._s = min(self._s * 1.5, 0.1)


def _below(directory: Path, path: str) -> Path:
    """Where a container path lies on rung 0."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or parts[:2] != ["opt", "ml"] or len(parts) < 3:
        raise Refused("ArtifactInvalid", f"data can be placed below /opt/ml only, not at {path}")
    return directory.joinpath(*parts)


def _link(content: Path, directory: Path, place: Path) -> None:
    _, *folders = reversed(place.relative_to(directory).parents)
    for folder in folders:  # not the directory itself: the instance may have been removed meanwhile
        (directory / folder).mkdir(exist_ok=True)
    if place.is_symlink() and place.readlink() == content:
        return  # an instance that an earlier host started may be reading it
    if place.is_symlink():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(content)
