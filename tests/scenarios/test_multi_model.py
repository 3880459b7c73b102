"""The story of a multi-model endpoint: thousands of models may stand behind it; here a handful come and go."""

import datetime
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL
from typing import Any

import botocore.session
import pytest
import xgboost
from botocore.exceptions import ClientError

from clary.host import limits
from clary.links import processes
from clary.links.hosts import HostClient, ListModels, ModelStatus
from clary.links.instances import minder_of
from clary.testing.server import RunningServer
from platform_models import (
    BUCKET,
    IMAGE,
    PATIENCE_S,
    ROLE,
    archive,
    booster_archive,
    csv,
    eventually,
    numbers,
    predictions,
    regressor,
    rows,
    upload,
    wait_for_status,
)

FEATURES = rows(3)


def put(server: RunningServer, endpoint: str, model: str, seed: int) -> xgboost.Booster:
    booster = regressor(seed)
    upload(server, f"{endpoint}/{model}", booster_archive(booster))
    return booster


def create(
    server: RunningServer,
    name: str,
    prefix: str = "",
    *,
    environment: dict[str, str] | None = None,
    instances: int = 1,
    **more: Any,
) -> str:
    """Model and configuration of a multi-model endpoint; the endpoint's name, which they share."""
    server.client("s3").create_bucket(Bucket=BUCKET)
    container = {
        "Image": IMAGE,
        "Mode": "MultiModel",
        "ModelDataUrl": f"s3://{BUCKET}/{prefix or name}/",
        "Environment": environment or {},
        **more,
    }
    sagemaker = server.client("sagemaker")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": instances,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    return name


def deploy(server: RunningServer, name: str, prefix: str = "", **more: Any) -> str:
    create(server, name, prefix, **more)
    server.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_for_status(server, name, "InService")
    return name


def predict(server: RunningServer, endpoint: str, model: str) -> list[float]:
    answer = server.client("sagemaker-runtime", max_pool_connections=64).invoke_endpoint(
        EndpointName=endpoint, TargetModel=model, ContentType="text/csv", Body=csv(FEATURES)
    )
    return numbers(answer["Body"].read())


def refusal(server: RunningServer, endpoint: str, **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        server.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=endpoint, ContentType="text/csv", Body=csv(FEATURES), **members
        )
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def is_of(booster: xgboost.Booster, answer: list[float]) -> bool:
    return answer == pytest.approx(predictions(booster, FEATURES), rel=1e-5)


@pytest.fixture(scope="module")
def flats(server: RunningServer) -> Iterator[tuple[str, dict[str, xgboost.Booster]]]:
    boosters = {f"{city}.tar.gz": put(server, "flats", f"{city}.tar.gz", n) for n, city in enumerate("abc")}
    yield deploy(server, "flats"), boosters
    server.client("sagemaker").delete_endpoint(EndpointName="flats")


def test_M01_M03_models_are_called_by_name_added_and_deleted_while_it_serves(
    server: RunningServer, flats: tuple[str, dict[str, xgboost.Booster]]
) -> None:
    endpoint, boosters = flats
    described = server.client("sagemaker").describe_model(ModelName=endpoint)["PrimaryContainer"]
    assert (described["Mode"], described["ModelDataUrl"]) == ("MultiModel", f"s3://{BUCKET}/flats/")
    for _ in range(2):
        assert all(is_of(booster, predict(server, endpoint, model)) for model, booster in boosters.items())
    code, message = refusal(server, endpoint, TargetModel="new/d.tar.gz")
    assert code == "ValidationError"
    assert message.startswith("Failed to download model data")
    added = put(server, "flats", "new/d.tar.gz", 9)
    assert is_of(added, predict(server, endpoint, "new/d.tar.gz"))
    server.client("s3").delete_object(Bucket=BUCKET, Key="flats/new/d.tar.gz")
    assert is_of(added, predict(server, endpoint, "new/d.tar.gz"))  # what is loaded goes on answering
    code, message = refusal(server, endpoint)
    assert code == "ValidationError"
    assert message.endswith("is missing a target model header.")
    assert refusal(server, endpoint, TargetModel="../flats/a.tar.gz")[0] == "ValidationError"


