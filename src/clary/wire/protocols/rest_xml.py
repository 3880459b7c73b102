"""REST-XML: REST bindings with XML bodies, as S3 speaks it, with S3's own names for what the model leaves unsaid."""

from collections.abc import Iterable, Mapping
from typing import Any

from botocore.model import OperationModel, Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.messages import HeaderList, Request, Response
from clary.wire.protocols import values
from clary.wire.protocols.base import Member, wire_name
from clary.wire.protocols.markup import PROLOGUE, MarkupError, element, escape, read_document
from clary.wire.protocols.rest import RestProtocol
from clary.wire.protocols.xml_body import XmlWriter, decode_structure

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

_WRITER = XmlWriter(values.ISO8601_MILLIS)

# The root elements of S3's answers, where they are not called after the operation. The model does not say them.
_ROOTS = {
    "CopyObject": "CopyObjectResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetObjectTagging": "Tagging",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "UploadPartCopy": "CopyPartResult",
}


class RestXmlProtocol(RestProtocol):
    request_id_header = "x-amz-request-id"
    body_content_type = "application/xml"

    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        try:
            return super().parse(operation, request)
        except MarkupError as error:
            raise _malformed_xml() from error

    def serialize(
        self,
        operation: OperationModel,
        members: Mapping[str, Any] | None,
        *,
        status: int | None = None,
        headers: HeaderList = (),
        request_id: str,
    ) -> Response:
        # S3's second id: support asks for it, some clients log it. Here it says the same.
        headers = [("x-amz-id-2", request_id), *headers]
        return super().serialize(operation, members, status=status, headers=headers, request_id=request_id)

    def read_body(self, shape: StructureShape, body: bytes) -> dict[str, Any]:
        if not body.strip():
            return {}
        root = read_document(body)
        if root.name != wire_name(shape, root.name):
            raise MarkupError(f"the root is {root.name}")
        return decode_structure(shape, root)

    def write_body(self, operation: OperationModel, shape: Shape, members: Iterable[Member]) -> bytes:
        if operation.name == "GetBucketLocation":
            return _location({name: value for name, _, value in members})
        root = _ROOTS.get(operation.name) or wire_name(shape, f"{operation.name}Result")
        content = _WRITER.content(members, operation.name)
        return (PROLOGUE + element(root, content, {"xmlns": NAMESPACE})).encode()

    def write_event(self, shape: Shape, value: Any, path: str) -> bytes:
        return _WRITER.write(shape, shape.name, value, path).encode()

    def malformed_binding(self, name: str, text: str) -> Fault:
        if name in ("Key", "Bucket", "query"):
            return Fault("InvalidURI", "Couldn't parse the specified URI.")
        return Fault("InvalidArgument", f"The value of {name} is not valid.")


def _location(value: Mapping[str, Any]) -> bytes:
    """The answer of GetBucketLocation is one bare element; for us-east-1 it is empty."""
    region = value.get("LocationConstraint") or ""
    return (PROLOGUE + element("LocationConstraint", escape(region), {"xmlns": NAMESPACE})).encode()


def _malformed_xml() -> Fault:
    return Fault(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
