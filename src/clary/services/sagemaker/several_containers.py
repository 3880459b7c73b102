"""Models of several containers: what their host names may be, how they are called, and what they cannot be part of.

`Direct`: callers name a container. `Serial`, the default: a request goes through all of them, an inference pipeline.
"""

from collections.abc import Sequence

from clary.domain.faults import not_supported, validation
from clary.domain.instances import Container
from clary.services.sagemaker.containers import LARGEST_ENVIRONMENT, artifacts_of, environment_size
from clary.wire.shapes import sagemaker as shapes


def is_direct(model: shapes.CreateModelInput) -> bool:
    return model.get("InferenceExecutionConfig", {}).get("Mode", "Serial") == "Direct"


def check_together(model: shapes.CreateModelInput, containers: Sequence[shapes.ContainerDefinition]) -> None:
    """Raises the fault for what each container may be, and all of them together may not."""
    if len(containers) == 1:
        if is_direct(model):
            raise validation(
                "InferenceExecutionConfig Mode Direct requires more than one container: specify them in Containers."
            )
        return
    _check_names([each.get("ContainerHostname", "") for each in containers], direct=is_direct(model))
    if any(each.get("Mode", "SingleModel") == "MultiModel" for each in containers):
        if is_direct(model):
            raise validation(
                "Mode MultiModel is not supported for a container of a model with InferenceExecutionConfig Mode Direct."
            )
        raise not_supported("Mode MultiModel for a container of an inference pipeline")
    if sum(map(environment_size, containers)) > LARGEST_ENVIRONMENT:
        raise validation("The total size of Environment of all containers must not exceed 32 KB.")


def _check_names(names: Sequence[str], *, direct: bool) -> None:
    if direct and not all(names):
        raise validation(
            "ContainerHostname must be specified for every container of a model with InferenceExecutionConfig Mode "
            "Direct."
        )
    if any(names) and not all(names):
        raise validation(
            "ContainerHostname must be specified for every container of an inference pipeline, or for none of them."
        )
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise validation(
            f'ContainerHostname must be unique within a model: "{twice}" is specified more than once.'
        )


def frozen(containers: Sequence[shapes.ContainerDefinition]) -> tuple[Container, ...]:
    """As an instance has them; none for a model of one container. Without names they are called by their numbers."""
    if len(containers) == 1:
        return ()
    return tuple(
        Container(
            name=container.get("ContainerHostname") or f"container_{number}",
            image=container["Image"],
            environment=container.get("Environment", {}),
            artifacts=artifacts_of(container),
        )
        for number, container in enumerate(containers, 1)
    )


def refuse_shadows(model: shapes.CreateModelInput) -> None:
    """Of an endpoint with shadow variants every model has one container."""
    name = model["ModelName"]
    if len(model.get("Containers", [])) > 1:
        raise validation(
            f'ShadowProductionVariants are not supported for models with more than one container: "{name}".'
        )
