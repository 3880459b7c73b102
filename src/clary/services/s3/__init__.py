"""Amazon S3 over a blob store: each module holds the operations on one thing.

buckets objects copies listing multipart tagging inspection configuration    handlers
checksums conditions attributes tags errors                                  the rules they share, pure
base                                                                         what every handler has round it
"""

from collections.abc import Mapping

from clary.blobs.base import BlobStore
from clary.services.s3.base import Holdings
from clary.services.s3.buckets import Buckets
from clary.services.s3.configuration import Configuration
from clary.services.s3.copies import Copies
from clary.services.s3.inspection import Inspection
from clary.services.s3.listing import Listing
from clary.services.s3.multipart import Multipart
from clary.services.s3.objects import Objects
from clary.services.s3.tagging import Tagging

ACCEPTED_WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "CreateBucket": ("ACL private", "ObjectOwnership"),
    "PutObject, CopyObject, CreateMultipartUpload": (
        "ACL private or bucket-owner-full-control",
        "StorageClass STANDARD",
        "ServerSideEncryption AES256 or aws:kms without a key: echoed, nothing is encrypted",
    ),
    "every operation on objects": ("RequestPayer",),
}
"""Operations → members that change nothing here: each value means what happens anyway."""


def resources(blobs: BlobStore, *, account: str, max_object_bytes: int) -> tuple[object, ...]:
    """What holds the handlers of the service `s3`."""
    holdings = Holdings(blobs, account, max_object_bytes)
    kinds = (Buckets, Configuration, Objects, Copies, Inspection, Listing, Multipart, Tagging)
    return tuple(kind(holdings) for kind in kinds)
