"""The refusals of signatures, in AWS's words and with the codes of the JSON protocols."""

import time

from clary.domain.faults import Fault


def mismatch(
    message: str = "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details.",
) -> Fault:
    return Fault("InvalidSignatureException", message, 403)


def incomplete(message: str) -> Fault:
    return Fault("IncompleteSignatureException", message, 403)


def query_error(message: str) -> Fault:
    return Fault("AuthorizationQueryParametersError", message)


def request_expired(expires: float, now: float) -> Fault:
    return Fault(
        "AccessDeniedException",
        "Request has expired",
        403,
        members={"Expires": _iso(expires), "ServerTime": _iso(now)},
    )


def _iso(epoch: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def content_mismatch(service: str) -> Fault:
    """The body is not the one that was signed."""
    if service == "s3":
        return Fault(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    return mismatch()
