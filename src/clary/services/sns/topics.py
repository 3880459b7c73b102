"""Topics and their tags."""

import json
import re
from collections.abc import Callable, Mapping

from clary.domain.faults import Fault, not_supported
from clary.domain.notices import CONFIRMED, PENDING, SUBSCRIPTION_KIND, TOPIC_KIND, Topic, topic_arn
from clary.services.sns import access
from clary.services.sns.faults import bad
from clary.store import DuplicateName, Resource, Store, Transaction
from clary.store.notices import find_topic
from clary.wire.operations import Call, operation
from clary.wire.shapes import sns as shapes

MOST_TAGS = 50
LONGEST_DISPLAY_NAME = 100

_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
_EFFECTIVE_POLICY = json.dumps(
    {
        "http": {
            "defaultHealthyRetryPolicy": {
                "minDelayTarget": 20,
                "maxDelayTarget": 20,
                "numRetries": 3,
                "numMaxDelayRetries": 0,
                "numNoDelayRetries": 0,
                "numMinDelayRetries": 0,
                "backoffFunction": "linear",
            },
            "disableSubscriptionOverrides": False,
        }
    }
)


class Topics:
    def __init__(self, store: Store, new_uid: Callable[[], str]) -> None:
        self._store = store
        self._new_uid = new_uid

    @operation("CreateTopic")
    def create_topic(self, call: Call, request: shapes.CreateTopicInput) -> shapes.CreateTopicResponse:
        """The topic of that name, if it is one with these attributes and tags."""
        name = request["Name"]
        if not _NAME.fullmatch(name.removesuffix(".fifo")):
            raise bad("Topic Name")
        if name.endswith(".fifo"):
            raise not_supported("A FIFO topic")
        if "DataProtectionPolicy" in request:
            raise not_supported("The member DataProtectionPolicy of CreateTopic")
        attributes = request.get("Attributes", {})
        for attribute, value in attributes.items():
            _check_attribute(attribute, value)
        tags = _tag_map(request.get("Tags", []))
        with self._store.write() as tx:
            return {"TopicArn": self._create(tx, call, Topic(name, dict(attributes)), tags)}

    @operation("DeleteTopic")
    def delete_topic(self, call: Call, request: shapes.DeleteTopicInput) -> None:
        """With its subscriptions; one that is not there is no error."""
        with self._store.write(on_full_disk=True) as tx:
            found = find_topic(tx, request["TopicArn"])
            if found is None or (found.account, found.region) != (call.account, call.region):
                return
            for subscription in tx.resources.children(found.arn, SUBSCRIPTION_KIND):
                tx.resources.delete(subscription.uid)
            tx.resources.delete(found.uid)

    @operation("ListTopics")
    def list_topics(self, call: Call, request: shapes.ListTopicsInput) -> shapes.ListTopicsResponse:
        with self._store.read() as tx:
            found, token = access.page(tx, call, TOPIC_KIND, request)
        answer: shapes.ListTopicsResponse = {"Topics": [{"TopicArn": each.arn} for each in found]}
        if token is not None:
            answer["NextToken"] = token
        return answer

    @operation("GetTopicAttributes")
    def get_topic_attributes(
        self, call: Call, request: shapes.GetTopicAttributesInput
    ) -> shapes.GetTopicAttributesResponse:
        with self._store.read() as tx:
            found = access.topic(tx, call, request["TopicArn"])
            statuses = [s.status for s in tx.resources.children(found.arn, SUBSCRIPTION_KIND)]
        shown = {
            "TopicArn": found.arn,
            "Owner": found.account,
            "DisplayName": "",
            "Policy": _default_policy(found),
            "SubscriptionsConfirmed": str(statuses.count(CONFIRMED)),
            "SubscriptionsPending": str(statuses.count(PENDING)),
            "SubscriptionsDeleted": "0",
            "EffectiveDeliveryPolicy": _EFFECTIVE_POLICY,
        }
        return {"Attributes": shown | found.spec_as(Topic).attributes}

    @operation("SetTopicAttributes")
    def set_topic_attributes(self, call: Call, request: shapes.SetTopicAttributesInput) -> None:
        name, value = request["AttributeName"], request.get("AttributeValue", "")
        _check_attribute(name, value)
        with self._store.write() as tx:
            found = access.topic(tx, call, request["TopicArn"])
            spec = found.spec_as(Topic)
            tx.resources.update(found, spec=Topic(spec.name, {**spec.attributes, name: value}))

    @operation("TagResource")
    def tag_resource(self, call: Call, request: shapes.TagResourceRequest) -> shapes.TagResourceResponse:
        with self._store.write() as tx:
            found = _tagged(tx, call, request["ResourceArn"])
            tx.tags.put(found.uid, _tag_map(request["Tags"]))
            _check_count(dict(tx.tags.page(found.uid, limit=MOST_TAGS + 1)))
        return {}

    @operation("UntagResource")
    def untag_resource(
        self, call: Call, request: shapes.UntagResourceRequest
    ) -> shapes.UntagResourceResponse:
        with self._store.write(on_full_disk=True) as tx:
            tx.tags.remove(_tagged(tx, call, request["ResourceArn"]).uid, request["TagKeys"])
        return {}

    @operation("ListTagsForResource")
    def list_tags_for_resource(
        self, call: Call, request: shapes.ListTagsForResourceRequest
    ) -> shapes.ListTagsForResourceResponse:
        with self._store.read() as tx:
            found = tx.tags.page(_tagged(tx, call, request["ResourceArn"]).uid)
        return {"Tags": [{"Key": key, "Value": value} for key, value in found]}

    def _create(self, tx: Transaction, call: Call, spec: Topic, tags: Mapping[str, str]) -> str:
        arn = topic_arn(call.region, call.account, spec.name)
        before = find_topic(tx, arn)
        if before is not None:
            held = before.spec_as(Topic).attributes
            if any(held.get(name) != value for name, value in spec.attributes.items()):
                raise bad("Attributes Reason: Topic already exists with different attributes")
            if tags and dict(tx.tags.page(before.uid)) != tags:
                raise bad("Tags Reason: Topic already exists with different tags")
            return arn
        uid = self._new_uid()
        try:
            tx.resources.insert(
                uid=uid,
                account=call.account,
                region=call.region,
                kind=TOPIC_KIND,
                arn=arn,
                name=spec.name,
                status="",
                spec=spec,
            )
        except DuplicateName as error:
            raise not_supported(
                f"A topic {spec.name} beside one whose name differs from it in upper and lower case only"
            ) from error
        tx.tags.put(uid, tags)
        return arn


