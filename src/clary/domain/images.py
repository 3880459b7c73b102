"""Image URIs. Accounts and regions in them say where AWS keeps an image; here only repository and tag count."""

import re
from dataclasses import dataclass, field

_URI = re.compile(
    r"^(?:(?P<registry>[^/]+[.:][^/]*)/)?(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>.+))?$"
)


@dataclass(frozen=True, slots=True)
class Image:
    registry: str
    repository: str
    tag: str
    digest: str


@dataclass(frozen=True, slots=True)
class OwnImage:
    """What a machine's container engine knows of an image that no built-in runtime answers for.

    `refusal` says why it cannot be used here, and is empty when it can. An image that is still to be pulled has no
    `resolved` name and no labels yet.
    """

    refusal: str = ""
    engine: bool = True  # there is an engine
    resolved: str = ""  # `REPOSITORY@sha256:…`
    labels: dict[str, str] = field(default_factory=dict)


def parse_image(uri: str) -> Image | None:
    """Splits `REGISTRY/REPOSITORY:TAG@DIGEST`; None when it is no image URI at all."""
    match = _URI.match(uri)
    if match is None:
        return None
    return Image(
        registry=match["registry"] or "",
        repository=match["repository"],
        tag=match["tag"] or "latest",
        digest=match["digest"] or "",
    )
