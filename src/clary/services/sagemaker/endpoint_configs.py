"""Endpoint configurations: which models, on what, with which share of the traffic. They have no life of their own."""

from collections.abc import Callable

from clary.domain.faults import not_supported, validation
from clary.domain.instance_types import instance_type
from clary.domain.resources import ENDPOINT_CONFIG, MODEL
from clary.services.sagemaker.access import insert, require
from clary.services.sagemaker.containers import refuse
from clary.services.sagemaker.data_capture import read_capture
from clary.services.sagemaker.listing import list_page
from clary.services.sagemaker.several_containers import refuse_shadows
from clary.store import Store
from clary.wire.operations import Call, operation
from clary.wire.shapes import sagemaker as shapes

_STRATEGIES = ("RANDOM", "LEAST_OUTSTANDING_REQUESTS")


class EndpointConfigs:
    def __init__(self, store: Store, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id

    @operation("CreateEndpointConfig")
    def create_endpoint_config(
        self, call: Call, params: shapes.CreateEndpointConfigInput
    ) -> shapes.CreateEndpointConfigOutput:
        _check_config(params)
        spec = {name: value for name, value in params.items() if name != "Tags"}
        spec["ProductionVariants"] = [_with_defaults(variant) for variant in params["ProductionVariants"]]
        if "ShadowProductionVariants" in params:
            spec["ShadowProductionVariants"] = [_with_defaults(v) for v in params["ShadowProductionVariants"]]
        if "DataCaptureConfig" in params:
            spec["DataCaptureConfig"] = {"EnableCapture": True, **params["DataCaptureConfig"]}
        name = params["EndpointConfigName"]
        with self._store.write() as tx:
            for variant in _all_variants(params):
                model = require(tx, call, MODEL, variant["ModelName"])
                if params.get("ShadowProductionVariants"):
                    refuse_shadows(model.spec_as(shapes.CreateModelInput))
            config = insert(tx, call, ENDPOINT_CONFIG, self._new_id(), name, spec, tags=params.get("Tags"))
        return {"EndpointConfigArn": config.arn}

    @operation("DescribeEndpointConfig")
    def describe_endpoint_config(
        self, call: Call, params: shapes.DescribeEndpointConfigInput
    ) -> shapes.DescribeEndpointConfigOutput:
        with self._store.read() as tx:
            config = require(tx, call, ENDPOINT_CONFIG, params["EndpointConfigName"])
        spec = config.spec_as(shapes.CreateEndpointConfigInput)
        answer: shapes.DescribeEndpointConfigOutput = {
            "EndpointConfigName": config.name,
            "EndpointConfigArn": config.arn,
            "CreationTime": config.created_at,
            "ProductionVariants": spec["ProductionVariants"],
            "EnableNetworkIsolation": spec.get("EnableNetworkIsolation", False),
        }
        if "ShadowProductionVariants" in spec:
            answer["ShadowProductionVariants"] = spec["ShadowProductionVariants"]
        if "DataCaptureConfig" in spec:
            answer["DataCaptureConfig"] = spec["DataCaptureConfig"]
        if "KmsKeyId" in spec:
            answer["KmsKeyId"] = spec["KmsKeyId"]
        if "ExecutionRoleArn" in spec:
            answer["ExecutionRoleArn"] = spec["ExecutionRoleArn"]
        if "VpcConfig" in spec:
            answer["VpcConfig"] = spec["VpcConfig"]
        return answer

    @operation("ListEndpointConfigs")
    def list_endpoint_configs(
        self, call: Call, params: shapes.ListEndpointConfigsInput
    ) -> shapes.ListEndpointConfigsOutput:
        items, more = list_page(self._store, call, ENDPOINT_CONFIG, params)
        summaries: list[shapes.EndpointConfigSummary] = [
            {
                "EndpointConfigName": item.name,
                "EndpointConfigArn": item.arn,
                "CreationTime": item.created_at,
            }
            for item in items
        ]
        answer: shapes.ListEndpointConfigsOutput = {"EndpointConfigs": summaries}
        if more:
            answer["NextToken"] = more["NextToken"]
        return answer

    @operation("DeleteEndpointConfig")
    def delete_endpoint_config(self, call: Call, params: shapes.DeleteEndpointConfigInput) -> None:
        """Endpoints that use it keep the copy they were made from."""
        with self._store.write(on_full_disk=True) as tx:
            tx.resources.delete(require(tx, call, ENDPOINT_CONFIG, params["EndpointConfigName"]).uid)


def _all_variants(params: shapes.CreateEndpointConfigInput) -> list[shapes.ProductionVariant]:
    return [*params["ProductionVariants"], *params.get("ShadowProductionVariants", [])]


def _check_config(params: shapes.CreateEndpointConfigInput) -> None:
    refuse(
        params,
        "AsyncInferenceConfig",
        "ExplainerConfig",
        "MetricsConfig",
        "CrossRegionTrafficConfig",
        "EnableNetworkIsolation",
    )
    _check_shadows(params)
    names = [variant["VariantName"] for variant in _all_variants(params)]
    lowered = [name.lower() for name in names]
    if twice := next((name for name in names if lowered.count(name.lower()) > 1), None):
        raise validation(f"Production variant names must be unique within an endpoint configuration: {twice}")
    for variant in _all_variants(params):
        _check_variant(variant)
    if sum(variant.get("InitialVariantWeight", 1.0) for variant in params["ProductionVariants"]) <= 0:
        raise validation("At least one production variant must have an InitialVariantWeight above 0.")
    if "DataCaptureConfig" in params:
        read_capture(params["DataCaptureConfig"])


def _check_shadows(params: shapes.CreateEndpointConfigInput) -> None:
    shadows = params.get("ShadowProductionVariants")
    if shadows is not None and (len(shadows), len(params["ProductionVariants"])) != (1, 1):
        raise validation(
            "A shadow variant needs exactly one production variant whose requests it gets copies of: "
            "ShadowProductionVariants and ProductionVariants must hold one variant each."
        )


def _check_variant(variant: shapes.ProductionVariant) -> None:
    name = variant["VariantName"]
    refuse(
        variant,
        "ServerlessConfig",
        "InstancePools",
        "AcceleratorType",
        "CoreDumpConfig",
        "EnableSSMAccess",
        "CapacityReservationConfig",
        "AcceleratorPartitionLayouts",
    )
    if variant.get("ManagedInstanceScaling", {}).get("Status") == "ENABLED":
        raise not_supported("ManagedInstanceScaling")
    if "ModelName" not in variant:
        raise not_supported("A production variant without ModelName (inference components)")
    if "InstanceType" not in variant:
        raise validation(f"InstanceType must be specified for production variant {name}.")
    if "InitialInstanceCount" not in variant:
        raise validation(f"InitialInstanceCount must be specified for production variant {name}.")
    found = instance_type(variant["InstanceType"])
    if found is None or not found.is_supported:
        raise not_supported(f"Instance type {variant['InstanceType']}")
    routing = variant.get("RoutingConfig")
    if routing is not None and routing["RoutingStrategy"] not in _STRATEGIES:
        raise not_supported(f"RoutingStrategy {routing['RoutingStrategy']}")


def _with_defaults(variant: shapes.ProductionVariant) -> shapes.ProductionVariant:
    """Describe shows the weight even where it was left to its default."""
    shown = variant.copy()
    shown.setdefault("InitialVariantWeight", 1.0)
    return shown
