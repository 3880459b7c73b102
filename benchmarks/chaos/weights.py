"""Two variants whose predictions differ, weighted 90 to 10: the answers themselves tell who gave them."""

import math
import os
import time
from typing import Any

import numpy as np
import xgboost

from benchmarks.chaos.experiment import Conditions, hold
from benchmarks.chaos.ledger import served_settles_at
from benchmarks.chaos.paced import Paced
from benchmarks.platform import IMAGE, ROLE, Platform, regressor

ENDPOINT = "weighted"
WEIGHTS = {"heavy": 9.0, "light": 1.0}
TREES = {"heavy": 6, "light": 12}


def requests() -> int:
    return int(os.environ.get("CHAOS_REQUESTS", "100000"))


def ninety_to_ten(conditions: Conditions) -> str:
    models = {name: regressor(trees)[0] for name, trees in TREES.items()}
    rows = regressor(1)[1]
    with conditions.platform() as platform:
        _deploy(platform, models)
        with Paced(platform, ENDPOINT, models, _told_apart(models, rows), connections=16) as load:
            while load.ledger.asked < requests():
                hold(not load.ledger.wrong and not load.ledger.broken, str(load.ledger))
                time.sleep(0.1)
        hold(not load.ledger.wrong and not load.ledger.broken, str(load.ledger))
        asked, share = load.ledger.asked, WEIGHTS["light"] / sum(WEIGHTS.values())
        deviation = (load.by_model["light"] - share * asked) / math.sqrt(asked * share * (1 - share))
        seen = f"{load.by_model['heavy']:,} to {load.by_model['light']:,} of {asked:,}: {deviation:+.2f} σ"
        hold(abs(deviation) <= 3, seen)
        for name, count in load.by_model.items():
            told = served_settles_at(platform, ENDPOINT, count, variant=name)
            hold(told == count, f"{name} answered {count:,} times, CloudWatch says {told:,}")
    return f"{seen}; CloudWatch counts the same for each variant"


def _deploy(platform: Platform, models: dict[str, xgboost.Booster]) -> None:
    sagemaker = platform.client("sagemaker")
    for name, booster in models.items():
        container = {"Image": IMAGE, "ModelDataUrl": platform.upload(booster, f"{name}.tar.gz")}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variants = [
        {
            "VariantName": name,
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": weight,
        }
        for name, weight in WEIGHTS.items()
    ]
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    platform.wait_in_service(ENDPOINT)


def _told_apart(models: dict[str, xgboost.Booster], rows: Any) -> Any:
    """Rows about which the two models differ."""
    heavy, light = (model.predict(xgboost.DMatrix(rows)) for model in models.values())
    return rows[np.abs(heavy - light) > 0.01]