def test_I01_a_policy_says_who_calls_which_model(
    server: RunningServer, flats: tuple[str, dict[str, xgboost.Booster]]
) -> None:
    endpoint, boosters = flats
    allowed = {
        "Effect": "Allow",
        "Action": "sagemaker:InvokeEndpoint",
        "Resource": "*",
        "Condition": {"StringEquals": {"sagemaker:TargetModel": "a.tar.gz"}},
    }
    iam = server.client("iam")
    iam.create_user(UserName="flat-a")
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="flat-a", PolicyName="own", PolicyDocument=document)
    key = iam.create_access_key(UserName="flat-a")["AccessKey"]
    runtime: Any = botocore.session.Session().create_client(
        "sagemaker-runtime",
        endpoint_url=server.url,
        region_name=server.settings.region,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )

    def call(model: str) -> list[float]:
        answer = runtime.invoke_endpoint(
            EndpointName=endpoint, TargetModel=model, ContentType="text/csv", Body=csv(FEATURES)
        )
        return numbers(answer["Body"].read())

    assert is_of(boosters["a.tar.gz"], call("a.tar.gz"))
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:InvokeEndpoint"):
        call("b.tar.gz")
    runtime.close()


def test_M02_a_model_that_cannot_be_loaded_harms_no_other(
    server: RunningServer, flats: tuple[str, dict[str, xgboost.Booster]]
) -> None:
    endpoint, boosters = flats
    upload(server, "flats/broken.tar.gz", archive({"xgboost-model": b"this is no model"}))
    upload(server, "flats/text.tar.gz", b"this is no archive")
    for model in ("broken.tar.gz", "text.tar.gz"):
        assert refusal(server, endpoint, TargetModel=model)[0] == "ModelError"
    assert is_of(boosters["a.tar.gz"], predict(server, endpoint, "a.tar.gz"))
    put(server, "flats", "broken.tar.gz", 5)
    assert is_of(regressor(5), predict(server, endpoint, "broken.tar.gz"))


def test_M02_M04_many_first_calls_are_one_load_and_the_metrics_say_so(server: RunningServer) -> None:
    booster = put(server, "crowd", "cold.tar.gz", 3)
    endpoint = deploy(server, "crowd")
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda _: predict(server, endpoint, "cold.tar.gz"), range(200)))
    assert all(is_of(booster, answer) for answer in answers)
    eventually(lambda: statistic(server, "ModelCacheHit", "SampleCount") == 200, "every call to be counted")
    assert statistic(server, "ModelCacheHit", "Sum") > 0
    assert statistic(server, "ModelLoadingWaitTime", "Maximum") > 0
    eventually(lambda: statistic(server, "ModelLoadingTime", "SampleCount") > 0, "the load to be counted")
    assert statistic(server, "ModelLoadingTime", "SampleCount") == 1
    server.client("sagemaker").delete_endpoint(EndpointName=endpoint)


def statistic(server: RunningServer, metric: str, name: str) -> float:
    now = datetime.datetime.now(datetime.UTC)
    dimensions = {"EndpointName": "crowd", "VariantName": "AllTraffic"}
    found = server.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - datetime.timedelta(hours=1),
        EndTime=now + datetime.timedelta(minutes=5),
        Period=3600,
        Statistics=[name],
    )
    return float(sum(point[name] for point in found["Datapoints"]))


def test_M02_more_models_than_there_is_room_for_take_turns(server: RunningServer) -> None:
    boosters = [put(server, "tight", f"{n}.tar.gz", n) for n in range(5)]
    endpoint = deploy(server, "tight", environment={"CLARY_MODELS_PER_INSTANCE": "2"})
    uncached = deploy(server, "fleeting", "tight", MultiModelConfig={"ModelCacheSetting": "Disabled"})
    for _ in range(3):
        for n, booster in enumerate(boosters):
            assert is_of(booster, predict(server, endpoint, f"{n}.tar.gz"))
            assert is_of(booster, predict(server, uncached, f"{n}.tar.gz"))
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda n: (n, predict(server, endpoint, f"{n}.tar.gz")), [*range(5)] * 12)
        assert all(is_of(boosters[n], answer) for n, answer in answers)
    for name in (endpoint, uncached):
        server.client("sagemaker").delete_endpoint(EndpointName=name)


