"""What is different between two fleets, as lines that a person reads in a deployment's record.

Values of a container's environment may be secrets: a line says that one changed, never what it is.
"""

from collections.abc import Iterator

from clary.domain.endpoints import Fleet, Variant
from clary.domain.instances import Container, ModelSource
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
    "volume_bytes",
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
        is_told_below = attribute == "image" and old.containers and new.containers
        if before != after and not is_told_below:
            yield f"{name}.{attribute}: {_shown(before)} → {_shown(after)}"
    if old.containers or new.containers:
        yield from _of_containers(old, new, name)
    else:
        yield from _of_container(old, new, name)


def _of_containers(old: Variant, new: Variant, name: str) -> Iterator[str]:
    if (mode := _mode(old)) != _mode(new):
        yield f"{name}.mode: {mode} → {_mode(new)}"
    before, after = ({each.name: each for each in variant.containers} for variant in (old, new))
    if list(before) != list(after):
        yield f"{name}.containers: {_shown(', '.join(before))} → {_shown(', '.join(after))}"
    for each in (name for name in after if name in before):
        if before[each].image != after[each].image:
            yield f"{name}.{each}.image: {before[each].image} → {after[each].image}"
        yield from _of_container(before[each], after[each], f"{name}.{each}")


def _mode(variant: Variant) -> str:
    if not variant.containers:
        return "one container"
    return "Direct" if variant.is_direct else "Serial"


def _of_container(old: Variant | Container, new: Variant | Container, name: str) -> Iterator[str]:
    before_data = ", ".join(artifact.uri for artifact in old.artifacts)
    after_data = ", ".join(artifact.uri for artifact in new.artifacts)
    if before_data != after_data:
        yield f"{name}.model_data: {_shown(before_data)} → {_shown(after_data)}"
    if old.models != new.models:
        yield f"{name}.models: {_shown_models(old.models)} → {_shown_models(new.models)}"
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


def _shown_models(models: ModelSource | None) -> str:
    if models is None:
        return "none"
    return models.prefix if models.is_cached else f"{models.prefix} (not cached)"


def _shown_capture(capture: Capture | None) -> str:
    return "off" if capture is None else f"{capture.percent:g} % to {capture.destination}"
