"""Image URIs. Accounts and regions in them say where AWS keeps an image; here only repository and tag count."""

import re
from dataclasses import dataclass

_URI = re.compile(
    r"^(?:(?P<registry>[^/]+[.:][^/]*)/)?(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>.+))?$"
)


@dataclass(frozen=True, slots=True)
class Image:
    registry: str
    repository: str
    tag: str
    digest: str


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