def _check_attribute(name: str, value: str) -> None:
    match name:
        case "DisplayName":
            if len(value) > LONGEST_DISPLAY_NAME:
                raise bad("DisplayName")
        case "Policy":
            try:
                json.loads(value)
            except ValueError as error:
                raise bad("Policy Error: null") from error
        case _:
            raise not_supported(f"The attribute {name} of a topic")


def _default_policy(topic: Resource) -> str:
    statement = {
        "Sid": "__default_statement_ID",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": ["SNS:Publish", "SNS:Subscribe", "SNS:GetTopicAttributes", "SNS:SetTopicAttributes"],
        "Resource": topic.arn,
        "Condition": {"StringEquals": {"AWS:SourceOwner": topic.account}},
    }
    return json.dumps({"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": [statement]})


def _tag_map(tags: list[shapes.Tag]) -> dict[str, str]:
    wanted = {tag["Key"]: tag["Value"] for tag in tags}
    _check_count(wanted)
    return wanted


def _check_count(tags: Mapping[str, str]) -> None:
    if len(tags) > MOST_TAGS:
        raise Fault("TagLimitExceeded", f"Could not complete request: tag quota of {MOST_TAGS} exceeded")


def _tagged(tx: Transaction, call: Call, arn: str) -> Resource:
    found = find_topic(tx, arn)
    if found is None or (found.account, found.region) != (call.account, call.region):
        raise Fault("ResourceNotFound", "Resource does not exist", 404)
    return found
