"""Containers of a model: which image answers, where the artefact lies, and what is refused by name."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from clary.blobs.base import NoSuchBucket, NoSuchKey, ObjectPage
from clary.domain.faults import Fault, not_supported, validation
from clary.domain.images import OwnImage, parse_image
from clary.domain.instances import Artifact, ModelSource
from clary.wire.shapes import sagemaker as shapes

_ECR = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
LARGEST_ENVIRONMENT = 32 << 10
_CAPABILITIES = "com.amazonaws.sagemaker.capabilities"
MULTI_MODELS = f"{_CAPABILITIES}.multi-models"
ACCEPT_BIND_TO_PORT = f"{_CAPABILITIES}.accept-bind-to-port"
"""Labels by which an image of one's own says what it can do."""


class Images(Protocol):
    """What the catalog and the container engine know of images."""

    def resolve(self, image_uri: str) -> object | None:
        """Something when a runtime answers for the image, else None."""

    @property
    def repositories(self) -> Collection[str]: ...

    def own(self, image_uri: str) -> OwnImage:
        """What the container engine knows of an image that no runtime answers for."""


class ModelData(Protocol):
    """The little of a blob store that asking whether an artefact exists takes (`blobs.base.BlobReader`)."""

    def head(self, bucket: str, key: str) -> object:
        """Raises `NoSuchBucket`, `NoSuchKey`."""

    def objects(self, bucket: str, *, prefix: str = "", limit: int = 1000) -> ObjectPage:
        """Raises `NoSuchBucket`."""


def containers_of(params: shapes.CreateModelInput) -> list[shapes.ContainerDefinition]:
    """The containers of a model, one or several, wherever they stand."""
    primary, several = params.get("PrimaryContainer"), params.get("Containers")
    if primary is not None and several:
        raise validation("Specify either PrimaryContainer or Containers, not both.")
    if primary is None and not several:
        raise validation("Either PrimaryContainer or Containers must be specified.")
    return [primary] if primary is not None else several or []


def check_container(
    container: shapes.ContainerDefinition,
    images: Images,
    blobs: ModelData,
    *,
    is_one_of_several: bool = False,
) -> None:
    """Raises the fault that CreateModel answers, if there is one."""
    refuse(
        container,
        "ModelPackageName",
        "AdditionalModelDataSources",
        "InferenceSpecificationName",
        "ContainerMetricsConfig",
    )
    if is_multi_model(container):
        _check_models(container, blobs)
    elif "MultiModelConfig" in container:
        raise validation("MultiModelConfig can be specified only for a container whose Mode is MultiModel.")
    if container.get("ImageConfig", {}).get("RepositoryAccessMode", "Platform") != "Platform":
        raise not_supported("RepositoryAccessMode Vpc")
    _check_image(container.get("Image"), images, _required_labels(container, is_one_of_several))
    if environment_size(container) > LARGEST_ENVIRONMENT:
        raise validation("The total size of Environment must not exceed 32 KB.")
    for artifact in artifacts_of(container):
        _check_artifact(artifact, blobs)


def environment_size(container: shapes.ContainerDefinition) -> int:
    return sum(len(key) + len(value) for key, value in container.get("Environment", {}).items())


def refuse(params: Mapping[str, Any], *members: str) -> None:
    """Refuses, by name, members that are given and not built."""
    for member in members:
        if params.get(member):
            raise not_supported(member)


def artifacts_of(container: shapes.ContainerDefinition) -> tuple[Artifact, ...]:
    """Where the data of the container's one model lies, as the host wants to know it."""
    if is_multi_model(container):
        return ()
    url, source = container.get("ModelDataUrl"), container.get("ModelDataSource")
    if url and source:
        raise validation("Specify either ModelDataUrl or ModelDataSource, not both.")
    if url:
        return (Artifact(_s3_uri(url), kind="archive"),)
    if source is None or "S3DataSource" not in source:
        return ()
    data = source["S3DataSource"]
    refuse(data, "HubAccessConfig", "ManifestS3Uri")
    uri = _s3_uri(data["S3Uri"])
    match data["S3DataType"], data["CompressionType"]:
        case "S3Prefix", "None":
            return (Artifact(uri, kind="prefix"),)
        case "S3Object", "None":
            return (Artifact(uri, kind="object"),)
        case "S3Object", "Gzip":
            return (Artifact(uri, kind="archive"),)
        case "S3Prefix", "Gzip":
            raise validation("CompressionType Gzip requires S3DataType S3Object.")
        case data_type, compression:
            raise not_supported(f"S3DataType {data_type} with CompressionType {compression}")


