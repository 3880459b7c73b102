"""Ten times the load from one moment to the next, on a variant that follows it with the default policy."""

import math
import os
import time
from typing import Any

from benchmarks.chaos.experiment import Conditions, hold
from benchmarks.chaos.paced import Paced
from benchmarks.platform import Platform, regressor

BASE_RATE = 40.0
BURST = 10
TARGET_A_MINUTE = 3000.0
MOST = 16
BASE_S = 25.0
PHASES_S = 5.0
ENOUGH_WITHIN_S = 15.0
DIMENSION = "sagemaker:variant:DesiredInstanceCount"


def runs() -> int:
    return int(os.environ.get("CHAOS_BURSTS", "2"))


def tenfold(conditions: Conditions) -> str:
    """Each burst on an endpoint of its own, at another moment between two reports of metrics."""
    booster, rows = regressor(trees=5)
    needed = math.ceil(BASE_RATE * BURST * 60 / TARGET_A_MINUTE)
    random, took, asked = conditions.random, list[float](), 0
    with conditions.platform() as platform:
        uri = platform.upload(booster)
        for number in range(runs()):
            name = f"burst-{number}"
            platform.deploy(name, uri)
            _follow_the_load(platform, name)
            with Paced(platform, name, {"model": booster}, rows, rate=BASE_RATE) as load:
                time.sleep(BASE_S + random.uniform(0, PHASES_S))
                hold(_in_service(platform, name) == 1, "the base load alone was too much for one instance")
                load.rate = BASE_RATE * BURST
                began = time.monotonic()
                while (count := _in_service(platform, name)) < needed:
                    waited = time.monotonic() - began
                    hold(
                        waited <= ENOUGH_WITHIN_S,
                        f"{waited:.1f} s after a burst began {count} of {needed} instances",
                    )
                    time.sleep(0.1)
                took.append(time.monotonic() - began)
            hold(not load.ledger.wrong and not load.ledger.broken, str(load.ledger))
            asked += load.ledger.asked
            platform.client("sagemaker").delete_endpoint(EndpointName=name)
    seconds = ", ".join(f"{each:.1f}" for each in took)
    return f"1 → {needed} instances in service {seconds} s after {runs()} bursts began; {asked:,} asked, all right"


def _follow_the_load(platform: Platform, name: str) -> None:
    scaling = platform.client("application-autoscaling")
    key: dict[str, Any] = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/AllTraffic",
        "ScalableDimension": DIMENSION,
    }
    scaling.register_scalable_target(MinCapacity=1, MaxCapacity=MOST, **key)
    scaling.put_scaling_policy(
        PolicyName="follow",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": TARGET_A_MINUTE,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
        },
        **key,
    )


def _in_service(platform: Platform, name: str) -> int:
    found = platform.client("sagemaker").describe_endpoint(EndpointName=name)
    return int(found["ProductionVariants"][0]["CurrentInstanceCount"])
