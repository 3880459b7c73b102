"""SNS over its query protocol, with botocore as the client; and the links that subscribers follow without keys."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import ClientError

from clary.domain.clock import SystemClock
from clary.domain.faults import Fault
from clary.domain.notices import Subscription
from clary.services import sns
from clary.store import Store
from clary.testing.wire import TEST_ACCOUNT, TEST_REGION, connect, example_keyring
from clary.wire.heads import Head
from clary.wire.models import ServiceModels
from clary.wire.operations import OperationTable
from clary.wire.presigning import Links
from clary.wire.server import WireServer
from clary.wire.sigv4 import Verifier
from clary.wire.validate import validate

ARN = f"arn:aws:sns:{TEST_REGION}:{TEST_ACCOUNT}:told"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}", SystemClock(), is_durable=False)
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> Iterator[Any]:
    table = OperationTable()
    uids = (f"{number:032x}" for number in count())
    table.add("sns", *sns.resources(store, SystemClock(), uids.__next__, lambda: str(uuid.uuid4())))
    server = WireServer(
        ServiceModels(table.implemented()),
        table,
        validate=validate,
        keys=Verifier(example_keyring()),
        clock=SystemClock(),
        new_request_id=lambda: str(uuid.uuid4()),
    )
    yield connect(server).client("sns")
    server.close()


def token_of(store: Store) -> str:
    with store.read() as tx:
        return tx.resources.all("sns-subscription")[-1].spec_as(Subscription).token


def test_L03_a_topic_and_its_subscriber(client: Any, store: Store) -> None:
    assert client.create_topic(Name="told", Tags=[{"Key": "a", "Value": "1"}])["TopicArn"] == ARN
    assert client.create_topic(Name="told")["TopicArn"] == ARN
    assert client.list_topics()["Topics"] == [{"TopicArn": ARN}]
    client.set_topic_attributes(TopicArn=ARN, AttributeName="DisplayName", AttributeValue="Told")
    subscribed = client.subscribe(
        TopicArn=ARN,
        Protocol="https",
        Endpoint="https://example.com/hook",
        Attributes={"RawMessageDelivery": "true"},
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    attributes = client.get_topic_attributes(TopicArn=ARN)["Attributes"]
    assert (attributes["DisplayName"], attributes["SubscriptionsPending"]) == ("Told", "1")
    listed = client.list_subscriptions_by_topic(TopicArn=ARN)["Subscriptions"]
    assert [each["SubscriptionArn"] for each in listed] == ["PendingConfirmation"]
    confirmed = client.confirm_subscription(TopicArn=ARN, Token=token_of(store))
    assert confirmed["SubscriptionArn"] == subscribed
    client.set_subscription_attributes(
        SubscriptionArn=subscribed, AttributeName="FilterPolicy", AttributeValue='{"a": ["b"]}'
    )
    shown = client.get_subscription_attributes(SubscriptionArn=subscribed)["Attributes"]
    assert (shown["PendingConfirmation"], shown["RawMessageDelivery"]) == ("false", "true")
    assert json.loads(shown["FilterPolicy"]) == {"a": ["b"]}
    assert client.list_subscriptions()["Subscriptions"][0]["SubscriptionArn"] == subscribed
    uuid.UUID(client.publish(TopicArn=ARN, Message="m", Subject="s")["MessageId"])
    client.tag_resource(ResourceArn=ARN, Tags=[{"Key": "b", "Value": "2"}])
    client.untag_resource(ResourceArn=ARN, TagKeys=["a"])
    assert client.list_tags_for_resource(ResourceArn=ARN)["Tags"] == [{"Key": "b", "Value": "2"}]
    client.unsubscribe(SubscriptionArn=subscribed)
    assert client.list_subscriptions_by_topic(TopicArn=ARN)["Subscriptions"] == []
    client.delete_topic(TopicArn=ARN)
    client.delete_topic(TopicArn=ARN)
    assert client.list_topics()["Topics"] == []


def test_L03_lists_come_in_pages(client: Any) -> None:
    client.create_topic(Name="told")
    for number in range(103):
        client.create_topic(Name=f"t-{number:03d}")
        client.subscribe(TopicArn=ARN, Protocol="http", Endpoint=f"http://e/{number}")
    for operation, member, params, expected in (
        ("list_topics", "Topics", {}, 104),
        ("list_subscriptions", "Subscriptions", {}, 103),
        ("list_subscriptions_by_topic", "Subscriptions", {"TopicArn": ARN}, 103),
    ):
        pages = [page[member] for page in client.get_paginator(operation).paginate(**params)]
        assert [len(page) for page in pages] == [100, expected - 100]


@pytest.mark.parametrize(
    ("operation", "params", "code", "words"),
    [
        ("create_topic", {"Name": "a b"}, "InvalidParameter", "Topic Name"),
        ("create_topic", {"Name": "a.fifo"}, "ValidationError", "FIFO topic is not supported"),
        ("create_topic", {"Name": "TOLD"}, "ValidationError", "upper and lower case"),
        (
            "create_topic",
            {"Name": "told", "Attributes": {"DisplayName": "x"}},
            "InvalidParameter",
            "different",
        ),
        (
            "create_topic",
            {"Name": "k", "Attributes": {"KmsMasterKeyId": "x"}},
            "ValidationError",
            "KmsMasterKeyId",
        ),
        ("get_topic_attributes", {"TopicArn": ARN + "x"}, "NotFound", "Topic does not exist"),
        ("get_topic_attributes", {"TopicArn": "told"}, "InvalidParameter", "TopicArn"),
        ("subscribe", {"Protocol": "sqs", "Endpoint": "arn:x"}, "ValidationError", "protocol sqs"),
        ("subscribe", {"Protocol": "pigeon", "Endpoint": "x"}, "InvalidParameter", "pigeon"),
        ("subscribe", {"Protocol": "http", "Endpoint": "https://x/"}, "InvalidParameter", "Endpoint"),
        ("subscribe", {"Protocol": "http"}, "InvalidParameter", "Endpoint"),
        ("subscribe", {"Protocol": "http", "Endpoint": "http://e/a b"}, "InvalidParameter", "Endpoint"),
        ("subscribe", {"Protocol": "http", "Endpoint": "http://e:x/"}, "InvalidParameter", "Endpoint"),
        (
            "subscribe",
            {"Protocol": "http", "Attributes": {"RedrivePolicy": "{}"}},
            "InvalidParameter",
            "Endpoint",
        ),
        ("confirm_subscription", {"Token": "x"}, "InvalidParameter", "Token"),
        ("unsubscribe", {"SubscriptionArn": ARN + ":x"}, "NotFound", "Subscription"),
        ("publish", {"Message": ""}, "InvalidParameter", "Empty message"),
        ("publish", {"Message": "x" * 262_145}, "InvalidParameter", "too long"),
        ("publish", {"Message": "x", "Subject": "a\nb"}, "InvalidParameter", "Subject"),
        ("publish", {"Message": "x", "MessageStructure": "json"}, "InvalidParameter", "failed to parse"),
        ("publish", {"Message": "{}", "MessageStructure": "json"}, "InvalidParameter", "default"),
        ("publish", {"Message": "x", "MessageGroupId": "g"}, "ValidationError", "MessageGroupId"),
    ],
)
def test_L03_what_cannot_be_is_refused(
    client: Any, operation: str, params: dict[str, Any], code: str, words: str
) -> None:
    client.create_topic(Name="told")
    if operation in ("subscribe", "confirm_subscription", "publish"):
        params = {"TopicArn": ARN, **params}
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)(**params)
    assert caught.value.response["Error"]["Code"] == code
    assert words in caught.value.response["Error"]["Message"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("FilterPolicy", '{"a": [{"suffix": "x"}]}', "ValidationError"),
        ("FilterPolicy", "[]", "InvalidParameter"),
        ("FilterPolicyScope", "MessageBody", "ValidationError"),
        ("DeliveryPolicy", '{"healthyRetryPolicy": {"numRetries": 101}}', "InvalidParameter"),
        ("DeliveryPolicy", '{"throttlePolicy": {"maxReceivesPerSecond": 1}}', "ValidationError"),
        ("RawMessageDelivery", "perhaps", "InvalidParameter"),
        ("RedrivePolicy", "{}", "ValidationError"),
    ],
)
def test_L03_attributes_that_cannot_be_are_refused(client: Any, name: str, value: str, code: str) -> None:
    client.create_topic(Name="told")
    with pytest.raises(ClientError) as caught:
        client.subscribe(TopicArn=ARN, Protocol="http", Endpoint="http://e/", Attributes={name: value})
    assert caught.value.response["Error"]["Code"] == code
    assert client.list_subscriptions()["Subscriptions"] == []


def test_L03_an_endpoint_subscribes_once_and_not_in_two_ways(client: Any) -> None:
    client.create_topic(Name="told")
    asked = {"TopicArn": ARN, "Protocol": "http", "Endpoint": "http://e/", "ReturnSubscriptionArn": True}
    first = client.subscribe(**asked)["SubscriptionArn"]
    assert client.subscribe(**asked)["SubscriptionArn"] == first
    with pytest.raises(ClientError) as caught:
        client.subscribe(**asked, Attributes={"RawMessageDelivery": "true"})
    assert "different attributes" in caught.value.response["Error"]["Message"]


def test_Z02_a_link_makes_the_one_call_that_it_was_made_for() -> None:
    keyring = example_keyring()
    links = Links(keyring.root, "http://127.0.0.1:8470", lambda: datetime.now(UTC))
    params = {"Action": "ConfirmSubscription", "Version": "2010-03-31", "TopicArn": ARN, "Token": "a b/é"}
    url = urlsplit(links("sns", TEST_REGION, params, 600))
    verifier = Verifier(keyring)

    def head(query: str) -> Head:
        return Head(b"GET", f"/?{query}".encode(), {b"host": url.netloc.encode()})

    identity = verifier.verify(head(url.query))
    assert identity.service == "sns"
    assert parse_qs(url.query)["Token"] == ["a b/é"]
    for changed in (
        url.query.replace("ConfirmSubscription", "DeleteTopic"),
        url.query.replace("=600", "=601"),
    ):
        with pytest.raises(Fault, match="does not match"):
            verifier.verify(head(changed))
