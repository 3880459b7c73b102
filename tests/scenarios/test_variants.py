"""The story of an A/B test: two models of different frameworks behind one endpoint, and their shares, live."""

import io
import math
from collections import Counter
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
from sklearn.linear_model import Ridge

from clary.testing.server import RunningServer
from platform_load import Load
from platform_models import (
    IMAGE,
    ROLE,
    SKLEARN,
    archive,
    booster_archive,
    csv,
    eventually,
    numbers,
    predictions,
    regressor,
    rows,
    status,
    upload,
    wait_for_status,
)

SCRIPT = b"""
import os, joblib
def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""


def model(server: RunningServer, name: str, image: str, content: bytes) -> None:
    primary = {"Image": image, "ModelDataUrl": upload(server, f"{name}/model.tar.gz", content)}
    server.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=primary)


def variant(name: str, model_name: str, weight: float, instances: int = 1) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": model_name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": instances,
        "InitialVariantWeight": weight,
    }


def ridge() -> tuple[Ridge, bytes]:
    features = rows(100).astype("float64")
    fitted, dumped = Ridge().fit(features, features @ np.arange(7)), io.BytesIO()
    joblib.dump(fitted, dumped)
    return fitted, archive({"model.joblib": dumped.getvalue(), "code/inference.py": SCRIPT})


def numbers_of(server: RunningServer, name: str) -> dict[str, tuple[float, int]]:
    found = status(server, name)
    if found["EndpointStatus"] != "InService":
        return {}
    return {
        v["VariantName"]: (v["CurrentWeight"], v["CurrentInstanceCount"]) for v in found["ProductionVariants"]
    }


def instances_of(server: RunningServer, name: str, variant: str) -> set[str]:
    (found,) = (e for e in server.status()["Endpoints"] if e["Name"] == name)
    return {i["Id"] for i in found["Instances"] if i["Variant"] == variant and i["Phase"] == "ready"}


def test_H11_H12_H13_an_a_b_test_of_two_frameworks_and_its_shares_live(server: RunningServer) -> None:
    fitted, archived = ridge()
    booster, features = (
        regressor(),
        rows(2),
    )  # scikit-learn's container reads one line as a vector, as AWS's does
    model(server, "ab-a", IMAGE, booster_archive(booster))
    model(server, "ab-b", SKLEARN, archived)
    sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
    sagemaker.create_endpoint_config(
        EndpointConfigName="ab", ProductionVariants=[variant("A", "ab-a", 9.0), variant("B", "ab-b", 1.0)]
    )
    sagemaker.create_endpoint(EndpointName="ab", EndpointConfigName="ab")
    wait_for_status(server, "ab", "InService")
    expected = {"A": predictions(booster, features)[0], "B": float(fitted.predict(features)[0])}

    def shoot(count: int, **members: Any) -> Counter[str]:
        served: Counter[str] = Counter()
        for _ in range(count):
            answer = runtime.invoke_endpoint(
                EndpointName="ab", ContentType="text/csv", Accept="text/csv", Body=csv(features), **members
            )
            name = answer["InvokedProductionVariant"]
            assert math.isclose(numbers(answer["Body"].read())[0], expected[name], rel_tol=1e-4)
            served[name] += 1
        return served

    count = 600
    served = shoot(count)
    assert abs(served["B"] - count * 0.1) <= 7.5 * math.sqrt(count * 0.1 * 0.9), served
    assert shoot(20, TargetVariant="B") == {"B": 20}

    first = instances_of(server, "ab", "B")
    with Load(server, "ab", features) as load:
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="ab",
            DesiredWeightsAndCapacities=[
                {"VariantName": "A", "DesiredWeight": 0.0},
                {"VariantName": "B", "DesiredWeight": 1.0, "DesiredInstanceCount": 3},
            ],
        )
        eventually(lambda: numbers_of(server, "ab") == {"A": (0.0, 1), "B": (1.0, 3)}, "the new numbers")
        assert set(load.more()) == {round(expected["B"], 3)}
    grown = instances_of(server, "ab", "B")
    assert first < grown  # the same process goes on beside the new ones
    assert shoot(20, TargetVariant="A") == {"A": 20}

    with Load(server, "ab", features) as load:
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="ab",
            DesiredWeightsAndCapacities=[{"VariantName": "B", "DesiredInstanceCount": 1}],
        )
        eventually(lambda: numbers_of(server, "ab").get("B") == (1.0, 1), "fewer instances")
        load.more()
    eventually(lambda: len(instances_of(server, "ab", "B")) == 1, "the others to go")
    assert instances_of(server, "ab", "B") < grown
    sagemaker.delete_endpoint(EndpointName="ab")


def test_D08_a_shadow_that_cannot_start_harms_nobody(server: RunningServer) -> None:
    booster, features = regressor(), rows(1)
    model(server, "lit", IMAGE, booster_archive(booster))
    model(server, "dark", IMAGE, archive({"xgboost-model": b"this is no model"}))
    sagemaker, runtime = server.client("sagemaker"), server.client("sagemaker-runtime")
    sagemaker.create_endpoint_config(
        EndpointConfigName="shadowed",
        ProductionVariants=[variant("Lit", "lit", 1.0)],
        ShadowProductionVariants=[variant("Dark", "dark", 0.5)],
    )
    sagemaker.create_endpoint(EndpointName="shadowed", EndpointConfigName="shadowed")
    found = wait_for_status(server, "shadowed", "InService")
    assert [v["VariantName"] for v in found["ProductionVariants"]] == ["Lit"]
    assert [v["VariantName"] for v in found["ShadowProductionVariants"]] == ["Dark"]
    with Load(server, "shadowed", features) as load:
        assert set(load.more(50)) == {round(predictions(booster, features)[0], 3)}
    refused = None
    try:
        runtime.invoke_endpoint(EndpointName="shadowed", Body=csv(features), TargetVariant="Dark")
    except runtime.exceptions.ValidationError as error:
        refused = str(error)
    assert refused is not None
    assert "Dark" in refused
    sagemaker.delete_endpoint(EndpointName="shadowed")