def test_M01_models_lie_on_their_instances_and_move_when_one_dies(server: RunningServer) -> None:
    boosters = {f"{n}.tar.gz": put(server, "pair", f"{n}.tar.gz", n) for n in range(6)}
    endpoint = deploy(server, "pair", instances=2)
    for _ in range(2):
        for model, booster in boosters.items():
            assert is_of(booster, predict(server, endpoint, model))
    homes = where(server, endpoint)
    assert sorted(model for models in homes.values() for model in models) == sorted(boosters)  # each at one
    victim = max(homes, key=lambda id_: len(homes[id_]))
    minder = minder_of(server.settings.instances_dir / victim)
    assert minder is not None
    kill(minder, *(processes.identify(pid) for pid in limits.descendants(minder.pid)))
    for model, booster in boosters.items():
        assert is_of(booster, predict(server, endpoint, model))
    server.client("sagemaker").delete_endpoint(EndpointName=endpoint)


def kill(*victims: processes.ProcessIdentity | None) -> None:
    """Returns when they are gone: on a busy machine they may answer for a while yet, and end in the middle of it."""
    for victim in victims:
        processes.signal(victim, SIGKILL)
    assert processes.wait_gone([victim for victim in victims if victim is not None], PATIENCE_S) == []


def where(server: RunningServer, endpoint: str) -> dict[str, list[str]]:
    """Instance → the models that are loaded there."""
    (found,) = (each for each in server.status()["Endpoints"] if each["Name"] == endpoint)
    ids = tuple(instance["Id"] for instance in found["Instances"])
    link = HostClient(server.settings.host_socket)
    models = link.call("list_models", ListModels(ids), list[ModelStatus])
    link.close()
    return {id_: [m.target_model for m in models if m.instance_id == id_] for id_ in ids}


def test_U03_an_update_to_other_models_loses_no_call(server: RunningServer) -> None:
    old, new = put(server, "blue", "m.tar.gz", 11), put(server, "green", "m.tar.gz", 12)
    endpoint = deploy(server, "blue")
    assert is_of(old, predict(server, endpoint, "m.tar.gz"))
    create(server, "green")
    server.client("sagemaker").update_endpoint(EndpointName=endpoint, EndpointConfigName="green")
    answers = []

    def settled() -> bool:
        answers.append(predict(server, endpoint, "m.tar.gz"))
        return is_of(new, answers[-1])

    eventually(settled, "the new models to answer")
    wait_for_status(server, endpoint, "InService")
    assert all(is_of(old, answer) or is_of(new, answer) for answer in answers)
    assert is_of(new, predict(server, endpoint, "m.tar.gz"))
    server.client("sagemaker").delete_endpoint(EndpointName=endpoint)


def test_M02_models_load_with_control_dead_and_known_ones_answer_without_a_host(place: Path) -> None:
    server = RunningServer(place / "d")
    with server:
        boosters = [put(server, "alone", f"{n}.tar.gz", n) for n in range(3)]
        endpoint = deploy(server, "alone")
        assert is_of(boosters[0], predict(server, endpoint, "0.tar.gz"))
        kill(server.supervisor)
        kill(server.process("control"))
        assert is_of(boosters[1], predict(server, endpoint, "1.tar.gz"))
        known = [predict(server, endpoint, "1.tar.gz") for _ in range(20)]  # by both gateways
        assert all(is_of(boosters[1], answer) for answer in known)
        kill(server.process("host"))
        assert is_of(boosters[1], predict(server, endpoint, "1.tar.gz"))
        code, message = refusal(server, endpoint, TargetModel="2.tar.gz")
        assert code == "ServiceUnavailable"
        assert "the process that loads models is not there" in message
