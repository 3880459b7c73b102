"""REST-JSON: REST bindings with JSON bodies, as sagemaker-runtime speaks it."""

from collections.abc import Iterable
from typing import Any

from botocore.model import OperationModel, Shape, StructureShape

from clary.domain.faults import Fault
from clary.wire.protocols import json_body
from clary.wire.protocols.base import Member
from clary.wire.protocols.rest import RestProtocol


class RestJsonProtocol(RestProtocol):
    request_id_header = "x-amzn-RequestId"
    body_content_type = "application/json"

    def read_body(self, shape: StructureShape, body: bytes) -> dict[str, Any]:
        return json_body.decode_body(shape, body)

    def write_body(self, operation: OperationModel, shape: Shape, members: Iterable[Member]) -> bytes:
        return json_body.encode_members(members, operation.name)

    def write_event(self, shape: Shape, value: Any, path: str) -> bytes:
        return json_body.encode_body(shape, value, path)

    def malformed_binding(self, name: str, text: str) -> Fault:
        return Fault("SerializationException", f"The value of {name} cannot be read.")
