"""The story of keys and rights: users, roles and instances, each of which may do what its policies say and no more."""

import json
import os
import stat
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import botocore.config
import botocore.session
import pytest
from botocore.credentials import ContainerMetadataFetcher, ContainerProvider
from botocore.exceptions import ClientError

from clary.domain.principals import DEFAULT_ROLE_NAME, role_arn
from clary.links import instances
from clary.testing.server import RunningServer
from platform_models import booster_archive, create, csv, deploy, eventually, regressor, rows

ACCOUNT = "123456789012"


SESSION = botocore.session.Session()
"""One for all: each has to read the services' models for itself."""


def client(server: RunningServer, service: str, key: str, secret: str, token: str | None = None) -> Any:
    return SESSION.create_client(
        service,
        endpoint_url=server.url,
        region_name=server.settings.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


class Caller:
    """Somebody's clients."""

    def __init__(self, server: RunningServer, key: str, secret: str, token: str | None = None) -> None:
        self.server, self.key, self.secret, self.token = server, key, secret, token

    def __call__(self, service: str) -> Any:
        return client(self.server, service, self.key, self.secret, self.token)


def session(server: RunningServer, credentials: Any) -> Caller:
    return Caller(
        server, credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"]
    )


def make_user(server: RunningServer, name: str, *statements: Any, path: str = "/") -> Caller:
    iam = server.client("iam")
    iam.create_user(UserName=name, Path=path)
    if statements:
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document(*statements))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Caller(server, key["AccessKeyId"], key["SecretAccessKey"])


