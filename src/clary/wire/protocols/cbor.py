"""RPC v2 CBOR: `POST /service/X/operation/Y`, one CBOR map each way.

Where JSON leaves room CBOR has none: blobs are byte strings, times carry tag 1, floats are floats.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import cbor2
from botocore.model import OperationModel, Shape

from clary.domain.faults import Fault
from clary.wire.messages import HeaderList, Request, Response
from clary.wire.protocols import values
from clary.wire.protocols.base import MAX_DEPTH, Protocol, merged_headers, present_members, whole_body
from clary.wire.protocols.documents import DocumentFormat, malformed

CONTENT_TYPE = "application/cbor"
HEADER = ("smithy-protocol", "rpc-v2-cbor")

_EPOCH_TAG = 1


class CborProtocol(Protocol):
    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        body = whole_body(request)
        shape = operation.input_shape
        if not body or shape is None:
            return {}
        return _CBOR.read_structure(shape, _document(body))

    def serialize(
        self,
        operation: OperationModel,
        members: Mapping[str, Any] | None,
        *,
        status: int | None = None,
        headers: HeaderList = (),
        request_id: str,
    ) -> Response:
        shape = operation.output_shape
        checked = list(present_members(shape, members or {}, operation.name))
        bound = [("x-amzn-RequestId", request_id), HEADER]
        if shape is None:
            return Response(status or 200, merged_headers(bound, headers), b"")
        body = cbor2.dumps(_CBOR.write_members(checked, operation.name))
        return Response(
            status or 200, merged_headers([*bound, ("Content-Type", CONTENT_TYPE)], headers), body
        )


def _document(body: bytes) -> dict[Any, Any]:
    try:
        document = cbor2.loads(
            body,
            max_depth=MAX_DEPTH,
            strict_hashable_types=True,
            semantic_decoders=_TAGS,
        )
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError) as error:
        raise malformed("The request body is not valid CBOR.") from error
    if not isinstance(document, dict):
        raise malformed("The request body is not a CBOR map.")
    return document


class _Epoch(float):
    """Seconds since 1970 that came as a time."""


def _epoch(value: Any, _: bool) -> _Epoch:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a time is a number")
    return _Epoch(value)


def _unwanted(value: Any, _: bool) -> Any:
    raise ValueError("a tag that no shape has a use for")


# Tags that cbor2 would make objects of: regular expressions, references to what encloses them, huge numbers …
_UNWANTED_TAGS = (
    0,
    2,
    3,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)
_TAGS = {_EPOCH_TAG: _epoch, **dict.fromkeys(_UNWANTED_TAGS, _unwanted)}


class _Cbor(DocumentFormat):
    def read_blob(self, shape: Shape, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise self.mismatch(shape, value)
        return value

    def read_timestamp(self, shape: Shape, value: Any) -> datetime:
        if not isinstance(value, _Epoch):
            raise self.mismatch(shape, value)
        try:
            return values.read_timestamp(float(value), values.UNIX)
        except ValueError as error:
            raise self.mismatch(shape, value) from error

    def is_number(self, value: Any) -> bool:
        return super().is_number(value) and not isinstance(value, _Epoch)

    def write_scalar(self, shape: Shape, scalar: values.Scalar, path: str) -> Any:
        if isinstance(scalar, datetime):
            return cbor2.CBORTag(_EPOCH_TAG, values.epoch_seconds(scalar))
        return scalar

    def mismatch(self, shape: Shape, value: Any) -> Fault:
        return malformed(f"A value that is due to be a {shape.type_name} is none.")


_CBOR = _Cbor()
