"""STS: how long, for whom, and what is refused by name."""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.wire.sigv4 import Credentials

DEFAULT = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"


def refusal(call: Any, **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        call(**params)
    error: Any = refused.value.response["Error"]
    return error["Code"], error["Message"]


def credentials(answer: Any) -> Credentials:
    found = answer["Credentials"]
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])


def seconds(answer: Any, before: float) -> float:
    return float(answer["Credentials"]["Expiration"].timestamp() - before)


def user(account: Any, name: str) -> Credentials:
    iam = account.client("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


@pytest.mark.parametrize(
    ("trusted", "policy", "may"),
    [
        ("arn:aws:iam::123456789012:user/u", None, True),
        ("arn:aws:iam::123456789012:user/other", None, False),
        ("123456789012", None, False),
        ("123456789012", "Allow", True),
        ("arn:aws:iam::123456789012:user/u", "Deny", False),
        ("*", None, True),
    ],
)
def test_I01_who_may_assume_a_role(account: Any, trusted: str, policy: str | None, may: bool) -> None:
    iam, key = account.client("iam"), user(account, "u")
    trust = {"Effect": "Allow", "Principal": {"AWS": trusted}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": trust})
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=document)
    if policy is not None:
        own = {"Effect": policy, "Action": "sts:AssumeRole", "Resource": "*"}
        iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=json.dumps({"Statement": own}))
    assume = account.client("sts", key).assume_role
    call = {"RoleArn": "arn:aws:iam::123456789012:role/r", "RoleSessionName": "session"}
    if may:
        assert assume(**call)["AssumedRoleUser"]["Arn"].endswith("assumed-role/r/session")
    else:
        assert refusal(assume, **call)[0] == "AccessDenied"


def test_I01_an_external_id_is_asked_for(account: Any) -> None:
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": "123456789012"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": "42"}},
    }
    account.client("iam").create_role(
        RoleName="r", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": trust})
    )
    call = {"RoleArn": "arn:aws:iam::123456789012:role/r", "RoleSessionName": "session"}
    sts = account.client("sts")
    assert refusal(sts.assume_role, **call)[0] == "AccessDenied"
    assert refusal(sts.assume_role, **call, ExternalId="41")[0] == "AccessDenied"
    assert sts.assume_role(**call, ExternalId="42")["Credentials"]


def test_I01_durations(account: Any) -> None:
    sts, before = account.client("sts"), time.time()
    call = {"RoleArn": DEFAULT, "RoleSessionName": "session"}
    assert 3598 < seconds(sts.assume_role(**call), before) < 3900
    assert 898 < seconds(sts.assume_role(**call, DurationSeconds=900), before) < 1200
    assert refusal(sts.assume_role, **call, DurationSeconds=43201)[0] == "ValidationError"
    key = user(account, "u")
    assert 43198 < seconds(account.client("sts", key).get_session_token(), before) < 43500
    assert 3598 < seconds(sts.get_session_token(), before) < 3900
    assert 3598 < seconds(sts.get_session_token(DurationSeconds=7200), before) < 3900


@pytest.mark.parametrize(
    "more",
    [
        {"Tags": [{"Key": "a", "Value": "b"}]},
        {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/AdministratorAccess"}]},
        {"SourceIdentity": "someone"},
        {"SerialNumber": "arn:aws:iam::123456789012:mfa/u", "TokenCode": "123456"},
    ],
)
def test_I01_what_sessions_cannot_carry_is_refused_by_name(account: Any, more: Any) -> None:
    code, message = refusal(
        account.client("sts").assume_role, RoleArn=DEFAULT, RoleSessionName="session", **more
    )
    assert code == "ValidationError"
    assert "is not supported by this server" in message


def test_I01_a_session_s_policy_must_be_one(account: Any) -> None:
    call = {"RoleArn": DEFAULT, "RoleSessionName": "session", "Policy": '{"a": 1}'}
    assert refusal(account.client("sts").assume_role, **call)[0] == "MalformedPolicyDocument"


def test_I01_a_session_of_a_role_is_no_root_and_loses_its_rights_with_the_role(account: Any) -> None:
    sts = account.client("sts")
    caller = credentials(sts.assume_role(RoleArn=DEFAULT, RoleSessionName="session"))
    iam = account.client("iam", caller)
    assert iam.list_users()["Users"] == []
    account.client("iam").detach_role_policy(
        RoleName="SageMakerExecutionRole", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    assert refusal(iam.list_users)[0] == "AccessDenied"
    assert account.client("iam").list_users()["Users"] == []  # the root key does not go by policies
