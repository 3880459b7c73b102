"""S3's faults, in its own codes and words, and what the blob store's errors become.

A full disk is `InsufficientStorage`, status 507: clients do not retry that status, where a 503 would be sent
again and again although only a person can help.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from clary.blobs import base as blobs
from clary.domain.faults import Fault

log = logging.getLogger(__name__)


@contextmanager
def translated() -> Iterator[None]:
    """Runs a handler; errors of the store become faults."""
    try:
        yield
    except blobs.NoSuchBucket as error:
        raise Fault(
            "NoSuchBucket", "The specified bucket does not exist", 404, members={"BucketName": str(error)}
        ) from error
    except blobs.NoSuchKey as error:
        raise Fault(
            "NoSuchKey", "The specified key does not exist.", 404, members={"Key": str(error)}
        ) from error
    except blobs.NoSuchUpload as error:
        raise no_such_upload(str(error)) from error
    except blobs.NoSuchPart as error:
        raise invalid_part() from error
    except blobs.BucketNotEmpty as error:
        raise Fault("BucketNotEmpty", "The bucket you tried to delete is not empty", 409) from error
    except blobs.PreconditionFailed as error:
        raise precondition_failed("If-Match or If-None-Match") from error
    except blobs.OutOfSpace as error:
        log.error("object refused, no space left", extra={"error": str(error)})
        raise Fault(
            "InsufficientStorage",
            "The disk that holds the objects is full. Nothing of this request was kept. Free space in the data"
            " directory, or delete objects, then try again.",
            507,
        ) from error
    except blobs.BlobError as error:
        log.error("object storage failed", extra={"error": str(error)}, exc_info=error)
        raise Fault("InternalError", "We encountered an internal error. Please try again.", 500) from error


def invalid_argument(message: str, name: str = "", value: str = "") -> Fault:
    members = {"ArgumentName": name, "ArgumentValue": value} if name else {}
    return Fault("InvalidArgument", message, members=members)


def invalid_request(message: str) -> Fault:
    return Fault("InvalidRequest", message)


def not_implemented(what: str) -> Fault:
    return Fault(
        "NotImplemented",
        f"A header you provided implies functionality that is not implemented: {what} is not supported by this server",
        501,
    )


def access_denied(message: str = "Access Denied") -> Fault:
    return Fault("AccessDenied", message, 403)


def precondition_failed(condition: str) -> Fault:
    return Fault(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        412,
        members={"Condition": condition},
    )


def bad_digest(name: str) -> Fault:
    return Fault("BadDigest", f"The {name} you specified did not match what we received.")


def malformed_xml() -> Fault:
    return Fault(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )


def too_large(size: int, limit: int) -> Fault:
    return Fault(
        "EntityTooLarge",
        "Your proposed upload exceeds the maximum allowed size",
        members={"ProposedSize": str(size), "MaxSizeAllowed": str(limit)},
    )


def no_such_upload(upload_id: str) -> Fault:
    return Fault(
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or"
        " completed.",
        404,
        members={"UploadId": upload_id},
    )


def invalid_part() -> Fault:
    return Fault(
        "InvalidPart",
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the"
        " specified entity tag may not match the part's entity tag.",
    )
