"""Nine of ten instances are taken away while each of them has requests under way."""

import os
import time

from benchmarks.chaos.experiment import Conditions, hold, wait_until
from benchmarks.chaos.ledger import served_settles_at
from benchmarks.chaos.paced import Paced
from benchmarks.chaos.remains import minders
from benchmarks.platform import Platform, regressor

ENDPOINT = "shrinking"
MOST = 10
CONNECTIONS = 16
LOADED_S = 1.0
WITHIN_S = 60.0

SLOW_SCRIPT = b"""
import os, time, xgboost
def model_fn(model_dir):
    return xgboost.Booster(model_file=os.path.join(model_dir, "xgboost-model"))
def predict_fn(data, model):
    time.sleep(0.15)
    return model.predict(data, validate_features=False)
def output_fn(prediction, accept):
    return f"{float(prediction[0]):.7g}"
"""
"""A script is asked no second time, and a slow one is always asked just now."""


def times() -> int:
    return int(os.environ.get("CHAOS_SCALES", "5"))


def in_under_load(conditions: Conditions) -> str:
    booster, rows = regressor(trees=5)
    with conditions.platform() as platform:
        platform.deploy(ENDPOINT, platform.upload(booster, more={"code/inference.py": SLOW_SCRIPT}), MOST)
        with Paced(platform, ENDPOINT, {"model": booster}, rows, connections=CONNECTIONS) as load:
            for number in range(times()):
                if number:
                    _scale(platform, MOST)
                before = set(minders(platform.settings))
                time.sleep(LOADED_S)
                _scale(platform, 1)
                ledger = load.ledger
                hold(not ledger.wrong and not ledger.broken, f"scaled in {number + 1} times: {ledger}")
                left = set(minders(platform.settings))
                hold(
                    len(left) == 1 and left < before,
                    f"{len(left)} instances are left, {len(left - before)} new",
                )
        hold(not load.ledger.wrong and not load.ledger.broken, str(load.ledger))
        count = served_settles_at(platform, ENDPOINT, load.ledger.asked)
        hold(count == load.ledger.asked, f"the client asked {load.ledger.asked:,}, CloudWatch says {count:,}")
    return (
        f"{times()} times from {MOST} to 1 instances, one of the ten each time; client: {load.ledger}; server: "
        f"{count:,} Invocations"
    )


def _scale(platform: Platform, count: int) -> None:
    sagemaker = platform.client("sagemaker")
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=ENDPOINT,
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": count}],
    )
    platform.wait_in_service(ENDPOINT, every_s=0.1)
    wait_until(lambda: len(minders(platform.settings)) == count, f"{count} instances", WITHIN_S)
