"""What every S3 handler has round it: members that are not supported, the bucket's owner, the store's errors.

A member this server cannot honour is refused by name, or accepted where leaving it aside changes nothing that a
client could see; both are listed here.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from clary.blobs.base import BlobStore
from clary.domain.faults import Fault
from clary.services.s3.errors import access_denied, not_implemented, translated
from clary.wire.operations import Call, operation

LONGEST_KEY = 1024

# Without effect: each value means what happens anyway.
_ACCEPTED: Mapping[str, tuple[object, ...]] = {
    "ACL": ("private", "bucket-owner-full-control"),
    "BucketKeyEnabled": (False,),
    "BucketNamespace": ("global",),
    "BypassGovernanceRetention": (False,),
    "ObjectLockEnabledForBucket": (False,),
    "ObjectOwnership": ("BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"),
    "RequestPayer": ("requester",),
    "ServerSideEncryption": ("AES256", "aws:kms"),
    "StorageClass": ("STANDARD",),
    "AnnotationDirective": ("COPY", "EXCLUDE"),
    "VersionId": ("null",),
    "OptionalObjectAttributes": ([],),
}
_REFUSED = (
    "CopySourceSSECustomer",
    "Grant",
    "IfMatchLastModifiedTime",
    "IfMatchSize",
    "MFA",
    "ObjectLock",
    "SSECustomer",
    "SSEKMS",
    "WebsiteRedirectLocation",
    "WriteOffsetBytes",
)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the handlers work on. All buckets belong to the one account."""

    blobs: BlobStore
    account: str
    max_object_bytes: int

    @property
    def owner_id(self) -> str:
        """The account's canonical user id: 64 hexadecimal digits that follow from its number."""
        return hashlib.sha256(self.account.encode()).hexdigest()


class S3Resource:
    """A set of handlers."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._blobs = holdings.blobs


_H = TypeVar("_H", bound=Callable[..., Any])


def s3_operation(name: str) -> Callable[[_H], _H]:
    """`@operation`, with what goes before and round every S3 handler."""

    def mark(handler: _H) -> _H:
        @operation(name)
        @functools.wraps(handler)
        def answer(self: S3Resource, call: Call, params: Mapping[str, Any]) -> Any:
            _check_members(params)
            with translated():
                _check_owner(self._holdings, params)
                return handler(self, call, params)

        return cast(_H, answer)

    return mark


def _check_members(params: Mapping[str, Any]) -> None:
    for name, value in params.items():
        if name in _ACCEPTED:
            if value not in _ACCEPTED[name]:
                raise not_implemented(f"{name} {value}")
        elif name.startswith(_REFUSED):
            raise not_implemented(name)
    if "Key" in params:
        check_key(params["Key"])


def check_key(key: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise Fault("InvalidURI", "Couldn't parse the specified URI.") from None
    if size == 0:
        raise Fault("UserKeyMustBeSpecified", "The bucket POST must contain the specified field name.")
    if size > LONGEST_KEY:
        raise Fault(
            "KeyTooLongError",
            "Your key is too long",
            members={"Size": str(size), "MaxSizeAllowed": str(LONGEST_KEY)},
        )


def _check_owner(holdings: Holdings, params: Mapping[str, Any]) -> None:
    for owner in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"):
        if params.get(owner, holdings.account) != holdings.account:
            holdings.blobs.bucket(params["Bucket"])  # what does not exist has no other owner
            raise access_denied()