def document(*statements: Any) -> str:
    whole = [{"Effect": "Allow", "Resource": "*", **statement} for statement in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": whole})


def trust(**principal: str) -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def refusal(call: Any, **params: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as refused:
        call(**params)
    answer: Any = refused.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def test_I01_a_user_may_nothing_then_what_a_policy_says_then_nothing_again(server: RunningServer) -> None:
    iam = server.client("iam")
    ann = make_user(server, "ann", path="/team/")
    arn = f"arn:aws:iam::{ACCOUNT}:user/team/ann"
    assert ann("sts").get_caller_identity()["Arn"] == arn
    create_bucket = "s3:CreateBucket"
    assert refusal(ann("s3").create_bucket, Bucket="anns") == (
        "AccessDenied",
        403,
        f'User: {arn} is not authorized to perform: {create_bucket} on resource: "arn:aws:s3:::anns" '
        f"because no identity-based policy allows the {create_bucket} action",
    )
    code, status, message = refusal(ann("sagemaker").describe_endpoint, EndpointName="Any")
    assert (code, status) == ("AccessDeniedException", 403)
    assert message == (
        f"User: {arn} is not authorized to perform: sagemaker:DescribeEndpoint on resource: "
        f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/any because no identity-based policy allows the "
        "sagemaker:DescribeEndpoint action"
    )
    allow = {"Action": "s3:*", "Resource": ["arn:aws:s3:::anns", "arn:aws:s3:::anns/*"]}
    deny = {"Effect": "Deny", "Action": "s3:DeleteObject"}
    iam.put_user_policy(UserName="ann", PolicyName="own", PolicyDocument=document(allow, deny))
    ann("s3").create_bucket(Bucket="anns")
    ann("s3").put_object(Bucket="anns", Key="x", Body=b"1")
    assert ann("s3").get_object(Bucket="anns", Key="x")["Body"].read() == b"1"
    assert refusal(ann("s3").put_object, Bucket="other", Key="x", Body=b"1")[0] == "AccessDenied"
    assert (
        "with an explicit deny in an identity-based policy"
        in refusal(ann("s3").delete_object, Bucket="anns", Key="x")[2]
    )
    assert refusal(ann("iam").create_access_key, UserName="ann")[0] == "AccessDenied"
    iam.delete_user_policy(UserName="ann", PolicyName="own")
    assert refusal(ann("s3").get_object, Bucket="anns", Key="x")[0] == "AccessDenied"


def test_I01_a_key_answers_when_it_is_made_and_never_after_it_is_gone(server: RunningServer) -> None:
    iam = server.client("iam")
    iam.create_user(UserName="short")
    for _ in range(20):  # every gateway, by chance
        key = iam.create_access_key(UserName="short")["AccessKey"]
        short = Caller(server, key["AccessKeyId"], key["SecretAccessKey"])
        assert [short("sts").get_caller_identity()["Account"] for _ in range(4)] == [ACCOUNT] * 4
        iam.delete_access_key(UserName="short", AccessKeyId=key["AccessKeyId"])
        assert {refusal(short("sts").get_caller_identity)[0] for _ in range(4)} == {"InvalidClientTokenId"}
    key = iam.create_access_key(UserName="short")["AccessKey"]
    short = Caller(server, key["AccessKeyId"], key["SecretAccessKey"])
    iam.update_access_key(UserName="short", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert refusal(short("sts").get_caller_identity)[0] == "InvalidClientTokenId"
    iam.update_access_key(UserName="short", AccessKeyId=key["AccessKeyId"], Status="Active")
    assert short("sts").get_caller_identity()["Account"] == ACCOUNT


def test_I01_a_role_is_assumed_by_whom_it_trusts_and_narrowed_by_the_session(server: RunningServer) -> None:
    iam = server.client("iam")
    role = f"arn:aws:iam::{ACCOUNT}:role/apps/reader"
    carl = make_user(server, "carl")
    iam.create_role(
        RoleName="reader", Path="/apps/", AssumeRolePolicyDocument=trust(AWS=f"arn:aws:iam::{ACCOUNT}:root")
    )
    iam.attach_role_policy(RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    denied = (
        "AccessDenied",
        403,
        f"User: arn:aws:iam::{ACCOUNT}:user/carl is not authorized to perform: sts:AssumeRole on resource: {role}",
    )
    assert refusal(carl("sts").assume_role, RoleArn=role, RoleSessionName="s1") == denied
    iam.put_user_policy(
        UserName="carl",
        PolicyName="own",
        PolicyDocument=document({"Action": "sts:AssumeRole", "Resource": role}),
    )
    assumed = carl("sts").assume_role(RoleArn=role, RoleSessionName="s1")
    assert assumed["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/s1"
    reader = session(server, assumed["Credentials"])
    identity = reader("sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/s1"
    assert identity["UserId"] == assumed["AssumedRoleUser"]["AssumedRoleId"]
    assert "Buckets" in reader("s3").list_buckets()
    assert refusal(reader("s3").create_bucket, Bucket="readers")[0] == "AccessDenied"
    assert (
        refusal(reader("sts").get_session_token)[2] == "Cannot call GetSessionToken with session credentials"
    )

    narrowed = carl("sts").assume_role(
        RoleArn=role, RoleSessionName="s2", Policy=document({"Action": "sagemaker:*"})
    )
    code, _, message = refusal(session(server, narrowed["Credentials"])("s3").list_buckets)
    assert code == "AccessDenied"
    assert "no session policy allows the s3:ListAllMyBuckets action" in message

    assert (
        "MaxSessionDuration"
        in refusal(carl("sts").assume_role, RoleArn=role, RoleSessionName="s3", DurationSeconds=7200)[2]
    )
    iam.update_role(RoleName="reader", MaxSessionDuration=7200)
    assert carl("sts").assume_role(RoleArn=role, RoleSessionName="s3", DurationSeconds=7200)
    iam.update_assume_role_policy(RoleName="reader", PolicyDocument=trust(Service="lambda.amazonaws.com"))
    assert refusal(carl("sts").assume_role, RoleArn=role, RoleSessionName="s1") == denied
    iam.detach_role_policy(RoleName="reader", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    assert refusal(reader("s3").list_buckets)[0] == "AccessDenied"
    iam.delete_role(RoleName="reader")
    assert refusal(server.client("sts").assume_role, RoleArn=role, RoleSessionName="s1")[0] == "AccessDenied"


def test_I01_the_default_role_is_assumed_chained_for_an_hour_at_most(server: RunningServer) -> None:
    default = role_arn(ACCOUNT)
    assumed = server.client("sts").assume_role(
        RoleArn=default, RoleSessionName="chain", DurationSeconds=43200
    )
    caller = session(server, assumed["Credentials"])
    assert caller("sagemaker").list_endpoints()["Endpoints"] is not None
    again = caller("sts").assume_role(RoleArn=default, RoleSessionName="chain2")
    assert session(server, again["Credentials"])("s3").list_buckets()["Buckets"] is not None
    code, _, message = refusal(
        caller("sts").assume_role, RoleArn=default, RoleSessionName="chain2", DurationSeconds=3601
    )
    assert (code, message) == (
        "ValidationError",
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
    )


def test_I01_session_tokens_mean_what_the_key_means(server: RunningServer) -> None:
    dora = make_user(server, "dora", {"Action": "s3:ListAllMyBuckets"})
    caller = session(server, dora("sts").get_session_token(DurationSeconds=900)["Credentials"])
    assert caller("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/dora"
    assert "Buckets" in caller("s3").list_buckets()
    assert refusal(caller("sagemaker").list_models)[0] == "AccessDeniedException"
    root = session(server, server.client("sts").get_session_token()["Credentials"])
    assert "Users" in root("iam").list_users()


def test_I01_invoking_needs_its_own_right(server: RunningServer) -> None:
    deploy(server, "guarded", regressor())
    arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/guarded"
    eve = make_user(server, "eve", {"Action": "sagemaker:InvokeEndpoint", "Resource": arn})
    call = {"EndpointName": "guarded", "ContentType": "text/csv", "Body": csv(rows(1))}
    assert eve("sagemaker-runtime").invoke_endpoint(**call)["Body"].read()
    code, status, message = refusal(
        eve("sagemaker-runtime").invoke_endpoint, **{**call, "EndpointName": "other"}
    )
    assert (code, status) == ("AccessDeniedException", 403)
    assert "sagemaker:InvokeEndpoint on resource" in message
    assert refusal(eve("sagemaker-runtime").invoke_endpoint_with_response_stream, **call)[0] == (
        "AccessDeniedException"
    )
    server.client("iam").delete_user_policy(UserName="eve", PolicyName="own")
    assert refusal(eve("sagemaker-runtime").invoke_endpoint, **call)[0] == "AccessDeniedException"


def test_I01_handing_over_a_role_needs_the_right_to_pass_it(server: RunningServer) -> None:
    create(server, "passing", booster_archive(regressor()))
    described = server.client("sagemaker").describe_model(ModelName="passing")
    wanted = {"ModelName": "passing2", "PrimaryContainer": described["PrimaryContainer"]}
    default = role_arn(ACCOUNT)
    fay = make_user(server, "fay", {"Action": "sagemaker:*"})
    code, _, message = refusal(fay("sagemaker").create_model, **wanted, ExecutionRoleArn=default)
    assert code == "AccessDeniedException"
    assert f"iam:PassRole on resource: {default}" in message
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    allow = document({"Action": "sagemaker:*"}, {"Action": "iam:PassRole", "Condition": condition})
    server.client("iam").put_user_policy(UserName="fay", PolicyName="own", PolicyDocument=allow)
    assert fay("sagemaker").create_model(**wanted, ExecutionRoleArn=default)["ModelArn"]


def test_I01_H01_an_instance_has_its_role_s_credentials(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(server, "roled", regressor())
    directory, environment = _instance_of(server, "roled")
    token = _token_file(directory, environment)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        patch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
        fetcher: Any = ContainerMetadataFetcher()
        found: Any = ContainerProvider(fetcher=fetcher).load()
        frozen = found.get_frozen_credentials()
    inside = Caller(server, frozen.access_key, frozen.secret_key, frozen.token)
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{DEFAULT_ROLE_NAME}/SageMaker"
    assert inside("sts").get_caller_identity()["Arn"] == arn
    assert "Buckets" in inside("s3").list_buckets()

    url = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    assert _fetch(url, token.read_text())[0] == 200
    for wrong in ("", "x.y", token.read_text()[:-2] + "AA", "\u00e9"):
        assert _fetch(url, wrong)[0] == 403
    kept = token.read_text()
    server.client("sagemaker").delete_endpoint(EndpointName="roled")
    eventually(lambda: not directory.exists(), "the instance to go")
    assert _fetch(url, kept)[0] == 403


def test_I01_roles_that_are_not_kept_or_do_not_trust_give_an_instance_nothing(server: RunningServer) -> None:
    iam = server.client("iam")
    iam.create_role(RoleName="exec", AssumeRolePolicyDocument=trust(Service="lambda.amazonaws.com"))
    create(server, "exec", booster_archive(regressor()))
    described = server.client("sagemaker").describe_endpoint(EndpointName="exec")
    model = server.client("sagemaker").describe_model(ModelName="exec")
    sagemaker = server.client("sagemaker")
    role = f"arn:aws:iam::{ACCOUNT}:role/exec"
    sagemaker.create_model(
        ModelName="exec2", PrimaryContainer=model["PrimaryContainer"], ExecutionRoleArn=role
    )
    assert described["EndpointName"] == "exec"
    sagemaker.create_endpoint_config(
        EndpointConfigName="exec2",
        ProductionVariants=[
            {
                "VariantName": "v",
                "ModelName": "exec2",
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
            }
        ],
    )
    sagemaker.create_endpoint(EndpointName="exec2", EndpointConfigName="exec2")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="exec2", WaiterConfig={"Delay": 1})
    directory, environment = _instance_of(server, "exec2")
    url = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    token = _token_file(directory, environment).read_text()
    status, answer = _fetch(url, token)
    assert status == 403
    assert answer["message"].startswith(f"Could not assume role {role}.")
    iam.update_assume_role_policy(RoleName="exec", PolicyDocument=trust(Service="sagemaker.amazonaws.com"))
    status, answer = _fetch(url, token)
    assert (status, answer["RoleArn"]) == (200, role)
    caller = Caller(server, answer["AccessKeyId"], answer["SecretAccessKey"], answer["Token"])
    assert refusal(caller("s3").list_buckets)[0] == "AccessDenied"


def test_I01_identities_survive_a_restart_and_credentials_come_with_control_dead(place: Path) -> None:
    with RunningServer(place / "d") as server:
        gil = make_user(server, "gil", {"Action": "s3:ListAllMyBuckets"})
        deploy(server, "alone", regressor())
        directory, environment = _instance_of(server, "alone")
        token = _token_file(directory, environment).read_text()
        supervisor, control = server.supervisor, server.process("control")
        assert control is not None
        os.kill(supervisor.pid, 9)
        os.kill(control.pid, 9)
        assert _fetch(environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"], token)[0] == 200
        server.stop()
        server.start()
        gil.server = server
        assert "Buckets" in gil("s3").list_buckets()
        assert refusal(gil("s3").create_bucket, Bucket="gils")[0] == "AccessDenied"
        file = server.settings.keys_dir / "identities.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_I01_reset_forgets_users_and_keeps_the_default_role() -> None:
    with RunningServer(None, "--ephemeral", "--gateways", "1") as server:
        hal = make_user(server, "hal", {"Action": "*"})
        assert hal("iam").get_user()["User"]["UserName"] == "hal"
        server.running.client().admin("POST", "/_clary/reset")
        assert refusal(hal("sts").get_caller_identity)[0] == "InvalidClientTokenId"
        assert server.client("iam").list_users()["Users"] == []
        assert server.client("iam").get_role(RoleName=DEFAULT_ROLE_NAME)["Role"]["Arn"] == role_arn(ACCOUNT)


def _instance_of(server: RunningServer, endpoint: str) -> tuple[Path, dict[str, str]]:
    """The directory and environment of an endpoint's one instance."""
    for directory in server.settings.instances_dir.iterdir():
        spec = instances.read_spec(directory)
        if spec is not None and spec.log.group.endswith(f"/{endpoint}"):
            launch = instances.read(directory, instances.LAUNCH, instances.Launch)
            assert launch is not None
            return directory, launch.environment
    raise AssertionError(f"endpoint {endpoint} has no instance")


def _token_file(directory: Path, environment: dict[str, str]) -> Path:
    """Where the instance's token lies, seen from outside of its sandbox."""
    named = Path(environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
    return named if named.is_relative_to(directory) else directory / named.relative_to("/")


def _fetch(url: str, token: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers={"Authorization": token})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
