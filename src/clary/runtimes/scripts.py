"""How a framework serves a script: the settings that every one of them takes, and the workers."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from clary.runtimes.contract import Limits, LoadError
from clary.runtimes.handler import Defaults, Script, load_script
from clary.runtimes.workers import ScriptedModel, settings_of

LARGEST_PAYLOAD_BYTES = 100 << 20


def serve_script(
    script: Script, model_dir: Path, environment: Mapping[str, str], vcpus: int, defaults: Defaults
) -> ScriptedModel:
    """Raises `LoadError`."""
    count, timeout_s = settings_of(environment, vcpus)
    limits = Limits(payload_limit(environment), "SINGLE_RECORD")
    return ScriptedModel(partial(load_script, script, model_dir, defaults, limits), count, timeout_s, limits)


def payload_limit(environment: Mapping[str, str]) -> int:
    """Raises `LoadError`."""
    wanted = environment.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "")
    if wanted and not wanted.isdigit():
        raise LoadError(f"SAGEMAKER_MAX_PAYLOAD_IN_MB is {wanted!r}, which is no number of megabytes")
    return int(wanted) << 20 if wanted else LARGEST_PAYLOAD_BYTES
