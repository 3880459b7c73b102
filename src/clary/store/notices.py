"""Publishing inside a transaction: a notice becomes a delivery for each confirmed subscriber whose filter lets it pass.

A delivery that is written is not lost any more; the subscriptions' reconciler brings it to its endpoint.
"""

from collections.abc import Callable
from dataclasses import replace

from clary.domain.arns import parse_arn
from clary.domain.notice_filters import accepts, parse_filter
from clary.domain.notices import (
    CONFIRMED,
    SUBSCRIPTION_KIND,
    TOPIC_KIND,
    Notice,
    Subscription,
)
from clary.store.database import Transaction
from clary.store.resources import Resource


def find_topic(tx: Transaction, arn: str) -> Resource | None:
    """The topic of exactly this ARN: topics' names keep their case."""
    parts = parse_arn(arn)
    if parts is None or parts.service != "sns":
        return None
    found = tx.resources.find(parts.account, parts.region, TOPIC_KIND, parts.resource)
    return found if found is not None and found.arn == arn else None


def publish(tx: Transaction, notice: Notice, message_for: Callable[[str], str] | None = None) -> int:
    """To how many it goes. `message_for` a protocol, where they are told different things."""
    count = 0
    for subscription in tx.resources.children(notice.topic_arn, SUBSCRIPTION_KIND):
        spec = subscription.spec_as(Subscription)
        if subscription.status != CONFIRMED or not _passes(spec, notice):
            continue
        told = notice if message_for is None else replace(notice, message=message_for(spec.protocol))
        deliver(tx, subscription, told)
        count += 1
    return count


def deliver(tx: Transaction, subscription: Resource, notice: Notice) -> None:
    """Puts one notice on its way to one endpoint."""
    tx.deliveries.add(subscription.uid, notice)
    tx.work.wish(SUBSCRIPTION_KIND, subscription.uid)


def _passes(spec: Subscription, notice: Notice) -> bool:
    return not spec.filter_policy or accepts(parse_filter(spec.filter_policy), notice.attributes)
