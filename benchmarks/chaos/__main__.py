"""`make chaos`, or `python -m benchmarks.chaos [EXPERIMENT …]`: runs them and writes their rows of the two pages."""

import os
import secrets
import sys
import time
import traceback

from benchmarks.chaos import commits, forged, fuzz, kills, pages, stale, storm
from benchmarks.chaos.experiment import Broken, Conditions, Experiment
from benchmarks.chaos.reliability import RELIABILITY
from benchmarks.report import ROOT

REFERENCE = ROOT / "docs" / "reference"

EXPERIMENTS = (
    Experiment(
        "processes",
        "kill -9 of control, of the host, of the supervisor and of all three, under load on one endpoint with two "
        "instances",
        "no invocation fails and every prediction is right; what died is started again; the next `clary up` "
        "adopts gateways and instances on the same port; client and CloudWatch count the same; `clary down` leaves "
        "nothing",
        "survival",
        "gateways end when one of the others does",
        kills.kill_everything_but_gateways,
    ),
    Experiment(
        "gateway",
        "kill -9 of one gateway, four times, with connections open to both",
        "its own open connections break, no other; a new connection works at once",
        "company",
        "gateways end when one of them does",
        kills.kill_one_gateway,
    ),
    Experiment(
        "down",
        "`clary down` with everything running, with supervisor and host killed, with all five processes killed",
        "no process, instance directory or socket remains",
        "cleanup",
        "stopping forgets the instances",
        kills.down_leaves_nothing,
    ),
    Experiment(
        "create",
        "kill -9 of control before and after the commit of every store write of CreateEndpoint",
        "the endpoint gets InService and answers, with exactly the wanted instances running",
        "identity",
        "a start that is repeated starts another instance",
        commits.create,
    ),
    Experiment(
        "delete",
        "kill -9 of control before and after the commit of every store write of DeleteEndpoint",
        "the endpoint goes, and nothing of it is left",
        "recovery",
        "control does not take up what was begun before it",
        commits.delete,
    ),
    Experiment(
        "storm",
        "kill -9 of control, host, gateways and supervisor at random, alone and together, while endpoints are created "
        "and deleted in three threads",
        "everything acknowledged comes true; in the end the wanted fleet runs and nothing else; `clary down` leaves "
        "nothing",
        "recovery",
        "control does not take up what was begun before it",
        storm.everything_at_random,
    ),
    Experiment(
        "stale",
        "create an endpoint, invoke it on every gateway the moment it is InService, delete it, invoke it on every "
        "gateway the moment it is gone",
        "never a stale answer",
        "acks",
        "control does not wait for the gateways",
        stale.never,
    ),
    Experiment(
        "fuzz",
        "valid, unconstrained, broken and mutilated requests for every implemented operation, and raw bytes on the "
        "port",
        "no 5xx but S3's NotImplemented (501, for what is not supported) and 505 to raw bytes with another HTTP "
        "version; no hang; every answer fits its output shape; the server predicts rightly afterwards",
        "validation",
        "handlers get requests unchecked",
        fuzz.everything,
    ),
    Experiment(
        "signatures",
        "requests signed by botocore, and the same with one change each",
        "every signed one is accepted, every changed one refused",
        "signatures",
        "signatures are not compared",
        forged.signatures,
    ),
)


PAGES = (
    (REFERENCE / "chaos.md", "Chaos", EXPERIMENTS),
    (REFERENCE / "reliability.md", "Reliability", RELIABILITY),
)


def main() -> int:
    names = {experiment.name for _, _, experiments in PAGES for experiment in experiments}
    wanted = set(sys.argv[1:]) or names
    if unknown := wanted - names:
        sys.exit(f"no such experiment: {', '.join(unknown)}; there are: {', '.join(sorted(names))}")
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbelow(1 << 31)))
    print(f"CHAOS_SEED={seed}", flush=True)
    succeeded = True
    for path, title, experiments in PAGES:
        found = {}
        for experiment in experiments:
            if experiment.name in wanted:
                is_well, cells = _try(experiment, seed)
                found[experiment.name] = (*cells, pages.run_of(seed))
                succeeded = succeeded and is_well
        if found:
            pages.enter(path, title, experiments, found)
            print(f"written: {path.relative_to(ROOT)}")
    print("every promise held, every sabotage was noticed" if succeeded else "FAILED: see above")
    return 0 if succeeded else 1


def _try(experiment: Experiment, seed: int) -> tuple[bool, tuple[str, str]]:
    """With the guarantee and without it; what the page says of both."""
    holds, result = _as_it_is(experiment, seed)
    noticed, seen = _sabotaged(experiment, seed)
    word = "noticed: " if noticed else "**not noticed**: "
    return holds and noticed, (
        ("holds: " if holds else "**broken**: ") + result,
        f"{experiment.sabotage_does}: {word}{seen}",
    )


def _as_it_is(experiment: Experiment, seed: int) -> tuple[bool, str]:
    print(f"{experiment.name}: {experiment.done} …", flush=True)
    began = time.monotonic()
    try:
        holds, result = True, experiment.run(Conditions(seed))
    except Broken as error:
        holds, result = False, str(error)
    except Exception as error:  # noqa: BLE001 the other experiments still run; this one has failed
        traceback.print_exc()
        holds, result = False, f"the experiment itself failed: {type(error).__name__}: {error}"
    print(f"  {'holds' if holds else 'BROKEN'} ({time.monotonic() - began:.0f} s): {result}", flush=True)
    return holds, result


def _sabotaged(experiment: Experiment, seed: int) -> tuple[bool, str]:
    began = time.monotonic()
    try:
        noticed, seen = False, experiment.run(Conditions(seed, experiment.sabotage))
    except Broken as error:
        noticed, seen = True, str(error)
    except Exception as error:  # noqa: BLE001 only a broken promise counts as noticing
        traceback.print_exc()
        noticed, seen = False, f"the experiment itself failed: {type(error).__name__}: {error}"
    word = "noticed" if noticed else "NOT NOTICED"
    print(f"  sabotage `{experiment.sabotage}` {word} ({time.monotonic() - began:.0f} s): {seen}", flush=True)
    return noticed, seen


if __name__ == "__main__":
    sys.exit(main())
