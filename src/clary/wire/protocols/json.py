"""AWS JSON 1.0 and 1.1: `POST /`, the operation in X-Amz-Target, one JSON object each way."""

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import OperationModel, StructureShape

from clary.wire.messages import HeaderList, Request, Response
from clary.wire.protocols import eventstream, json_body
from clary.wire.protocols.base import (
    Member,
    Protocol,
    event_stream_member,
    merged_headers,
    present_members,
    whole_body,
)
from clary.wire.protocols.events import event_frames, initial_response


class JsonProtocol(Protocol):
    def parse(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        return json_body.decode_body(operation.input_shape, whole_body(request))

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
        content_type = f"application/x-amz-json-{operation.metadata['jsonVersion']}"
        body = _body(shape, list(present_members(shape, members or {}, operation.name)), operation.name)
        if not isinstance(body, bytes):
            content_type = eventstream.CONTENT_TYPE
        bound = [("x-amzn-RequestId", request_id), ("Content-Type", content_type)]
        return Response(status or 200, merged_headers(bound, headers), body)


def _body(shape: StructureShape | None, members: list[Member], path: str) -> bytes | Iterator[bytes]:
    if shape is None:
        # Deletions and the like answer with no body at all, not with an empty object.
        return b""
    name = event_stream_member(shape)
    body = json_body.encode_members((member for member in members if member[0] != name), path)
    if name is None:
        return body
    events = next((value for member, _, value in members if member == name), ())
    first = initial_response(body)
    return event_frames(shape.members[name], events, json_body.encode_body, "application/json", first)
