"""One start, step by step, up to the instance's process; and in which words one that fails has failed.

How each step is done is `launching`'s. Who keeps the record is told how far it has come, and says when the instance is
not wanted any more.
"""

import logging
from typing import Protocol

from clary.catalog import Manifest
from clary.domain.instances import Failure, InstanceSpec, Phase
from clary.host import failures, user_code
from clary.host.archives import OUT_OF_SPACE
from clary.host.engine.containers import Containers
from clary.host.environments import Environment
from clary.host.failures import Refused
from clary.host.launching import Launcher
from clary.host.records import Instance
from clary.links.processes import ProcessIdentity

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Who keeps the record."""

    def advance(self, instance: Instance, phase: Phase, image: str, *, runs_script: bool = False) -> None:
        """Raises `Cancelled` where it is not wanted any more."""

    def tell(self, instance: Instance, text: str) -> None:
        """What it is waiting for, for people."""


def bring_up(instance: Instance, launcher: Launcher, progress: Progress) -> ProcessIdentity:
    """Until it has a minder, and this is it. Raises `Refused`, `Cancelled`, `OSError`."""
    if (containers := launcher.container_for(instance.spec)) is not None:
        return _bring_up_container(instance, launcher, containers, progress)
    spec, directory = user_code.with_source(instance.spec), instance.directory
    manifest = launcher.resolve(spec)
    environment = launcher.obtain_environment(manifest, lambda text: progress.tell(instance, text))
    progress.advance(instance, "fetching", _image(manifest, environment))
    launcher.place_artifacts(spec, directory, instance.cancelled.is_set)
    chosen = launcher.for_artifacts(spec, directory, manifest)
    if chosen.runs_script or chosen.requirements or chosen.manifest != manifest:
        manifest = chosen.manifest
        is_built = launcher.has_environment(manifest, chosen.requirements)
        phase: Phase = "fetching" if is_built else "preparing"
        progress.advance(instance, phase, _image(manifest, environment), runs_script=chosen.runs_script)
        environment = launcher.obtain_environment(
            manifest, lambda text: progress.tell(instance, text), chosen.requirements, chosen.hint
        )
    progress.advance(instance, "starting", _image(manifest, environment))
    return launcher.launch(spec, directory, environment, manifest)


def _bring_up_container(
    instance: Instance, launcher: Launcher, containers: Containers, progress: Progress
) -> ProcessIdentity:
    """The same steps for an image of the user's own."""
    spec, directory = instance.spec, instance.directory
    ready = containers.obtain(spec, lambda text: progress.tell(instance, text))
    progress.advance(instance, "fetching", ready.held.resolved, runs_script=True)
    launcher.place_artifacts(spec, directory, instance.cancelled.is_set)
    progress.advance(instance, "starting", ready.held.resolved)
    minder = launcher.launch_container(spec, directory, ready)
    launcher.await_container(directory, minder, instance.cancelled.is_set)
    return minder


def failure(spec: InstanceSpec, error: Exception) -> Failure:
    """Of a start that ended so."""
    if isinstance(error, Refused):
        return failures.refused(spec, error)
    code, said = "StartFailed", str(error)
    if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
        code, said = "DiskFull", f"{error}: free some space on the disk, then try again"
    elif not isinstance(error, OSError):
        log.error("an instance could not be started", exc_info=error, extra={"instance": spec.instance_id})
        said = f"{type(error).__name__}: {error}"
    return failures.refused(spec, Refused(code, f"it could not be started: {said}"))


def _image(manifest: Manifest, environment: Environment) -> str:
    return f"clary/{manifest.name}:{manifest.version}@sha256:{environment.key}"
