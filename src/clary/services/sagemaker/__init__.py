"""SageMaker's control plane: a module for each resource. `resources` makes all of them."""

from collections.abc import Callable, Mapping

from clary.domain.clock import Clock
from clary.services.sagemaker.containers import Images, ModelData
from clary.services.sagemaker.endpoint_configs import EndpointConfigs
from clary.services.sagemaker.endpoints import Authorize, Endpoints
from clary.services.sagemaker.models import Models
from clary.services.sagemaker.tags import Tags
from clary.store import Store

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "CreateModel": (
        "ExecutionRoleArn: any role is taken, nothing is asked of it",
        "VpcConfig",
        "ImageConfig",
        "ModelDataSource.S3DataSource.ModelAccessConfig",
    ),
    "CreateEndpointConfig": (
        "KmsKeyId",
        "VpcConfig",
        "ExecutionRoleArn",
        "DataCaptureConfig.KmsKeyId: captured data is not encrypted",
        "ProductionVariants.InferenceAmiVersion",
        "ProductionVariants.VariantInstanceProvisionTimeoutInSeconds",
    ),
}
"""Operation → members that are kept, and shown where AWS shows them, and change nothing here."""


def resources(
    store: Store,
    clock: Clock,
    new_id: Callable[[], str],
    images: Images,
    blobs: ModelData,
    *,
    startup_timeout_s: float = 240.0,
    most_instances: int = 100,
    why_not_isolated: Callable[[], str] = lambda: "its instances share one network",
    authorize: Authorize = lambda call, params: None,
) -> tuple[object, ...]:
    """Everything that answers an operation of `sagemaker`. `new_id` gives 32 hexadecimal digits;
    `why_not_isolated` says why EnableNetworkIsolation cannot be kept, nothing when it can. `authorize` judges what a
    call does besides what its own name says.
    """
    return (
        Models(store, new_id, images, blobs, why_not_isolated),
        EndpointConfigs(store, new_id),
        Endpoints(store, clock, new_id, startup_timeout_s, most_instances, authorize),
        Tags(store),
    )
