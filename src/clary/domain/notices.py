"""Topics, who is subscribed to them, and the notices that are on their way.

Source: SNS Developer Guide, message and JSON formats; message delivery retries. A topic is a resource of kind
`sns-topic`, its spec a `Topic`; a subscription is one of kind `sns-subscription`, its spec a `Subscription`, its parent
the topic's ARN, its status `pending` until its endpoint has confirmed that it wants the notices, then `confirmed`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from clary.domain.arns import Arn

TOPIC_KIND = "sns-topic"
SUBSCRIPTION_KIND = "sns-subscription"

PENDING, CONFIRMED = "pending", "confirmed"

TOKEN_LASTS = timedelta(days=3)

_PLAIN = re.compile(r"[!-~]{1,2048}")

Protocol = Literal["http", "https"]


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic was made with: `attributes` as the API names them."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscription:
    """`filter_policy` and `delivery_policy` are JSON, as they were given; empty where they were not."""

    topic_arn: str
    protocol: Protocol
    endpoint: str
    token: str
    is_raw: bool = False
    filter_policy: str = ""
    delivery_policy: str = ""


class Attribute(NamedTuple):
    """A message attribute; binary ones as base64."""

    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One message for one subscriber. `token` is a confirmation's."""

    type: Literal["Notification", "SubscriptionConfirmation"]
    id: str
    topic_arn: str
    message: str
    at: datetime
    subject: str = ""
    token: str = ""
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Post:
    """What is sent to an endpoint."""

    headers: Mapping[str, str]
    body: bytes


def topic_arn(region: str, account: str, name: str) -> str:
    return str(Arn("aws", "sns", region, account, name))


def post(notice: Notice, subscription_arn: str, *, is_raw: bool, url: str) -> Post:
    """The request that tells an endpoint. `url` subscribes in a confirmation and unsubscribes in a notification.

    It is not signed: a signature that no certificate of AWS's vouches for would only look like one.
    """
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "User-Agent": "Amazon Simple Notification Service Agent",
        "x-amz-sns-message-type": notice.type,
        "x-amz-sns-message-id": notice.id,
        "x-amz-sns-topic-arn": notice.topic_arn,
    }
    if notice.type == "SubscriptionConfirmation":
        return Post(headers, _json(_envelope(notice) | {"SubscribeURL": url, "Token": notice.token}))
    headers["x-amz-sns-subscription-arn"] = subscription_arn
    if is_raw:
        return Post(headers | {"x-amz-sns-rawdelivery": "true"}, notice.message.encode())
    return Post(headers, _json(_envelope(notice) | {"UnsubscribeURL": url}))


def is_endpoint(protocol: str, endpoint: str) -> bool:
    """Whether it is a URL that this protocol can post to."""
    if not _PLAIN.fullmatch(endpoint):
        return False
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme == protocol and bool(parts.hostname) and port != 0


def _envelope(notice: Notice) -> dict[str, Any]:
    told: dict[str, Any] = {"Type": notice.type, "MessageId": notice.id, "TopicArn": notice.topic_arn}
    if notice.subject:
        told["Subject"] = notice.subject
    at = notice.at
    told |= {
        "Message": notice.message,
        "Timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
    }
    if notice.attributes:
        told["MessageAttributes"] = {
            name: {"Type": attribute.type, "Value": attribute.value}
            for name, attribute in notice.attributes.items()
        }
    return told


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode()
