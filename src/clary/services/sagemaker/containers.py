"""Containers of a model: which image answers, where the artefact lies, and what is refused by name."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from clary.blobs.base import NoSuchBucket, NoSuchKey, ObjectPage
from clary.domain.faults import Fault, not_supported, validation
from clary.domain.images import parse_image
from clary.domain.instances import Artifact
from clary.wire.shapes import sagemaker as shapes

_ECR = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
_LARGEST_ENVIRONMENT = 32 << 10


class Images(Protocol):
    """What the catalog knows of images."""

    def resolve(self, image_uri: str) -> object | None:
        """Something when a runtime answers for the image, else None."""

    @property
    def repositories(self) -> Collection[str]: ...


class ModelData(Protocol):
    """The little of a blob store that asking whether an artefact exists takes (`blobs.base.BlobReader`)."""

    def head(self, bucket: str, key: str) -> object:
        """Raises `NoSuchBucket`, `NoSuchKey`."""

    def objects(self, bucket: str, *, prefix: str = "", limit: int = 1000) -> ObjectPage:
        """Raises `NoSuchBucket`."""


def only_container(params: shapes.CreateModelInput) -> shapes.ContainerDefinition:
    """The one container of a model, wherever it stands."""
    primary, several = params.get("PrimaryContainer"), params.get("Containers")
    if primary is not None and several:
        raise validation("Specify either PrimaryContainer or Containers, not both.")
    if primary is None and not several:
        raise validation("Either PrimaryContainer or Containers must be specified.")
    if several and len(several) > 1:
        raise not_supported("A model of several containers")
    return primary if primary is not None else (several or [])[0]


def check_container(container: shapes.ContainerDefinition, images: Images, blobs: ModelData) -> None:
    """Raises the fault that CreateModel answers, if there is one."""
    refuse(
        container,
        "ModelPackageName",
        "AdditionalModelDataSources",
        "InferenceSpecificationName",
        "MultiModelConfig",
        "ContainerMetricsConfig",
    )
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise not_supported(f"Mode {container['Mode']}")
    if container.get("ImageConfig", {}).get("RepositoryAccessMode", "Platform") != "Platform":
        raise not_supported("RepositoryAccessMode Vpc")
    _check_image(container.get("Image"), images)
    environment = container.get("Environment", {})
    if sum(len(key) + len(value) for key, value in environment.items()) > _LARGEST_ENVIRONMENT:
        raise validation("The total size of Environment must not exceed 32 KB.")
    for artifact in artifacts_of(container):
        _check_artifact(artifact, blobs)


def refuse(params: Mapping[str, Any], *members: str) -> None:
    """Refuses, by name, members that are given and not built."""
    for member in members:
        if params.get(member):
            raise not_supported(member)


def artifacts_of(container: shapes.ContainerDefinition) -> tuple[Artifact, ...]:
    """Where the container's model data lies, as the host wants to know it."""
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


def _check_image(uri: str | None, images: Images) -> None:
    if not uri:
        raise validation("Image must be specified for the container.")
    image = parse_image(uri)
    if image is None:
        raise validation(f'ECR image "{uri}" is invalid.')
    if images.resolve(uri) is not None:
        return
    if not _ECR.fullmatch(image.registry):
        raise validation(
            f'Using non-ECR image "{uri}" without Vpc repository access mode is not supported.'
            + _on_offer(images)
        )
    raise validation(f"Requested image {uri} not found.{_on_offer(images)}")


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
