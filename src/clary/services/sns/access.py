"""Topics and subscriptions, found by what a request names them with."""

from collections.abc import Mapping, Sequence
from typing import Any

from clary.domain.arns import parse_arn
from clary.domain.notices import SUBSCRIPTION_KIND
from clary.services import page_tokens
from clary.services.sns.faults import absent, bad
from clary.store import PageQuery, Resource, Transaction
from clary.store.notices import find_topic
from clary.wire.operations import Call

PAGE = 100


def topic(tx: Transaction, call: Call, arn: str) -> Resource:
    """The topic, or the fault that says there is none."""
    parts = parse_arn(arn)
    if parts is None or parts.service != "sns" or ":" in parts.resource or not parts.resource:
        raise bad("TopicArn")
    found = find_topic(tx, arn) if (parts.account, parts.region) == (call.account, call.region) else None
    if found is None:
        raise absent("Topic")
    return found


def subscription(tx: Transaction, call: Call, arn: str) -> Resource:
    parts = parse_arn(arn)
    if parts is None or parts.service != "sns" or ":" not in parts.resource:
        raise bad("SubscriptionArn")
    name = parts.resource.rpartition(":")[2]
    found = tx.resources.find(call.account, call.region, SUBSCRIPTION_KIND, name)
    if found is None or found.arn != arn:
        raise absent("Subscription")
    return found


def page(
    tx: Transaction, call: Call, kind: str, request: Mapping[str, Any]
) -> tuple[list[Resource], str | None]:
    """One page of a kind by name, and the token of the next."""
    after = _position(request)
    query = PageQuery(call.account, call.region, kind, "name", False, PAGE + 1, (after.lower(),))
    summaries = tx.resources.page(query)
    found = [each for item in summaries[:PAGE] if (each := tx.resources.get(item.uid)) is not None]
    return found, token_of(request, found) if len(summaries) > PAGE else None


def cut(request: Mapping[str, Any], everything: Sequence[Resource]) -> tuple[list[Resource], str | None]:
    """One page of what is there at all, by name."""
    after = _position(request)
    rest = sorted((each for each in everything if each.name > after), key=lambda each: each.name)
    return rest[:PAGE], token_of(request, rest[:PAGE]) if len(rest) > PAGE else None


def token_of(request: Mapping[str, Any], shown: Sequence[Resource]) -> str:
    return page_tokens.make(_asked(request), shown[-1].name)


def _position(request: Mapping[str, Any]) -> str:
    token = request.get("NextToken")
    if not token:
        return ""
    position = page_tokens.read(token, _asked(request))
    if not isinstance(position, str):
        raise bad("NextToken")
    return position


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key != "NextToken"}
