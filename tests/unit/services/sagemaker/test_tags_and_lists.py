"""Tags of the three kinds, and the tokens that page through lists."""

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.domain.faults import Fault
from control.harness import Control

BASE = "arn:aws:sagemaker:eu-central-1:123456789012"


def tags(*keys: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": key.upper()} for key in keys]


@pytest.mark.parametrize("name", ["model/m", "endpoint-config/c", "endpoint/e"])
def test_H01_tags_of_every_kind(control: Control, name: str) -> None:
    control.model()
    control.config()
    control.endpoint()
    arn = f"{BASE}/{name}".replace("012/", "012:")
    assert control.call("AddTags", ResourceArn=arn, Tags=tags("b", "a"))["Tags"] == tags("a", "b")
    control.call("AddTags", ResourceArn=arn, Tags=[{"Key": "a", "Value": "new"}])
    control.call("DeleteTags", ResourceArn=arn, TagKeys=["b", "absent"])
    assert control.call("ListTags", ResourceArn=arn) == {"Tags": [{"Key": "a", "Value": "new"}]}


def test_H01_at_most_fifty_tags_and_all_of_them_in_pages(control: Control) -> None:
    control.model()
    arn = f"{BASE}:model/m"
    keys = [f"k{number:02}" for number in range(50)]
    control.call("AddTags", ResourceArn=arn, Tags=tags(*keys))
    with pytest.raises(Fault) as refused:
        control.call("AddTags", ResourceArn=arn, Tags=tags("one-more"))
    assert refused.value.code == "ResourceLimitExceeded"
    found: list[str] = []
    params: dict[str, object] = {}
    while True:
        page = control.call("ListTags", ResourceArn=arn, MaxResults=7, **params)
        found += [tag["Key"] for tag in page["Tags"]]
        if "NextToken" not in page:
            break
        params = {"NextToken": page["NextToken"]}
    assert found == keys


@pytest.mark.parametrize(
    ("arn", "words"),
    [
        ("nonsense", "Invalid ARN"),
        (f"{BASE}:model/absent", "Could not find model"),
        (f"{BASE}:pipeline/p", "Could not find resource"),
        ("arn:aws:sagemaker:us-east-1:123456789012:model/m", "Could not find model"),
        ("arn:aws:s3:::bucket", "Invalid ARN"),
    ],
)
def test_H01_tags_of_nothing_are_refused(control: Control, arn: str, words: str) -> None:
    control.model()
    with pytest.raises(Fault, match=words):
        control.call("ListTags", ResourceArn=arn)


def test_H01_tags_that_cannot_be_are_refused(control: Control) -> None:
    control.model()
    for wanted in (tags("a", "a"), tags("aws:a")):
        with pytest.raises(Fault):
            control.call("AddTags", ResourceArn=f"{BASE}:model/m", Tags=wanted)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.one_of(st.text(max_size=40), st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode())))
def test_H01_a_made_up_token_is_refused(control: Control, token: str) -> None:
    for operation in ("ListModels", "ListEndpoints"):
        if token:
            with pytest.raises(Fault, match="Invalid NextToken"):
                control.call(operation, NextToken=token)
