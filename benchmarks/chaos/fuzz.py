"""The wire fuzz of `clary.testing.fuzz` at length: every implemented operation, and raw bytes on the port."""

import os
from collections.abc import Iterator
from itertools import islice

import xgboost

from benchmarks.chaos.experiment import Broken, Conditions, hold
from benchmarks.chaos.ledger import SignedConnection
from benchmarks.platform import BUCKET, Platform, regressor
from clary.main import operation_names
from clary.testing.fuzz import Fuzz, Unfit

NAME = "fuzzed"
PROCESSES = ("control", "host", "supervisor", "gateway-0", "gateway-1")


def examples() -> int:
    return int(os.environ.get("CHAOS_EXAMPLES", "150"))


def everything(conditions: Conditions) -> str:
    booster, rows = regressor(trees=5, depth=3)
    with conditions.platform() as platform:
        platform.deploy(NAME, platform.upload(booster, NAME))
        before = {name: platform.process(name) for name in PROCESSES}
        fuzz = Fuzz(
            platform, {"Bucket": BUCKET, "Key": NAME, "EndpointName": NAME, "CopySource": f"{BUCKET}/{NAME}"}
        )
        broken = list(islice(_broken(fuzz, conditions.seed), 1 if conditions.sabotage else None))
        hold(not broken, f"{len(broken)} operations: " + "\n".join(broken))
        after = {name: platform.process(name) for name in PROCESSES}
        hold(before == after, f"processes died: {before} became {after}")
        _predicts_rightly(platform, booster, rows[0])
    statuses = ", ".join(
        f"{count:,} × {status or 'closed'}" for status, count in sorted(fuzz.answers.items())
    )
    return f"{sum(fuzz.answers.values()):,} requests to {len(operation_names())} operations: {statuses}"


def _broken(fuzz: Fuzz, seed: int) -> Iterator[str]:
    """What operations did wrong, each at most once."""
    for service, name in operation_names():
        try:
            fuzz.operation(service, name, examples=examples(), seed=seed)
        except Unfit as error:
            yield f"{service}.{name}: {error}"
    try:
        fuzz.raw_bytes(examples=examples() * 5, seed=seed)
    except Unfit as error:
        yield f"raw bytes: {error}"


def _predicts_rightly(platform: Platform, booster: xgboost.Booster, row: object) -> None:
    expected = float(booster.predict(xgboost.DMatrix([row]))[0])
    connection = SignedConnection(platform)
    status, answer = connection.invoke(NAME, ",".join(f"{value:.7g}" for value in row))  # type: ignore[attr-defined]
    connection.close()
    if status != 200 or abs(float(answer) - expected) > 1e-4:
        raise Broken(f"afterwards {status} {answer!r} for {expected}")
