"""Filter policies of subscriptions, and when a notice is sent again."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.notice_filters import BadFilter, FilterNotBuilt, accepts, parse_filter
from clary.domain.notice_retries import BadPolicy, PolicyNotBuilt, RetryPolicy, delays, parse_policy
from clary.domain.notices import Attribute

ATTRIBUTES = {
    "state": Attribute("String", "ALARM"),
    "count": Attribute("Number", "7.50"),
    "zones": Attribute("String.Array", '["a", "b", 3, true]'),
    "blob": Attribute("Binary", "AAAA"),
}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, True),
        ({"state": ["ALARM"]}, True),
        ({"state": ["OK", "ALARM"]}, True),
        ({"state": ["alarm"]}, False),
        ({"state": [{"prefix": "AL"}]}, True),
        ({"state": [{"anything-but": ["OK"]}]}, True),
        ({"state": [{"anything-but": "ALARM"}]}, False),
        ({"state": [{"anything-but": {"prefix": "AL"}}]}, False),
        ({"count": [7.5]}, True),
        ({"count": ["7.5"]}, False),
        ({"count": [{"numeric": [">", 7, "<=", 7.5]}]}, True),
        ({"count": [{"numeric": ["<", 7]}]}, False),
        ({"state": [{"numeric": ["=", 7]}]}, False),
        ({"zones": ["b"]}, True),
        ({"zones": ["c"]}, False),
        ({"zones": [3]}, True),
        ({"zones": [True]}, True),
        ({"blob": ["AAAA"]}, False),
        ({"blob": [{"exists": True}]}, True),
        ({"gone": [{"exists": False}]}, True),
        ({"gone": [{"anything-but": ["x"]}]}, False),
        ({"state": [{"exists": False}]}, False),
        ({"state": ["ALARM"], "count": [1]}, False),
    ],
)
def test_L03_a_filter_lets_pass_what_matches(policy: dict[str, Any], expected: bool) -> None:
    assert accepts(parse_filter(json.dumps(policy)), ATTRIBUTES) is expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("no json", BadFilter),
        ("[]", BadFilter),
        ('{"a": "x"}', BadFilter),
        ('{"a": []}', BadFilter),
        ('{"a": {"b": ["x"]}}', BadFilter),
        ('{"a": [{"starts": "x"}]}', BadFilter),
        ('{"a": [{"exists": "yes"}]}', BadFilter),
        ('{"a": [{"prefix": 1}]}', BadFilter),
        ('{"a": [{"numeric": [">"]}]}', BadFilter),
        ('{"a": [{"numeric": ["~", 1]}]}', BadFilter),
        ('{"a": [{"numeric": [">", "1"]}]}', BadFilter),
        ('{"a": [{"prefix": "x", "exists": true}]}', BadFilter),
        ('{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}', BadFilter),
        (json.dumps({key: list(range(13)) for key in "ab"}), BadFilter),
        ('{"a": [{"suffix": "x"}]}', FilterNotBuilt),
        ('{"a": [{"cidr": "10.0.0.0/8"}]}', FilterNotBuilt),
        ('{"$or": [{"a": [1]}]}', FilterNotBuilt),
        ('{"a": [{"anything-but": {"suffix": "x"}}]}', FilterNotBuilt),
    ],
)
def test_L03_a_filter_that_cannot_be_used_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        parse_filter(text)
    assert type(caught.value) is error


def test_L03_retries_come_in_four_phases() -> None:
    assert delays(parse_policy("")) == [20, 20, 20]
    policy = {
        "minDelayTarget": 1,
        "maxDelayTarget": 9,
        "numRetries": 8,
        "numNoDelayRetries": 2,
        "numMinDelayRetries": 1,
        "numMaxDelayRetries": 2,
    }
    assert delays(parse_policy(json.dumps({"healthyRetryPolicy": policy}))) == [0, 0, 1, 1, 5, 9, 9, 9]


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ({"throttlePolicy": {"maxReceivesPerSecond": 1}}, PolicyNotBuilt),
        ({"healthyRetryPolicy": {"numRetries": 101}}, BadPolicy),
        ({"healthyRetryPolicy": {"minDelayTarget": 30}}, BadPolicy),
        ({"healthyRetryPolicy": {"numNoDelayRetries": 4}}, BadPolicy),
        ({"healthyRetryPolicy": {"numRetries": 100, "maxDelayTarget": 3600}}, BadPolicy),
        ({"healthyRetryPolicy": {"backoffFunction": "random"}}, BadPolicy),
        ({"healthyRetryPolicy": {"numRetries": True}}, BadPolicy),
        ({"healthyRetryPolicy": {"often": 1}}, BadPolicy),
        ([], BadPolicy),
    ],
)
def test_L03_a_delivery_policy_that_cannot_be_used_is_refused(policy: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        parse_policy(json.dumps(policy))
    assert type(caught.value) is error


@settings(max_examples=80)
@given(
    st.integers(0, 20),
    st.integers(1, 60),
    st.integers(0, 60),
    st.sampled_from(["linear", "arithmetic", "geometric", "exponential"]),
)
def test_L03_the_delay_never_shrinks_nor_leaves_its_bounds(
    retries: int, least: int, more: int, shape: str
) -> None:
    found = delays(RetryPolicy(least, least + more, retries, backoffFunction=shape))
    assert len(found) == retries
    assert found == sorted(found)
    assert all(least <= delay <= least + more + 1e-9 for delay in found)
