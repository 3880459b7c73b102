"""Subscriptions: made, confirmed by their endpoint, changed, ended. Endpoints are URLs; the rest is refused by name."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta

from clary.domain.clock import Clock
from clary.domain.faults import not_supported
from clary.domain.notices import (
    CONFIRMED,
    PENDING,
    SUBSCRIPTION_KIND,
    TOKEN_LASTS,
    Notice,
    Subscription,
    is_endpoint,
)
from clary.services.sns import access
from clary.services.sns.attributes import shown, with_attribute
from clary.services.sns.faults import bad
from clary.store import Resource, Store, Transaction
from clary.store.notices import deliver
from clary.wire.operations import Call, operation
from clary.wire.shapes import sns as shapes

_OTHER_PROTOCOLS = frozenset(("email", "email-json", "sms", "sqs", "application", "lambda", "firehose"))


class Subscriptions:
    def __init__(
        self, store: Store, clock: Clock, new_uid: Callable[[], str], new_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_uid = new_uid
        self._new_id = new_id

    @operation("Subscribe")
    def subscribe(self, call: Call, request: shapes.SubscribeInput) -> shapes.SubscribeResponse:
        """The endpoint is asked to confirm; one that is subscribed already is answered with its ARN."""
        spec = self._spec(request)
        with self._store.write() as tx:
            access.topic(tx, call, request["TopicArn"])
            found = self._same(tx, spec)
            if found is None:
                found = self._insert(tx, call, spec)
            if found.status == PENDING:
                self._ask(tx, found)
        if found.status == PENDING and not request.get("ReturnSubscriptionArn"):
            return {"SubscriptionArn": "pending confirmation"}
        return {"SubscriptionArn": found.arn}

    @operation("ConfirmSubscription")
    def confirm_subscription(
        self, call: Call, request: shapes.ConfirmSubscriptionInput
    ) -> shapes.ConfirmSubscriptionResponse:
        with self._store.write() as tx:
            topic = access.topic(tx, call, request["TopicArn"])
            found = next(
                (
                    each
                    for each in tx.resources.children(topic.arn, SUBSCRIPTION_KIND)
                    if each.spec_as(Subscription).token == request["Token"]
                ),
                None,
            )
            if found is None:
                raise bad("Token")
            if found.status == PENDING:
                if self._clock.now() - found.created_at > TOKEN_LASTS:
                    raise bad("Token Reason: it has expired; subscribe again")
                tx.resources.update(found, status=CONFIRMED)
        return {"SubscriptionArn": found.arn}

    @operation("Unsubscribe")
    def unsubscribe(self, call: Call, request: shapes.UnsubscribeInput) -> None:
        with self._store.write(on_full_disk=True) as tx:
            tx.resources.delete(access.subscription(tx, call, request["SubscriptionArn"]).uid)

    @operation("ListSubscriptions")
    def list_subscriptions(
        self, call: Call, request: shapes.ListSubscriptionsInput
    ) -> shapes.ListSubscriptionsResponse:
        with self._store.read() as tx:
            found, token = access.page(tx, call, SUBSCRIPTION_KIND, request)
        answer: shapes.ListSubscriptionsResponse = {"Subscriptions": [_summary(each) for each in found]}
        if token is not None:
            answer["NextToken"] = token
        return answer

    @operation("ListSubscriptionsByTopic")
    def list_subscriptions_by_topic(
        self, call: Call, request: shapes.ListSubscriptionsByTopicInput
    ) -> shapes.ListSubscriptionsByTopicResponse:
        with self._store.read() as tx:
            topic = access.topic(tx, call, request["TopicArn"])
            found, token = access.cut(request, tx.resources.children(topic.arn, SUBSCRIPTION_KIND))
        answer: shapes.ListSubscriptionsByTopicResponse = {
            "Subscriptions": [_summary(each) for each in found]
        }
        if token is not None:
            answer["NextToken"] = token
        return answer

    @operation("GetSubscriptionAttributes")
    def get_subscription_attributes(
        self, call: Call, request: shapes.GetSubscriptionAttributesInput
    ) -> shapes.GetSubscriptionAttributesResponse:
        with self._store.read() as tx:
            return {"Attributes": shown(access.subscription(tx, call, request["SubscriptionArn"]))}

    @operation("SetSubscriptionAttributes")
    def set_subscription_attributes(self, call: Call, request: shapes.SetSubscriptionAttributesInput) -> None:
        with self._store.write() as tx:
            found = access.subscription(tx, call, request["SubscriptionArn"])
            spec = with_attribute(
                found.spec_as(Subscription), request["AttributeName"], request.get("AttributeValue", "")
            )
            tx.resources.update(found, spec=spec)

    def _spec(self, request: shapes.SubscribeInput) -> Subscription:
        protocol, endpoint = request["Protocol"], request.get("Endpoint", "")
        if protocol in _OTHER_PROTOCOLS:
            raise not_supported(f"The protocol {protocol} of Subscribe (http and https are)")
        if protocol not in ("http", "https"):
            raise bad(f"Protocol Reason: {protocol} is not a protocol")
        if not is_endpoint(protocol, endpoint):
            raise bad("Endpoint must match the specified protocol")
        spec = Subscription(
            topic_arn=request["TopicArn"],
            protocol="https" if protocol == "https" else "http",
            endpoint=endpoint,
            token=self._new_uid() + self._new_uid(),
        )
        for name, value in request.get("Attributes", {}).items():
            spec = with_attribute(spec, name, value)
        return spec

    def _same(self, tx: Transaction, spec: Subscription) -> Resource | None:
        """The endpoint's subscription to the topic, if there is one; it must have the same attributes."""
        for each in tx.resources.children(spec.topic_arn, SUBSCRIPTION_KIND):
            held = each.spec_as(Subscription)
            if (held.protocol, held.endpoint) == (spec.protocol, spec.endpoint):
                if dataclasses.replace(spec, token=held.token) != held:
                    raise bad("Attributes Reason: Subscription already exists with different attributes")
                return each
        return None

    def _insert(self, tx: Transaction, call: Call, spec: Subscription) -> Resource:
        name = self._new_id()
        return tx.resources.insert(
            uid=self._new_uid(),
            account=call.account,
            region=call.region,
            kind=SUBSCRIPTION_KIND,
            arn=f"{spec.topic_arn}:{name}",
            parent=spec.topic_arn,
            name=name,
            status=PENDING,
            spec=spec,
        )

    def _ask(self, tx: Transaction, subscription: Resource) -> None:
        spec = subscription.spec_as(Subscription)
        days = TOKEN_LASTS // timedelta(days=1)
        message = (
            f"You have chosen to subscribe to the topic {spec.topic_arn}.\n"
            f"To confirm the subscription, visit the SubscribeURL included in this message within {days} days."
        )
        deliver(
            tx,
            subscription,
            Notice(
                type="SubscriptionConfirmation",
                id=self._new_id(),
                topic_arn=spec.topic_arn,
                message=message,
                at=self._clock.now(),
                token=spec.token,
            ),
        )


def _summary(subscription: Resource) -> shapes.Subscription:
    spec = subscription.spec_as(Subscription)
    is_pending = subscription.status == PENDING
    return {
        "SubscriptionArn": "PendingConfirmation" if is_pending else subscription.arn,
        "Owner": subscription.account,
        "Protocol": spec.protocol,
        "Endpoint": spec.endpoint,
        "TopicArn": spec.topic_arn,
    }
