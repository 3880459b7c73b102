"""IAM as Terraform and people use it: what is made is shown, listed, changed and taken away, in AWS's words."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.wire.sigv4 import Credentials

ALL = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
)
READ = ALL.replace('"*", "R', '"s3:Get*", "R')
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
S3_READ = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
DEFAULT = "arn:aws:iam::123456789012:role/SageMakerExecutionRole"


def refusal(call: Any, **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        call(**params)
    error: Any = refused.value.response["Error"]
    return error["Code"], error["Message"]


def test_I01_the_default_role_is_there_trusts_sagemaker_and_cannot_be_deleted(account: Any) -> None:
    iam = account.client("iam")
    role = iam.get_role(RoleName="SageMakerExecutionRole")["Role"]
    assert role["Arn"] == DEFAULT
    principals = [statement["Principal"] for statement in role["AssumeRolePolicyDocument"]["Statement"]]
    assert {"Service": "sagemaker.amazonaws.com"} in principals
    attached = iam.list_attached_role_policies(RoleName="SageMakerExecutionRole")["AttachedPolicies"]
    assert [policy["PolicyName"] for policy in attached] == ["AdministratorAccess"]
    assert refusal(iam.delete_role, RoleName="SageMakerExecutionRole")[0] == "UnmodifiableEntity"
    account.identities.apply()
    assert len(iam.list_roles()["Roles"]) == 1


def test_I01_a_role_s_life(account: Any) -> None:
    iam = account.client("iam")
    made = iam.create_role(
        RoleName="r",
        Path="/p/",
        AssumeRolePolicyDocument=TRUST,
        Description="d",
        Tags=[{"Key": "a", "Value": "1"}],
    )["Role"]
    assert made["Arn"] == "arn:aws:iam::123456789012:role/p/r"
    assert iam.get_role(RoleName="R")["Role"] == made
    assert made["AssumeRolePolicyDocument"] == json.loads(TRUST)
    assert [r["RoleName"] for r in iam.list_roles(PathPrefix="/p/")["Roles"]] == ["r"]
    assert refusal(iam.create_role, RoleName="r", AssumeRolePolicyDocument=TRUST) == (
        "EntityAlreadyExists",
        "Role with name r already exists.",
    )
    iam.put_role_policy(RoleName="r", PolicyName="in", PolicyDocument=READ)
    iam.attach_role_policy(RoleName="r", PolicyArn=S3_READ)
    iam.attach_role_policy(RoleName="r", PolicyArn=S3_READ)
    assert iam.get_role_policy(RoleName="r", PolicyName="in")["PolicyDocument"] == json.loads(READ)
    assert iam.list_role_policies(RoleName="r")["PolicyNames"] == ["in"]
    iam.tag_role(RoleName="r", Tags=[{"Key": "b", "Value": "2"}])
    iam.untag_role(RoleName="r", TagKeys=["a"])
    assert iam.list_role_tags(RoleName="r")["Tags"] == [{"Key": "b", "Value": "2"}]
    iam.update_role(RoleName="r", Description="e", MaxSessionDuration=7200)
    changed = iam.get_role(RoleName="r")["Role"]
    assert (changed["Description"], changed["MaxSessionDuration"]) == ("e", 7200)
    assert iam.list_instance_profiles_for_role(RoleName="r")["InstanceProfiles"] == []
    assert refusal(iam.delete_role, RoleName="r") == (
        "DeleteConflict",
        "Cannot delete entity, must detach all policies first.",
    )
    iam.detach_role_policy(RoleName="r", PolicyArn=S3_READ)
    assert refusal(iam.delete_role, RoleName="r")[1] == "Cannot delete entity, must delete policies first."
    iam.delete_role_policy(RoleName="r", PolicyName="in")
    assert refusal(iam.delete_role_policy, RoleName="r", PolicyName="in") == (
        "NoSuchEntity",
        "The role policy with name in cannot be found.",
    )
    iam.delete_role(RoleName="r")
    assert refusal(iam.get_role, RoleName="r") == (
        "NoSuchEntity",
        "The role with name r cannot be found.",
    )


def test_I01_a_user_s_life(account: Any) -> None:
    iam = account.client("iam")
    made = iam.create_user(UserName="u", Tags=[{"Key": "a", "Value": "1"}])["User"]
    assert iam.get_user(UserName="u")["User"] == made
    assert refusal(iam.create_user, UserName="U")[0] == "EntityAlreadyExists"
    key = iam.create_access_key(UserName="u")["AccessKey"]
    iam.create_access_key(UserName="u")
    assert refusal(iam.create_access_key, UserName="u") == (
        "LimitExceeded",
        "Cannot exceed quota for AccessKeysPerUser: 2",
    )
    listed = iam.list_access_keys(UserName="u")["AccessKeyMetadata"]
    assert key["AccessKeyId"] in [each["AccessKeyId"] for each in listed]
    assert all("SecretAccessKey" not in each for each in listed)
    assert refusal(iam.delete_user, UserName="u")[1] == (
        "Cannot delete entity, must delete access keys first."
    )
    for each in listed:
        iam.delete_access_key(UserName="u", AccessKeyId=each["AccessKeyId"])
    assert refusal(iam.delete_access_key, UserName="u", AccessKeyId=key["AccessKeyId"])[0] == "NoSuchEntity"
    assert iam.list_groups_for_user(UserName="u")["Groups"] == []
    iam.untag_user(UserName="u", TagKeys=["a"])
    iam.tag_user(UserName="u", Tags=[{"Key": "b", "Value": "2"}])
    assert iam.list_user_tags(UserName="u")["Tags"] == [{"Key": "b", "Value": "2"}]
    iam.delete_user(UserName="u")
    assert iam.list_users()["Users"] == []


def test_I01_a_user_sees_itself_where_no_name_is_given(account: Any) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="u")
    iam.attach_user_policy(UserName="u", PolicyArn="arn:aws:iam::aws:policy/IAMFullAccess")
    key = iam.create_access_key(UserName="u")["AccessKey"]
    own = account.client("iam", Credentials(key["AccessKeyId"], key["SecretAccessKey"]))
    assert own.get_user()["User"]["UserName"] == "u"
    assert own.list_access_keys()["AccessKeyMetadata"][0]["AccessKeyId"] == key["AccessKeyId"]
    assert refusal(iam.get_user)[0] == "ValidationError"
    assert account.client("sts", Credentials(key["AccessKeyId"], key["SecretAccessKey"]))


def test_I01_managed_policies_have_versions_and_holders(account: Any) -> None:
    iam = account.client("iam")
    policy = iam.create_policy(PolicyName="p", PolicyDocument=READ, Description="d")["Policy"]
    arn = policy["Arn"]
    assert arn == "arn:aws:iam::123456789012:policy/p"
    assert refusal(iam.create_policy, PolicyName="p", PolicyDocument=READ) == (
        "EntityAlreadyExists",
        "A policy called p already exists. Duplicate names are not allowed.",
    )
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)
    iam.attach_role_policy(RoleName="r", PolicyArn=arn)
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    assert iam.list_entities_for_policy(PolicyArn=arn)["PolicyRoles"][0]["RoleName"] == "r"
    assert refusal(iam.delete_policy, PolicyArn=arn)[1] == "Cannot delete a policy attached to entities."
    assert [p["PolicyName"] for p in iam.list_policies(Scope="Local", OnlyAttached=True)["Policies"]] == ["p"]
    assert "AdministratorAccess" in [p["PolicyName"] for p in iam.list_policies(Scope="AWS")["Policies"]]

    def may_put() -> str:
        results = iam.simulate_principal_policy(
            PolicySourceArn="arn:aws:iam::123456789012:role/r", ActionNames=["s3:PutObject"]
        )["EvaluationResults"]
        return str(results[0]["EvalDecision"])

    assert may_put() == "implicitDeny"
    second = iam.create_policy_version(PolicyArn=arn, PolicyDocument=ALL, SetAsDefault=True)
    assert second["PolicyVersion"]["VersionId"] == "v2"
    assert may_put() == "allowed"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    assert may_put() == "implicitDeny"
    assert refusal(iam.delete_policy_version, PolicyArn=arn, VersionId="v1")[0] == "DeleteConflict"
    iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    assert iam.create_policy_version(PolicyArn=arn, PolicyDocument=ALL)["PolicyVersion"]["VersionId"] == "v3"
    assert [v["VersionId"] for v in iam.list_policy_versions(PolicyArn=arn)["Versions"]] == ["v3", "v1"]
    shown = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    assert (shown["Document"], shown["IsDefaultVersion"]) == (json.loads(READ), True)
    iam.detach_role_policy(RoleName="r", PolicyArn=arn)
    assert refusal(iam.delete_policy, PolicyArn=arn)[0] == "DeleteConflict"
    iam.delete_policy_version(PolicyArn=arn, VersionId="v3")
    iam.delete_policy(PolicyArn=arn)
    assert refusal(iam.get_policy, PolicyArn=arn) == ("NoSuchEntity", f"Policy {arn} was not found.")


def test_I01_what_is_no_policy_or_nobody_s_is_refused(account: Any) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="u")
    for text in ("nonsense", TRUST):
        code, _ = refusal(iam.put_user_policy, UserName="u", PolicyName="p", PolicyDocument=text)
        assert code == "MalformedPolicyDocument"
    assert refusal(iam.create_role, RoleName="r", AssumeRolePolicyDocument=ALL)[0] == (
        "MalformedPolicyDocument"
    )
    unknown = "arn:aws:iam::aws:policy/NoSuchThing"
    assert refusal(iam.attach_user_policy, UserName="u", PolicyArn=unknown) == (
        "NoSuchEntity",
        f"Policy {unknown} does not exist or is not attachable.",
    )
    assert refusal(iam.delete_policy, PolicyArn=S3_READ)[0] == "AccessDenied"
    assert refusal(iam.detach_user_policy, UserName="u", PolicyArn=S3_READ)[0] == "NoSuchEntity"


def test_I01_simulation_says_what_counts(account: Any) -> None:
    iam = account.client("iam")
    paginator = iam.get_paginator("simulate_principal_policy")
    pages = paginator.paginate(
        PolicySourceArn=DEFAULT,
        ActionNames=[f"s3:Action{n}" for n in range(7)],
        ResourceArns=["arn:aws:s3:::a", "arn:aws:s3:::b"],
        PaginationConfig={"PageSize": 5},
    )
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert len(results) == 14
    assert {result["EvalDecision"] for result in results} == {"allowed"}
    iam.create_user(UserName="u")
    conditional = json.loads(READ)
    conditional["Statement"][0]["Condition"] = {"StringEquals": {"aws:PrincipalTag/team": "a"}}
    deny = json.loads(ALL)
    deny["Statement"][0] |= {"Effect": "Deny", "Action": "s3:GetObjectAcl"}
    iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=json.dumps(conditional))
    arn = "arn:aws:iam::123456789012:user/u"

    def simulate(action: str, **more: Any) -> Any:
        found = iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=[action], **more)
        return found["EvaluationResults"][0]

    assert simulate("s3:GetObject")["EvalDecision"] == "implicitDeny"
    assert simulate("s3:GetObject")["MissingContextValues"] == ["aws:PrincipalTag/team"]
    team = {"ContextKeyName": "aws:PrincipalTag/team", "ContextKeyType": "string", "ContextKeyValues": ["a"]}
    assert simulate("s3:GetObject", ContextEntries=[team])["EvalDecision"] == "allowed"
    extra = {"ContextEntries": [team], "PolicyInputList": [json.dumps(deny)]}
    assert simulate("s3:GetObjectAcl", **extra)["EvalDecision"] == "explicitDeny"
    bounded = simulate("s3:GetObject", ContextEntries=[team], PermissionsBoundaryPolicyInputList=[
        ALL.replace('"*", "R', '"iam:*", "R')
    ])  # fmt: skip
    assert bounded["EvalDecision"] == "implicitDeny"
    assert not bounded["PermissionsBoundaryDecisionDetail"]["AllowedByPermissionsBoundary"]
    assert refusal(iam.simulate_principal_policy, PolicySourceArn=arn + "x", ActionNames=["s3:Get"])[0] == (
        "NoSuchEntity"
    )


def test_I01_a_boundary_limits_what_policies_give(account: Any) -> None:
    iam = account.client("iam")
    only_iam = ALL.replace('"*", "R', '"iam:*", "R')
    boundary = iam.create_policy(PolicyName="b", PolicyDocument=only_iam)["Policy"]["Arn"]
    made = iam.create_user(UserName="u", PermissionsBoundary=boundary)["User"]
    assert made["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
    iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=ALL)
    key = iam.create_access_key(UserName="u")["AccessKey"]
    credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
    assert account.client("iam", credentials).list_users()["Users"]
    code, message = refusal(account.client("ecr", credentials).describe_repositories)
    assert code == "AccessDeniedException"
    assert message.endswith("because no permissions boundary allows the ecr:DescribeRepositories action")
    assert refusal(iam.delete_policy, PolicyArn=boundary)[0] == "DeleteConflict"


def test_I01_paths_and_case_of_names_lead_round_no_denial(account: Any) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="boss", Path="/admins/")
    iam.create_user(UserName="u")
    deny = {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:iam::123456789012:user/admins/*"}
    document = json.loads(ALL)
    document["Statement"].append(deny)
    iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName="u")["AccessKey"]
    own = account.client("iam", Credentials(key["AccessKeyId"], key["SecretAccessKey"]))
    assert own.get_user(UserName="u")
    for name in ("boss", "BOSS"):
        assert refusal(own.create_access_key, UserName=name)[0] == "AccessDenied"


def test_I01_every_change_of_rights_is_told_to_the_gateways(account: Any) -> None:
    iam = account.client("iam")
    iam.create_user(UserName="u")
    before = len(account.announced)
    iam.create_access_key(UserName="u")
    iam.attach_user_policy(UserName="u", PolicyArn=S3_READ)
    iam.detach_user_policy(UserName="u", PolicyArn=S3_READ)
    iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=ALL)
    iam.delete_user_policy(UserName="u", PolicyName="p")
    assert len(account.announced) == before + 5


def test_I01_lists_come_in_pages(account: Any) -> None:
    iam = account.client("iam")
    for number in range(7):
        iam.create_user(UserName=f"u{number}")
    pages = list(iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 3}))
    assert [len(page["Users"]) for page in pages] == [3, 3, 1]
    assert [u["UserName"] for page in pages for u in page["Users"]] == [f"u{n}" for n in range(7)]
    assert refusal(iam.list_users, Marker="nonsense")[0] == "ValidationError"
