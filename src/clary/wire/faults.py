"""Faults as each protocol writes them. Needs no service model, so the gateway refuses without botocore.

A fault carries the code of the JSON protocols. Where another protocol knows the same refusal under another
code, status or text, the one table below says so.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import cbor2

from clary.domain.faults import Fault, validation
from clary.wire.identify import Identified
from clary.wire.messages import Response


class _Renamed(NamedTuple):
    code: str
    status: int | None = None
    message: str | None = None


_QUERY, _XML, _JSON, _REST, _CBOR = "query", "rest-xml", "json", "rest-json", "smithy-rpc-v2-cbor"

_NAMES: Mapping[tuple[str, str], _Renamed] = {
    ("AccessDeniedException", _QUERY): _Renamed("AccessDenied"),
    ("AccessDeniedException", _XML): _Renamed("AccessDenied"),
    ("AccessDenied", _JSON): _Renamed("AccessDeniedException"),
    ("AccessDenied", _REST): _Renamed("AccessDeniedException"),
    ("AuthorizationQueryParametersError", _JSON): _Renamed("IncompleteSignatureException", 403),
    ("AuthorizationQueryParametersError", _REST): _Renamed("IncompleteSignatureException", 403),
    ("AuthorizationQueryParametersError", _QUERY): _Renamed("IncompleteSignature", 403),
    ("ExpiredTokenException", _QUERY): _Renamed("ExpiredToken"),
    ("ExpiredTokenException", _XML): _Renamed("ExpiredToken", 400, "The provided token has expired."),
    ("IncompleteSignatureException", _QUERY): _Renamed("IncompleteSignature"),
    ("IncompleteSignatureException", _XML): _Renamed("AuthorizationHeaderMalformed", 400),
    ("InternalFailure", _XML): _Renamed("InternalError"),
    ("InvalidSignatureException", _QUERY): _Renamed("SignatureDoesNotMatch"),
    ("InvalidSignatureException", _XML): _Renamed("SignatureDoesNotMatch"),
    ("MissingAuthenticationTokenException", _QUERY): _Renamed("MissingAuthenticationToken"),
    ("MissingAuthenticationTokenException", _XML): _Renamed("AccessDenied", 403, "Access Denied"),
    ("RequestEntityTooLargeException", _XML): _Renamed("EntityTooLarge", 400),
    ("RequestEntityTooLargeException", _QUERY): _Renamed("RequestEntityTooLarge"),
    ("SerializationException", _QUERY): _Renamed("MalformedInput"),
    ("SerializationException", _XML): _Renamed("MalformedXML"),
    ("ThrottlingException", _QUERY): _Renamed("Throttling"),
    ("ThrottlingException", _XML): _Renamed("SlowDown", 503, "Please reduce your request rate."),
    ("UnknownOperationException", _REST): _Renamed("UnknownOperationException", 404),
    ("UnknownOperationException", _QUERY): _Renamed("InvalidAction", 400),
    ("UnknownOperationException", _XML): _Renamed("NotImplemented", 501),
    ("UnrecognizedClientException", _QUERY): _Renamed("InvalidClientTokenId"),
    ("UnrecognizedClientException", _XML): _Renamed(
        "InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."
    ),
    ("ValidationException", _QUERY): _Renamed("ValidationError"),
    ("ValidationException", _REST): _Renamed("ValidationError"),
    ("ValidationException", _XML): _Renamed("InvalidRequest"),
}

# CloudWatch names its errors as the query protocol does; over JSON the shape's name stands in `__type`.
_CLOUDWATCH_SHAPES = {
    "InternalServiceError": "InternalServiceFault",
    "InvalidParameterCombination": "InvalidParameterCombinationException",
    "InvalidParameterValue": "InvalidParameterValueException",
    "MissingParameter": "MissingRequiredParameterException",
    "InvalidFormat": "InvalidFormatFault",
    "LimitExceeded": "LimitExceededFault",
    "ResourceNotFound": "ResourceNotFoundException",
}

# SageMaker's modelled errors spell their member with a capital; the unmodelled ones do not.
_SAGEMAKER_MODELLED = frozenset(
    (
        "ConflictException",
        "ResourceAlreadyExists",
        "ResourceInUse",
        "ResourceLimitExceeded",
        "ResourceNotFound",
    )
)

_NAMESPACES = {
    "cloudwatch": "http://monitoring.amazonaws.com/doc/2010-08-01/",
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}

_NO_BODY = frozenset((204, 304))


def serialize_fault(
    identified: Identified, fault: Fault, request_id: str, *, method: str = "POST", resource: str = ""
) -> Response:
    """The answer that carries `fault` in the protocol the request came in. `resource` is S3's path."""
    # CBOR knows every refusal by the name that JSON has for it.
    named = rename(fault, _JSON if identified.protocol == _CBOR else identified.protocol)
    if identified.protocol == _XML:
        content_type, body = "application/xml", _s3_body(named, resource, request_id)
        headers = list(request_id_headers(identified.service, request_id))
    elif identified.protocol == _QUERY:
        content_type, body = "text/xml", _query_body(named, identified.service, request_id)
        headers = list(request_id_headers(identified.service, request_id))
    elif identified.protocol == _REST:
        content_type, body = "application/json", _json({"Message": named.message, **named.members})
        headers = [*request_id_headers(identified.service, request_id), ("x-amzn-errortype", named.code)]
    else:
        content_type, body = _rpc_body(identified, named)
        headers = list(request_id_headers(identified.service, request_id))
        if identified.is_query_mode:
            whose = "Sender" if named.is_senders else "Receiver"
            headers.append(("x-amzn-query-error", f"{rename(fault, _QUERY).code};{whose}"))
        if identified.protocol == _CBOR:
            headers.append(("smithy-protocol", "rpc-v2-cbor"))
    headers += named.headers.items()
    if method == "HEAD" or named.status in _NO_BODY:
        return Response(named.status, headers)
    return Response(named.status, [("content-type", content_type), *headers], body)


