"""The objects that the models of an instance come from: each a key below the prefix of its model's ModelDataUrl."""

from typing import Protocol

from clary.blobs.base import BlobError, BlobReader, NoSuchBucket, NoSuchKey, OpenObject, parse_uri
from clary.links.hosts import HostError


class Blamed(Protocol):
    """Which contents have ended the instances that loaded them."""

    def why(self, uri: str, etag: str) -> str:
        """The sentence for whoever asks for it again; empty for the innocent."""


class Objects:
    """Thread-safe."""

    def __init__(self, prefix: str, blobs: BlobReader, blamed: Blamed) -> None:
        self._prefix = prefix
        self._blobs = blobs
        self._blamed = blamed

    def uri(self, target_model: str) -> str:
        return self._prefix + target_model

    def open(self, target_model: str) -> OpenObject:
        """Raises `HostError` for a target that is not there."""
        uri = self.uri(target_model)
        location = parse_uri(uri)
        if location is None:
            raise HostError("ModelMissing", f"{uri} is no s3:// address")
        try:
            return self._blobs.open(location.bucket, location.key)
        except (NoSuchBucket, NoSuchKey) as error:
            raise HostError("ModelMissing", f"there is nothing at {uri}") from error
        except BlobError as error:
            raise HostError("ModelInvalid", f"{uri} could not be read: {error}") from error

    def refuse_blamed(self, target_model: str, etag: str) -> None:
        """Raises `HostError` for a content that has ended the instances that loaded it."""
        if why := self._blamed.why(self.uri(target_model), etag):
            raise HostError("ModelInvalid", why)


def checked(target_model: str) -> str:
    """Raises `HostError` for what cannot be a key below the prefix."""
    parts = target_model.split("/")
    if not target_model or target_model.startswith("/") or ".." in parts or "\0" in target_model:
        raise HostError("ModelMissing", f"{target_model!r} is no key below the model's prefix")
    return target_model
