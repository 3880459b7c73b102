"""What policies say: effects, wildcards, conditions, and that an explicit denial always wins."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.conditions import matches
from clary.domain.policies import MalformedPolicy, Policy, Request, context_keys, decide, parse_policy, trusts

BUCKET = "arn:aws:s3:::data"
ROWS = f"{BUCKET}/2026/rows.csv"


def policy(*statements: Mapping[str, Any], version: str = "2012-10-17") -> Policy:
    whole = [{"Effect": "Allow", "Resource": "*", **s} for s in statements]
    for statement in whole:
        if "NotResource" in statement:
            del statement["Resource"]
    return parse_policy(json.dumps({"Version": version, "Statement": whole}))


def under(condition: Mapping[str, Any], **context: str | tuple[str, ...]) -> bool:
    """Whether an Allow with this condition counts; `aws_username` stands for the key `aws:username`."""
    known = {k.replace("_", ":", 1).lower(): (v,) if isinstance(v, str) else v for k, v in context.items()}
    found = policy({"Action": "s3:GetObject", "Condition": condition})
    return decide([found], Request("s3:GetObject", ROWS, known)) == "allowed"


@pytest.mark.parametrize(
    ("statement", "action", "resource", "expected"),
    [
        ({"Action": "s3:GetObject"}, "s3:GetObject", ROWS, "allowed"),
        ({"Action": "S3:getobject"}, "s3:GetObject", ROWS, "allowed"),
        ({"Action": "s3:*"}, "s3:GetObject", ROWS, "allowed"),
        ({"Action": "s3:Get*"}, "s3:PutObject", ROWS, "implicitDeny"),
        ({"Action": "s3:?etObject"}, "s3:GetObject", ROWS, "allowed"),
        ({"Action": "*"}, "iam:CreateUser", "*", "allowed"),
        ({"Action": ["s3:PutObject", "s3:GetObject"]}, "s3:GetObject", ROWS, "allowed"),
        ({"NotAction": "iam:*"}, "s3:GetObject", ROWS, "allowed"),
        ({"NotAction": "s3:*"}, "s3:GetObject", ROWS, "implicitDeny"),
        ({"Action": "s3:*", "Resource": f"{BUCKET}/*"}, "s3:GetObject", ROWS, "allowed"),
        ({"Action": "s3:*", "Resource": BUCKET}, "s3:GetObject", ROWS, "implicitDeny"),
        ({"Action": "s3:*", "Resource": f"{BUCKET}/2026*csv"}, "s3:GetObject", ROWS, "allowed"),
        ({"Action": "s3:*", "Resource": f"{BUCKET.upper()}/*"}, "s3:GetObject", ROWS, "implicitDeny"),
        ({"Action": "s3:*", "NotResource": f"{BUCKET}/*"}, "s3:GetObject", ROWS, "implicitDeny"),
        ({"Action": "s3:*", "NotResource": "arn:aws:s3:::other/*"}, "s3:GetObject", ROWS, "allowed"),
        ({"Action": "s3:*", "Effect": "Deny"}, "s3:GetObject", ROWS, "explicitDeny"),
        ({"Action": "sagemaker:*"}, "s3:GetObject", ROWS, "implicitDeny"),
        ({"Action": "s3:Get.bject"}, "s3:GetObject", ROWS, "implicitDeny"),
    ],
)
def test_I01_one_statement_decides(
    statement: Mapping[str, Any], action: str, resource: str, expected: str
) -> None:
    assert decide([policy(statement)], Request(action, resource)) == expected


def test_I01_nothing_that_matches_is_an_implicit_denial() -> None:
    assert decide([], Request("s3:GetObject", ROWS)) == "implicitDeny"


_STATEMENTS = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Action": st.sampled_from(["*", "s3:*", "s3:Get*", "s3:PutObject", "iam:*"]),
        "Resource": st.sampled_from(["*", f"{BUCKET}/*", BUCKET, "arn:aws:s3:::other/*"]),
    }
)


@settings(max_examples=100)
@given(st.lists(st.lists(_STATEMENTS, min_size=1, max_size=3), max_size=4), st.randoms())
def test_I01_an_explicit_denial_wins_and_order_says_nothing(documents: Any, random: Any) -> None:
    request = Request("s3:GetObject", ROWS)
    alone = [decide([policy(statement)], request) for document in documents for statement in document]
    expected = (
        "explicitDeny" if "explicitDeny" in alone else "allowed" if "allowed" in alone else "implicitDeny"
    )
    assert decide([policy(*document) for document in documents], request) == expected
    random.shuffle(documents)
    assert decide([policy(*document) for document in documents], request) == expected


@settings(max_examples=200)
@given(st.text(alphabet="ab/:*?.[(", max_size=12))
def test_I01_a_text_without_wildcards_matches_itself_only(text: str) -> None:
    literal = text.replace("*", "x").replace("?", "y")
    assert matches(literal, literal)
    assert not matches(literal, literal + "!")
    assert matches("*", text)
    assert matches(text, text)
    assert matches("?" * len(text), text)
    assert not matches("?" * (len(text) + 1), text)


@pytest.mark.parametrize(
    ("condition", "context", "expected"),
    [
        ({"StringEquals": {"aws:username": "ann"}}, {"aws_username": "ann"}, True),
        ({"StringEquals": {"aws:username": "ann"}}, {"aws_username": "Ann"}, False),
        ({"StringEquals": {"aws:username": ["bob", "ann"]}}, {"aws_username": "ann"}, True),
        ({"StringEquals": {"aws:username": "ann"}}, {}, False),
        ({"StringEqualsIfExists": {"aws:username": "ann"}}, {}, True),
        ({"StringNotEquals": {"aws:username": ["bob", "ann"]}}, {"aws_username": "ann"}, False),
        ({"StringNotEquals": {"aws:username": ["bob"]}}, {}, True),
        ({"StringEqualsIgnoreCase": {"aws:username": "ann"}}, {"aws_username": "ANN"}, True),
        ({"StringLike": {"aws:username": "a*"}}, {"aws_username": "ann"}, True),
        ({"StringNotLike": {"aws:username": "a*"}}, {"aws_username": "ann"}, False),
        ({"NumericLessThan": {"s3:max-keys": 10}}, {"s3_max-keys": "9"}, True),
        ({"NumericLessThan": {"s3:max-keys": "10"}}, {"s3_max-keys": "ten"}, False),
        ({"NumericGreaterThanEquals": {"s3:max-keys": "10"}}, {"s3_max-keys": "10"}, True),
        (
            {"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}},
            {"aws_CurrentTime": "2026-02-01T00:00:00Z"},
            True,
        ),
        ({"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}, {"aws_CurrentTime": "2026-02-01T00:00:00Z"}, False),
        ({"Bool": {"aws:SecureTransport": True}}, {"aws_SecureTransport": "false"}, False),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws_SecureTransport": "false"}, True),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {"aws_SourceIp": "127.0.0.1"}, True),
        ({"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {"aws_SourceIp": "127.0.0.1"}, False),
        (
            {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/a*"}},
            {"aws_PrincipalArn": "arn:aws:iam::1:role/ab"},
            True,
        ),
        ({"Null": {"aws:TokenIssueTime": "true"}}, {}, True),
        ({"Null": {"aws:username": "true"}}, {"aws_username": "ann"}, False),
        ({"Null": {"aws:username": "false"}}, {"aws_username": "ann"}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws_TagKeys": ("a", "b")}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws_TagKeys": ("a", "c")}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {"aws_TagKeys": ("c", "a")}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {}, False),
        (
            {"StringEquals": {"aws:username": "ann"}, "Bool": {"aws:SecureTransport": "true"}},
            {"aws_username": "ann", "aws_SecureTransport": "false"},
            False,
        ),
    ],
)  # fmt: skip
def test_I01_conditions(condition: Mapping[str, Any], context: Any, expected: bool) -> None:
    assert under(condition, **context) is expected


def test_I01_variables_stand_for_the_caller_and_their_wildcards_mean_nothing() -> None:
    own = {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::home/${aws:username}/*"}

    def decision(name: str, key: str, version: str = "2012-10-17") -> str:
        request = Request("s3:GetObject", f"arn:aws:s3:::home/{key}", {"aws:username": (name,)})
        return decide([policy(own, version=version)], request)

    assert decision("ann", "ann/x") == "allowed"
    assert decision("ann", "bob/x") == "implicitDeny"
    assert decision("*", "bob/x") == "implicitDeny"
    assert decision("*", "*/x") == "allowed"
    assert decision("ann", "ann/x", version="2008-10-17") == "implicitDeny"
    assert decide([policy(own)], Request("s3:GetObject", "arn:aws:s3:::home//x")) == "implicitDeny"


def test_I01_what_cannot_be_known_gives_no_right_and_takes_none_back() -> None:
    condition = {"Condition": {"StringNotEquals": {"aws:ResourceTag/team": "a"}}}
    request = Request("s3:GetObject", ROWS, knows=lambda key: not key.startswith("aws:resourcetag/"))
    allow = policy({"Action": "*", **condition})
    deny = policy({"Action": "*"}, {"Action": "*", "Effect": "Deny", **condition})
    assert decide([allow], request) == "implicitDeny"
    assert decide([deny], request) == "explicitDeny"
    assert context_keys([allow]) == {"aws:ResourceTag/team"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"Statement": []}',
        '{"Version": "2020-01-01", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}',
        '{"Statement": {"Effect": "allow", "Action": "*", "Resource": "*"}}',
        '{"Statement": {"Effect": "Allow", "Resource": "*"}}',
        '{"Statement": {"Effect": "Allow", "Action": "*"}}',
        '{"Statement": {"Effect": "Allow", "Action": "GetObject", "Resource": "*"}}',
        '{"Statement": {"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}}',
        '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}}',
        '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Extra": 1}}',
        '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Like": {"a": "b"}}}}',
        '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": "b"}}}',
        '{"Statement": {"Effect": "Allow", "Action": [1], "Resource": "*"}}',
        "[" * 100_000,
    ],
)
def test_I01_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(MalformedPolicy):
        parse_policy(text)


@settings(max_examples=200)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["Version", "Statement", "Effect", "Action", "Resource", "Condition", "Principal", "x"]),
        inner | st.sampled_from(["Allow", "Deny", "s3:*", "*"]),
        max_size=4,
    ),
    max_leaves=12,
))  # fmt: skip
def test_I01_any_json_is_a_policy_or_is_refused(value: Any) -> None:
    for kind in ("identity", "trust"):
        try:
            found = parse_policy(json.dumps(value), kind)
        except MalformedPolicy:
            continue
        assert decide([found], Request("s3:GetObject", ROWS)) in ("allowed", "explicitDeny", "implicitDeny")


ROOT = ("AWS", "arn:aws:iam::123456789012:root")
ANN = ("AWS", "arn:aws:iam::123456789012:user/ann")


@pytest.mark.parametrize(
    ("principal", "callers", "expected"),
    [
        ({"Service": "sagemaker.amazonaws.com"}, [("Service", "sagemaker.amazonaws.com")], True),
        ({"Service": ["a.amazonaws.com", "sagemaker.amazonaws.com"]}, [("Service", "sagemaker.amazonaws.com")], True),
        ({"Service": "lambda.amazonaws.com"}, [("Service", "sagemaker.amazonaws.com")], False),
        ({"AWS": "123456789012"}, [ROOT], True),
        ({"AWS": ROOT[1]}, [ANN, ROOT], True),
        ({"AWS": ANN[1]}, [ROOT], False),
        ({"AWS": "*"}, [ANN], True),
        ({"AWS": "*"}, [("Service", "sagemaker.amazonaws.com")], False),
        ("*", [ANN], True),
    ],
)  # fmt: skip
def test_I01_trust_policies_name_who_may(principal: Any, callers: Any, expected: bool) -> None:
    document = {"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}}
    request = Request("sts:AssumeRole", "arn:aws:iam::123456789012:role/r")
    assert trusts(parse_policy(json.dumps(document), "trust"), callers, request) is expected


def test_I01_a_trust_policy_may_deny_and_ask_for_an_external_id() -> None:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": "42"}},
    }
    document = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}), "trust")
    denial = {"Effect": "Deny", "Principal": {"AWS": ANN[1]}, "Action": "sts:AssumeRole"}
    denying = parse_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement, denial]}), "trust")
    request = Request("sts:AssumeRole", "arn:aws:iam::123456789012:role/r", {"sts:externalid": ("42",)})
    assert trusts(document, [ANN], request)
    assert not trusts(document, [ANN], Request("sts:AssumeRole", request.resource))
    assert not trusts(denying, [ANN], request)
