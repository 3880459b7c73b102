"""Repositories and images, as the catalog knows them.

One current version of a framework answers for all tags of its repositories. So a repository is listed with one
image, tagged with that version, and an image that is asked for by another tag is the same one under that tag. Its
digest names what its environment holds. Registries are told apart at AWS and not here.
"""

import hashlib

from clary.catalog import Catalog, Manifest
from clary.domain.faults import Fault
from clary.wire.operations import Call, operation
from clary.wire.shapes import ecr as shapes


class Repositories:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @operation("DescribeRepositories")
    def describe_repositories(
        self, call: Call, params: shapes.DescribeRepositoriesRequest
    ) -> shapes.DescribeRepositoriesResponse:
        registry = params.get("registryId", call.account)
        names = params.get("repositoryNames")
        if names is not None:
            for name in names:
                self._manifest(name, registry)
            return {"repositories": [_repository(name, registry, call.region) for name in names]}
        known = self._catalog.repositories
        start = _position(params.get("nextToken", "0"))
        end = start + params.get("maxResults", 100)
        answer: shapes.DescribeRepositoriesResponse = {
            "repositories": [_repository(name, registry, call.region) for name in known[start:end]]
        }
        if end < len(known):
            answer["nextToken"] = str(end)
        return answer

    @operation("DescribeImages")
    def describe_images(
        self, call: Call, params: shapes.DescribeImagesRequest
    ) -> shapes.DescribeImagesResponse:
        name, registry = params["repositoryName"], params.get("registryId", call.account)
        manifest = self._manifest(name, registry)
        images: list[shapes.ImageDetail] = [
            {
                "registryId": registry,
                "repositoryName": name,
                "imageDigest": _digest(manifest),
                "imageTags": [tag],
            }
            for tag in _tags(manifest, params.get("imageIds"), name, registry)
        ]
        return {"imageDetails": images}

    @operation("ListImages")
    def list_images(self, call: Call, params: shapes.ListImagesRequest) -> shapes.ListImagesResponse:
        manifest = self._manifest(params["repositoryName"], params.get("registryId", call.account))
        return {"imageIds": [{"imageDigest": _digest(manifest), "imageTag": manifest.version}]}

    def _manifest(self, name: str, registry: str) -> Manifest:
        found = self._catalog.resolve(name)
        if found is None:
            raise Fault(
                "RepositoryNotFoundException",
                f"The repository with name '{name}' does not exist in the registry with id '{registry}'",
            )
        return found


def _tags(
    manifest: Manifest, wanted: list[shapes.ImageIdentifier] | None, name: str, registry: str
) -> list[str]:
    if wanted is None:
        return [manifest.version]
    for image in wanted:
        if image.get("imageDigest", _digest(manifest)) != _digest(manifest):
            raise Fault(
                "ImageNotFoundException",
                f"The image with imageId {{imageDigest:'{image['imageDigest']}'}} does not exist within the "
                f"repository with name '{name}' in the registry with id '{registry}'",
            )
    return [image.get("imageTag", manifest.version) for image in wanted]


def _digest(manifest: Manifest) -> str:
    text = f"{manifest.name}\0{manifest.version}\0{manifest.lock_text()}{manifest.on_top}"
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _repository(name: str, registry: str, region: str) -> shapes.Repository:
    return {
        "repositoryArn": f"arn:aws:ecr:{region}:{registry}:repository/{name}",
        "registryId": registry,
        "repositoryName": name,
        "repositoryUri": f"{registry}.dkr.ecr.{region}.amazonaws.com/{name}",
        "imageTagMutability": "MUTABLE",
    }


def _position(token: str) -> int:
    if not token.isdecimal():
        raise Fault("InvalidParameterException", "The specified parameter is invalid: nextToken")
    return int(token)
