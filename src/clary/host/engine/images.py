"""Users' own images, as the engine has them or can get them.

Nothing is ever pulled from AWS: an image whose name is ECR's is used when the engine holds it under that name, and
refused by name otherwise.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clary.domain.images import OwnImage, parse_image
from clary.host.engine.api import EngineClient, EngineError, EngineRefused, NotThere
from clary.host.engine.registries import credentials_for
from clary.host.failures import Refused

_OF_AWS = re.compile(r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?|public\.ecr\.aws")
HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Held:
    """An image that the engine holds."""

    resolved: str  # `REPOSITORY@sha256:…`
    labels: Mapping[str, str]


class Images:
    """Over one engine. `pull` is the setting `container_pull`."""

    def __init__(self, client: EngineClient, pull: str, environ: Mapping[str, str]) -> None:
        self._client = client
        self._pull = pull
        self._environ = environ

    def look_up(self, name: str) -> OwnImage:
        """What CreateModel wants to know: pulls nothing. Raises `EngineError`."""
        if (held := self._held(name)) is not None:
            return OwnImage(resolved=held.resolved, labels=dict(held.labels))
        return OwnImage(refusal=self._why_not_pulled(name))

    def obtain(self, name: str, progress: Callable[[str], None]) -> Held:
        """The image, pulled first where the policy says so. May take minutes. Raises `Refused`."""
        try:
            held = self._held(name)
            if held is not None and (self._pull != "always" or _is_of_aws(name)):
                return held
            if refusal := self._why_not_pulled(name):
                raise Refused("ImageNotSupported", refusal)
            progress(f"pulling {name}")
            self._pull_now(name, progress)
            held = self._held(name)
        except EngineRefused as error:
            raise Refused(
                "ImageNotSupported",
                f"the image {name!r} could not be pulled. Give its whole name with the registry, log in there "
                f"(docker login), or bring it to the engine yourself (docker build, docker load). {error}",
            ) from error
        except EngineError as error:
            raise Refused("StartFailed", str(error)) from error
        if held is None:
            raise Refused("ImageNotSupported", f"the engine has no image {name!r} after pulling it")
        return held

    def _held(self, name: str) -> Held | None:
        try:
            found = self._client.image(name)
        except NotThere:
            return None
        return Held(_resolved(name, found), (found.get("Config") or {}).get("Labels") or {})

    def _why_not_pulled(self, name: str) -> str:
        if _is_of_aws(name):
            return (
                f"Requested image {name} not found: nothing is pulled from AWS here. Bring it to the container engine "
                f"of this machine under this name (docker pull, docker tag), or use a name of your own"
            )
        if self._pull == "never":
            return (
                f"Requested image {name} not found: the container engine of this machine does not hold it, and the "
                "setting container_pull is never"
            )
        return ""

    def _pull_now(self, name: str, progress: Callable[[str], None]) -> None:
        image = parse_image(name)
        assert image is not None, "checked when the model was created"
        repository = f"{image.registry}/{image.repository}" if image.registry else image.repository
        credentials = credentials_for(image.registry or HUB, self._environ)
        self._client.pull(repository, image.digest or image.tag, credentials, progress)


def _is_of_aws(name: str) -> bool:
    image = parse_image(name)
    return image is not None and bool(_OF_AWS.fullmatch(image.registry))


def _resolved(name: str, found: Mapping[str, Any]) -> str:
    image = parse_image(name)
    repository = name if image is None else image.repository
    digests = [str(digest) for digest in found.get("RepoDigests") or []]
    # One image may have several names: the one that was asked for.
    for digest in digests:
        if f"/{digest.partition('@')[0]}".endswith(f"/{repository}"):
            return digest
    if digests:
        return digests[0]
    id = str(found["Id"])
    return f"{repository}@{id if id.startswith('sha256:') else f'sha256:{id}'}"
