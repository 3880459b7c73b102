"""Publish: a message to a topic, on its way to all its subscribers when the answer is given."""

import base64
import json
import re
from collections.abc import Callable, Mapping

from clary.domain.clock import Clock
from clary.domain.faults import not_supported
from clary.domain.notices import Attribute, Notice
from clary.services.sns import access
from clary.services.sns.faults import bad
from clary.store import Store
from clary.store.notices import publish
from clary.wire.operations import Call, operation
from clary.wire.shapes import sns as shapes

LARGEST = 256 << 10

_SUBJECT = re.compile(r"[!-~][ -~]{0,99}")
_ATTRIBUTE_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)")
_TYPES = ("String", "Number", "Binary")


class Publishing:
    def __init__(self, store: Store, clock: Clock, new_id: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    @operation("Publish")
    def publish(self, call: Call, request: shapes.PublishInput) -> shapes.PublishResponse:
        arn = _topic_arn(request)
        attributes = {
            name: _attribute(name, value) for name, value in request.get("MessageAttributes", {}).items()
        }
        notice = Notice(
            type="Notification",
            id=self._new_id(),
            topic_arn=arn,
            subject=_subject(request),
            message=_message(request, attributes),
            at=self._clock.now(),
            attributes=attributes,
        )
        by_protocol = _by_protocol(request)
        with self._store.write() as tx:
            access.topic(tx, call, arn)
            publish(tx, notice, by_protocol)
        return {"MessageId": notice.id}


def _topic_arn(request: shapes.PublishInput) -> str:
    for member in ("PhoneNumber", "MessageGroupId", "MessageDeduplicationId"):
        if member in request:
            raise not_supported(f"The member {member} of Publish")
    if ("TopicArn" in request) == ("TargetArn" in request):
        raise bad("TopicArn or TargetArn Reason: exactly one of them must be given")
    return request["TopicArn"] if "TopicArn" in request else request["TargetArn"]


def _subject(request: shapes.PublishInput) -> str:
    subject = request.get("Subject", "")
    if "Subject" in request and not _SUBJECT.fullmatch(subject):
        raise bad("Subject")
    return subject


def _message(request: shapes.PublishInput, attributes: Mapping[str, Attribute]) -> str:
    message = request["Message"]
    if not message:
        raise bad("Empty message")
    size = len(message.encode()) + sum(
        len(name.encode()) + len(a.type) + len(a.value.encode()) for name, a in attributes.items()
    )
    if size > LARGEST:
        raise bad("Message too long")
    return message


def _by_protocol(request: shapes.PublishInput) -> Callable[[str], str] | None:
    structure = request.get("MessageStructure")
    if structure is None:
        return None
    if structure != "json":
        raise bad("MessageStructure")
    try:
        messages = json.loads(request["Message"])
    except ValueError as error:
        raise bad("Message Structure - JSON message body failed to parse") from error
    if not isinstance(messages, dict) or not isinstance(messages.get("default"), str):
        raise bad("Message Structure - No default entry in JSON message body")

    def message_for(protocol: str) -> str:
        found = messages.get(protocol)
        return found if isinstance(found, str) else str(messages["default"])

    return message_for


def _attribute(name: str, value: shapes.MessageAttributeValue) -> Attribute:
    if not _ATTRIBUTE_NAME.fullmatch(name):
        raise bad(f"MessageAttributes Reason: {name!r} is no name of an attribute")
    kind = value["DataType"]
    if kind.split(".")[0] not in _TYPES:
        raise bad(f"MessageAttributes Reason: The type {kind} of {name} is none of {', '.join(_TYPES)}")
    if kind.startswith("Binary"):
        if not value.get("BinaryValue"):
            raise bad(f"MessageAttributes Reason: The attribute {name} needs a BinaryValue")
        return Attribute(kind, base64.b64encode(value["BinaryValue"]).decode())
    text = value.get("StringValue", "")
    if not text:
        raise bad(f"MessageAttributes Reason: The attribute {name} needs a StringValue")
    if kind.startswith("Number") and not _is_number(text):
        raise bad(f"MessageAttributes Reason: Could not cast {name} to a number")
    return Attribute(kind, text)


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False
