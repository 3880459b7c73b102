"""Fleets: an endpoint configuration and its models, frozen at the moment of a deployment."""

from dataclasses import replace

from clary.domain.endpoints import PRIMARY_CONTAINER, Fleet, Variant
from clary.domain.faults import not_supported
from clary.domain.instance_types import instance_type
from clary.domain.resources import ENDPOINT_CONFIG, MODEL
from clary.domain.routes import Routing
from clary.services.sagemaker.access import require
from clary.services.sagemaker.containers import artifacts_of, containers_of, models_of
from clary.services.sagemaker.data_capture import is_enabled, read_capture
from clary.services.sagemaker.several_containers import frozen, is_direct, refuse_shadows
from clary.store import Transaction
from clary.wire.operations import Call
from clary.wire.shapes import sagemaker as shapes


def freeze(tx: Transaction, call: Call, fleet_id: str, config_name: str, startup_timeout_s: float) -> Fleet:
    """A fleet of what the configuration and its models say now. Raises the fault for what is absent."""
    config = require(tx, call, ENDPOINT_CONFIG, config_name)
    spec = config.spec_as(shapes.CreateEndpointConfigInput)
    if shadows := spec.get("ShadowProductionVariants"):
        for variant in (*spec["ProductionVariants"], *shadows):
            refuse_shadows(_model(tx, call, variant))
    fleet = Fleet(
        id=fleet_id,
        config_name=config.name,
        variants=_variants(tx, call, spec["ProductionVariants"], startup_timeout_s),
        shadows=_variants(tx, call, spec.get("ShadowProductionVariants", []), startup_timeout_s),
    )
    if "DataCaptureConfig" not in spec:
        return fleet
    capture = read_capture(spec["DataCaptureConfig"])
    if is_enabled(spec["DataCaptureConfig"]):
        return replace(fleet, capture=capture)
    return replace(fleet, stopped_capture=capture)


def retained(fleet: Fleet, live: Fleet, excluded: frozenset[str]) -> Fleet:
    """The new fleet with the properties that the one in force has now, but for those that are excluded."""
    weights, counts = "DesiredWeight" not in excluded, "DesiredInstanceCount" not in excluded
    fleet = replace(
        fleet,
        variants=_numbers_of(fleet.variants, live.variants, weights=weights, counts=counts),
        shadows=_numbers_of(fleet.shadows, live.shadows, weights=weights, counts=counts),
    )
    if "DataCaptureConfig" in excluded:
        return fleet
    return replace(fleet, capture=live.capture, stopped_capture=live.stopped_capture)


def _numbers_of(
    mine: tuple[Variant, ...], theirs: tuple[Variant, ...], *, weights: bool, counts: bool
) -> tuple[Variant, ...]:
    known = {variant.name: variant for variant in theirs}
    return tuple(
        variant
        if (other := known.get(variant.name)) is None
        else replace(
            variant,
            weight=other.weight if weights else variant.weight,
            count=other.count if counts else variant.count,
        )
        for variant in mine
    )


def _variants(
    tx: Transaction, call: Call, wanted: list[shapes.ProductionVariant], startup_timeout_s: float
) -> tuple[Variant, ...]:
    return tuple(_variant(variant, _model(tx, call, variant), startup_timeout_s) for variant in wanted)


def _model(tx: Transaction, call: Call, variant: shapes.ProductionVariant) -> shapes.CreateModelInput:
    return require(tx, call, MODEL, variant["ModelName"]).spec_as(shapes.CreateModelInput)


def _variant(
    variant: shapes.ProductionVariant, model: shapes.CreateModelInput, startup_timeout_s: float
) -> Variant:
    containers = containers_of(model)
    several = frozen(containers)
    container = containers[0]
    size = instance_type(variant["InstanceType"])
    if size is None:
        raise not_supported(f"Instance type {variant['InstanceType']}")
    routing: Routing = "RANDOM"
    if variant.get("RoutingConfig", {}).get("RoutingStrategy") == "LEAST_OUTSTANDING_REQUESTS":
        routing = "LEAST_OUTSTANDING_REQUESTS"
    return Variant(
        name=variant["VariantName"],
        model_name=model["ModelName"],
        image=container["Image"],
        instance_type=size.name,
        vcpus=size.vcpus,
        memory_bytes=size.memory_bytes,
        accelerators=size.accelerators,
        weight=variant.get("InitialVariantWeight", 1.0),
        count=variant["InitialInstanceCount"],
        container=several[0].name if several else container.get("ContainerHostname", PRIMARY_CONTAINER),
        environment={} if several else container.get("Environment", {}),
        artifacts=() if several else artifacts_of(container),
        execution_role_arn=model.get("ExecutionRoleArn", ""),
        network_isolated=model.get("EnableNetworkIsolation", False),
        download_timeout_s=float(variant.get("ModelDataDownloadTimeoutInSeconds", 3600)),
        startup_timeout_s=float(
            variant.get("ContainerStartupHealthCheckTimeoutInSeconds", startup_timeout_s)
        ),
        routing=routing,
        shows_routing="RoutingConfig" in variant,
        models=None if several else models_of(container),
        containers=several,
        is_direct=is_direct(model),
        volume_bytes=variant.get("VolumeSizeInGB", 0) << 30,
    )
