"""What may be set on a subscription, and how it is shown."""

import dataclasses
import json

from clary.domain.faults import not_supported
from clary.domain.notice_filters import BadFilter, FilterNotBuilt, parse_filter
from clary.domain.notice_retries import BadPolicy, PolicyNotBuilt, parse_policy
from clary.domain.notices import PENDING, Subscription
from clary.services.sns.faults import bad
from clary.store import Resource


def with_attribute(spec: Subscription, name: str, value: str) -> Subscription:
    """The subscription with one attribute more, or the fault that says why not."""
    match name:
        case "RawMessageDelivery":
            if value.lower() not in ("true", "false"):
                raise bad(f"RawMessageDelivery Reason: must be true or false, not {value}")
            return dataclasses.replace(spec, is_raw=value.lower() == "true")
        case "FilterPolicy":
            _check_filter(value)
            return dataclasses.replace(spec, filter_policy="" if value in ("", "{}") else value)
        case "FilterPolicyScope":
            if value == "MessageBody":
                raise not_supported("The FilterPolicyScope MessageBody")
            if value != "MessageAttributes":
                raise bad("FilterPolicyScope Reason: it must be MessageAttributes or MessageBody")
            return spec
        case "DeliveryPolicy":
            _check_delivery(value)
            return dataclasses.replace(spec, delivery_policy=value)
    raise not_supported(f"The attribute {name} of a subscription")


def shown(subscription: Resource) -> dict[str, str]:
    spec = subscription.spec_as(Subscription)
    policy = dataclasses.asdict(parse_policy(spec.delivery_policy))
    attributes = {
        "SubscriptionArn": subscription.arn,
        "TopicArn": spec.topic_arn,
        "Owner": subscription.account,
        "Protocol": spec.protocol,
        "Endpoint": spec.endpoint,
        "PendingConfirmation": _word(subscription.status == PENDING),
        "ConfirmationWasAuthenticated": _word(subscription.status != PENDING),
        "RawMessageDelivery": _word(spec.is_raw),
        "EffectiveDeliveryPolicy": json.dumps({"healthyRetryPolicy": policy}),
    }
    if spec.filter_policy:
        attributes |= {"FilterPolicy": spec.filter_policy, "FilterPolicyScope": "MessageAttributes"}
    if spec.delivery_policy:
        attributes["DeliveryPolicy"] = spec.delivery_policy
    return attributes


def _check_filter(text: str) -> None:
    try:
        if text:
            parse_filter(text)
    except FilterNotBuilt as error:
        raise not_supported(str(error)[:1].upper() + str(error)[1:]) from error
    except BadFilter as error:
        raise bad(f"FilterPolicy: {error}") from error


def _check_delivery(text: str) -> None:
    try:
        parse_policy(text)
    except PolicyNotBuilt as error:
        raise not_supported(str(error)[:1].upper() + str(error)[1:]) from error
    except BadPolicy as error:
        raise bad(f"DeliveryPolicy: {error}") from error


def _word(is_true: bool) -> str:
    return "true" if is_true else "false"