def is_multi_model(container: shapes.ContainerDefinition) -> bool:
    return container.get("Mode", "SingleModel") == "MultiModel"


def models_of(container: shapes.ContainerDefinition) -> ModelSource | None:
    """Where the container's many models lie; None when it has but one."""
    if not is_multi_model(container):
        return None
    caching = container.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled")
    return ModelSource(_s3_uri(container["ModelDataUrl"]), is_cached=caching == "Enabled")


def _check_models(container: shapes.ContainerDefinition, blobs: ModelData) -> None:
    """The models come and go: there need not be any, but a place for them."""
    if "ModelDataSource" in container:
        raise validation(
            "ModelDataSource cannot be used with a container whose Mode is MultiModel. Specify ModelDataUrl."
        )
    url = container.get("ModelDataUrl", "")
    if not url:
        raise validation("ModelDataUrl must be specified for a container whose Mode is MultiModel.")
    uri = _s3_uri(url)
    if not uri.endswith("/"):
        raise validation(
            f'ModelDataUrl of a container whose Mode is MultiModel must be an S3 prefix that ends with "/": {url}'
        )
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        blobs.objects(bucket, prefix=prefix, limit=1)
    except NoSuchBucket:
        raise _no_data(url) from None


def _check_image(uri: str | None, images: Images, labels: Collection[str] = ()) -> None:
    """`labels`: those that an image of the user's own must have (true) for what it is to do."""
    if not uri:
        raise validation("Image must be specified for the container.")
    image = parse_image(uri)
    if image is None:
        raise validation(f'ECR image "{uri}" is invalid.')
    if images.resolve(uri) is not None:
        return
    own = images.own(uri)
    if own.refusal and own.engine:
        raise validation(f"{own.refusal}.{_on_offer(images)}")
    if own.refusal and not _ECR.fullmatch(image.registry):
        raise validation(
            f'Using non-ECR image "{uri}" without Vpc repository access mode is not supported.'
            f"{_on_offer(images)} Besides, {own.refusal}."
        )
    if own.refusal:
        raise validation(f"Requested image {uri} not found.{_on_offer(images)} Besides, {own.refusal}.")
    absent = [label for label in labels if own.resolved and own.labels.get(label, "").lower() != "true"]
    if absent:
        wanted = ", ".join(f"{label}=true" for label in absent)
        raise validation(f"Your Ecr Image {uri} does not contain required {wanted} Docker label(s).")


def _required_labels(container: shapes.ContainerDefinition, is_one_of_several: bool) -> Collection[str]:
    wanted = (MULTI_MODELS, is_multi_model(container)), (ACCEPT_BIND_TO_PORT, is_one_of_several)
    return [label for label, is_needed in wanted if is_needed]


def _on_offer(images: Images) -> str:
    return f" This server answers for images of these repositories: {', '.join(sorted(images.repositories))}."


def _check_artifact(artifact: Artifact, blobs: ModelData) -> None:
    bucket, _, key = artifact.uri.removeprefix("s3://").partition("/")
    try:
        if artifact.kind == "prefix":
            page = blobs.objects(bucket, prefix=key, limit=1)
            if page.objects or page.prefixes:
                return
        elif key:
            blobs.head(bucket, key)
            return
    except (NoSuchBucket, NoSuchKey):
        pass
    raise _no_data(artifact.uri)


def _no_data(uri: str) -> Fault:
    return validation(f"Could not find model data at {uri}.")


def _s3_uri(url: str) -> str:
    """`s3://…` for each of the forms SageMaker takes: s3, and S3's https addresses of both styles."""
    if url.startswith("s3://"):
        return url
    parts = urlsplit(url)
    host, path = parts.hostname or "", unquote(parts.path.lstrip("/"))
    if re.match(r"s3[.-]", host):
        return f"s3://{path}"
    bucket, found, _ = host.partition(".s3")
    if not found:
        raise _no_data(url)
    return f"s3://{bucket}/{path}"