def request_id_headers(service: str, request_id: str) -> tuple[tuple[str, str], ...]:
    """How a service names the request in its answer."""
    if service == "s3":
        return ("x-amz-request-id", request_id), ("x-amz-id-2", request_id)
    return (("x-amzn-requestid", request_id),)


def rename(fault: Fault, protocol: str) -> Fault:
    """The same fault under the code, status and text that `protocol` knows it by."""
    renamed = _NAMES.get((fault.code, protocol))
    if renamed is None:
        return fault
    return Fault(
        renamed.code,
        renamed.message or fault.message,
        renamed.status or fault.status,
        members=fault.members,
        headers=fault.headers,
    )


def unknown_operation(identified: Identified) -> Fault:
    """The request names no operation of a service served here."""
    if not identified.service:
        name = identified.signing_name or identified.operation or "it"
        return Fault("UnknownOperationException", f"The service of this request ({name}) is not served here.")
    if identified.operation is None:
        return Fault("UnknownOperationException", "The request names no operation of this service.")
    return Fault(
        "UnknownOperationException", f"{identified.operation} is no operation of {identified.service}."
    )


def unsupported_operation(identified: Identified, operation: str, absence: str | None = None) -> Fault:
    """An operation that AWS has and this server has not.

    `absence`: the operation describes one thing, and this is its modelled error for there being none. That is
    true of every thing of a kind that is not built, and clients handle it.
    """
    unsupported = f"{operation} is not supported by this server"
    if operation in _ABSENT_TEXTS:
        return validation(f"{_ABSENT_TEXTS[operation]} {unsupported}")
    if absence is not None:
        return Fault(absence, f"There is no such resource: {unsupported}")
    if identified.protocol == _XML:
        return Fault("NotImplemented", unsupported, 501)
    return validation(unsupported)


# Describes that, whatever their model says, answer a ValidationException with these words for what is not there.
_ABSENT_TEXTS = {
    "DescribeNotebookInstance": "RecordNotFound.",
    "DescribeProcessingJob": "Could not find requested job with name.",
    "DescribeTrainingJob": "Requested resource not found.",
    "DescribeTransformJob": "Requested resource not found.",
}


def http_refusal(status: int, message: str) -> tuple[bytes, bytes]:
    """For requests that the HTTP server refuses by itself, before a protocol is known (`HttpServer.refusal`)."""
    code = _HTTP_CODES.get(status, "BadRequestException")
    fields = f"content-type: application/json\r\nx-amzn-errortype: {code}\r\n"
    return fields.encode(), _json({"__type": code, "message": message})


_HTTP_CODES = {
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    431: "RequestHeaderSectionTooLargeException",
    500: "InternalFailure",
}


def _rpc_body(identified: Identified, fault: Fault) -> tuple[str, bytes]:
    content = _rpc_content(fault, identified.service)
    if identified.protocol == _CBOR:
        return "application/cbor", cbor2.dumps(content)
    return f"application/x-amz-json-{identified.json_version}", _json(content)


def _rpc_content(fault: Fault, service: str) -> dict[str, Any]:
    code = _CLOUDWATCH_SHAPES.get(fault.code, fault.code) if service == "cloudwatch" else fault.code
    content: dict[str, Any] = {"__type": code, "message": fault.message}
    if service == "sagemaker" and code in _SAGEMAKER_MODELLED:
        content["Message"] = fault.message
    return {**content, **fault.members}


def _query_body(fault: Fault, service: str, request_id: str) -> bytes:
    namespace = f' xmlns="{_NAMESPACES[service]}"' if service in _NAMESPACES else ""
    whose = "Sender" if fault.is_senders else "Receiver"
    return (
        f"<ErrorResponse{namespace}><Error><Type>{whose}</Type><Code>{_xml(fault.code)}</Code>"
        f"<Message>{_xml(fault.message)}</Message></Error><RequestId>{_xml(request_id)}</RequestId></ErrorResponse>"
    ).encode()


def _s3_body(fault: Fault, resource: str, request_id: str) -> bytes:
    members = "".join(f"<{name}>{_xml(str(value))}</{name}>" for name, value in fault.members.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{_xml(fault.code)}</Code><Message>{_xml(fault.message)}</Message>{members}"
        f"<Resource>{_xml(resource)}</Resource><RequestId>{_xml(request_id)}</RequestId></Error>"
    ).encode()


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
