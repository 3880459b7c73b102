"""EnableNetworkIsolation and the sandbox, as a user of boto3 and of `clary up` sees them."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from hosting.harness import rungs_here
from platform_models import (
    IMAGE,
    ROLE,
    booster_archive,
    eventually,
    invoke,
    predictions,
    regressor,
    rows,
    upload,
    wait_for_status,
)


@pytest.mark.skipif("1" not in rungs_here(), reason="sandbox rung 1 does not work here")
def test_H08_an_endpoint_of_an_isolated_model_answers(server: RunningServer) -> None:
    booster, features = regressor(), rows(3)
    sagemaker = server.client("sagemaker")
    primary = {"Image": IMAGE, "ModelDataUrl": upload(server, "isolated/m.tar.gz", booster_archive(booster))}
    sagemaker.create_model(
        ModelName="isolated", ExecutionRoleArn=ROLE, PrimaryContainer=primary, EnableNetworkIsolation=True
    )
    assert sagemaker.describe_model(ModelName="isolated")["EnableNetworkIsolation"] is True
    variant = {"VariantName": "AllTraffic", "ModelName": "isolated", "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(
        EndpointConfigName="isolated", ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )
    sagemaker.create_endpoint(EndpointName="isolated", EndpointConfigName="isolated")
    wait_for_status(server, "isolated", "InService")
    assert invoke(server, "isolated", features) == pytest.approx(predictions(booster, features), rel=1e-6)
    eventually(lambda: "rung 1" in server.up_log.read_text(), "the start to say so")


def test_H08_on_rung_0_isolation_is_refused_by_name_and_the_start_says_what_rung_0_is(place: Path) -> None:
    with RunningServer(place / "d", environment={"CLARY_SANDBOX": "0", "CLARY_PREWARM": ""}) as server:
        with pytest.raises(ClientError) as refused:
            server.client("sagemaker").create_model(
                ModelName="isolated", PrimaryContainer={"Image": IMAGE}, EnableNetworkIsolation=True
            )
        error = refused.value.response["Error"]
        assert error["Code"] == "ValidationException"
        assert (
            "EnableNetworkIsolation is not supported by this server: it needs sandbox rung 1"
            in error["Message"]
        )
        eventually(lambda: "no security boundary" in server.up_log.read_text(), "the start to say so")
