"""What is different between two fleets, as lines that a person reads in a deployment's record.

Values of a container's environment may be secrets: a line says that one changed, never what it is.
"""

from collections.abc import Iterator

from clary.domain.endpoints import Fleet, Variant
from clary.domain.routes import Capture

_NOTHING = "nothing is different: new instances of the same configuration"

_COMPARED = (
    "model_name",
    "image",
    "instance_type",
    "count",
    "weight",
    "routing",
    "execution_role_arn",
    "network_isolated",
    "download_timeout_s",
    "startup_timeout_s",
)


def differences(old: Fleet | None, new: Fleet) -> tuple[str, ...]:
    """A line for each thing, `AllTraffic.instance_type: ml.m5.large → ml.m5.xlarge`; never none at all."""
    if old is None:
        return tuple(_added(variant, "") for variant in new.variants) + tuple(
            _added(variant, "shadow ") for variant in new.shadows
        )
    lines = [
        *_of_variants(old.variants, new.variants, ""),
        *_of_variants(old.shadows, new.shadows, "shadow "),
        *_of_capture(old.capture, new.capture),
    ]
    return tuple(lines) or (_NOTHING,)


def _of_variants(old: tuple[Variant, ...], new: tuple[Variant, ...], word: str) -> Iterator[str]:
    before = {variant.name: variant for variant in old}
    after = {variant.name: variant for variant in new}
    for name, variant in after.items():
        if name not in before:
            yield _added(variant, word)
        else:
            yield from _of_one(before[name], variant, f"{word}{name}")
    for name in before:
        if name not in after:
            yield f"{word}{name}: removed"


def _of_one(old: Variant, new: Variant, name: str) -> Iterator[str]:
    for attribute in _COMPARED:
        before, after = getattr(old, attribute), getattr(new, attribute)
        if before != after:
            yield f"{name}.{attribute}: {_shown(before)} → {_shown(after)}"
    before_data = ", ".join(artifact.uri for artifact in old.artifacts)
    after_data = ", ".join(artifact.uri for artifact in new.artifacts)
    if before_data != after_data:
        yield f"{name}.model_data: {_shown(before_data)} → {_shown(after_data)}"
    for key in sorted(old.environment.keys() | new.environment.keys()):
        if old.environment.get(key) == new.environment.get(key):
            continue
        verb = "added" if key not in old.environment else "changed" if key in new.environment else "removed"
        yield f"{name}.environment.{key}: {verb}"


def _of_capture(old: Capture | None, new: Capture | None) -> Iterator[str]:
    if old != new:
        yield f"data_capture: {_shown_capture(old)} → {_shown_capture(new)}"


def _added(variant: Variant, word: str) -> str:
    return (
        f"{word}{variant.name}: added, model {variant.model_name} on {variant.count} × {variant.instance_type}, "
        f"weight {variant.weight:g}"
    )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else "none"


def _shown_capture(capture: Capture | None) -> str:
    return "off" if capture is None else f"{capture.percent:g} % to {capture.destination}"
