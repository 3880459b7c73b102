"""Fleets: an endpoint configuration and its models, frozen at the moment of a deployment."""

from clary.domain.endpoints import PRIMARY_CONTAINER, Fleet, Variant
from clary.domain.faults import not_supported
from clary.domain.instance_types import instance_type
from clary.domain.resources import ENDPOINT_CONFIG, MODEL
from clary.domain.routes import Routing
from clary.services.sagemaker.access import require
from clary.services.sagemaker.containers import artifacts_of, only_container
from clary.store import Transaction
from clary.wire.operations import Call
from clary.wire.shapes import sagemaker as shapes


def freeze(tx: Transaction, call: Call, fleet_id: str, config_name: str, startup_timeout_s: float) -> Fleet:
    """A fleet of what the configuration and its models say now. Raises the fault for what is absent."""
    config = require(tx, call, ENDPOINT_CONFIG, config_name)
    spec = config.spec_as(shapes.CreateEndpointConfigInput)
    variants = []
    for variant in spec["ProductionVariants"]:
        model = require(tx, call, MODEL, variant["ModelName"]).spec_as(shapes.CreateModelInput)
        variants.append(_variant(variant, model, startup_timeout_s))
    return Fleet(id=fleet_id, config_name=config.name, variants=tuple(variants))


def _variant(
    variant: shapes.ProductionVariant, model: shapes.CreateModelInput, startup_timeout_s: float
) -> Variant:
    container = only_container(model)
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
        container=container.get("ContainerHostname", PRIMARY_CONTAINER),
        environment=container.get("Environment", {}),
        artifacts=artifacts_of(container),
        execution_role_arn=model.get("ExecutionRoleArn", ""),
        network_isolated=model.get("EnableNetworkIsolation", False),
        download_timeout_s=float(variant.get("ModelDataDownloadTimeoutInSeconds", 3600)),
        startup_timeout_s=float(
            variant.get("ContainerStartupHealthCheckTimeoutInSeconds", startup_timeout_s)
        ),
        routing=routing,
        shows_routing="RoutingConfig" in variant,
    )
