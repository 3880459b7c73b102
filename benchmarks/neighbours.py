"""Two neighbours on one machine, one of which misbehaves: what the other one's users notice of it.

The good one is the built-in XGBoost under a paced load, signed; the bad one is a script that does its worst when it is
asked to, and is asked again as soon as it answers or stands anew. For each misdeed the good one is read twice at the
same pace: with its neighbour idle, and with it at work. What the bad one came to is taken from `clary why`.

A fork bomb is asked for only where the rung limits processes: nothing else would stop it.
"""

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import numpy as np
import xgboost

from benchmarks import invocations, load, paced
from benchmarks.platform import Platform, archive, regressor
from benchmarks.report import Table, verdict
from clary.host import cgroups, limits, rungs
from clary.links import hosts
from clary.links import instances as files
from clary.settings import Settings

SECONDS = float(os.environ.get("BENCH_SECONDS", "5")) * 2
RATE = 300.0
TAKES_HOLD_S = 2.0
BAR = 3.0
GOOD = "good"
SCRIPT = Path(__file__).with_name("script") / "misbehaving.py"
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
BAD_TYPE = "ml.t2.medium"  # 2 vCPUs, 4 GiB
MISDEEDS = {
    "forks": "a fork bomb",
    "disk": "fills its /tmp with gigabytes, over and over",
    "memory": "takes all the memory it can",
    "cpu": "burns CPU in 64 processes",
    "sessions": "the same, each process a session of its own",
}
RUNGS = ("1", "0")


@dataclass(frozen=True, slots=True)
class Reading:
    """Of one misdeed."""

    alone: paced.Paced
    meanwhile: paced.Paced
    outcome: str

    @property
    def ratio(self) -> float:
        return self.meanwhile.p99_ms / self.alone.p99_ms


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the kernel shares processors out between the two."""

    is_available: bool  # the server may make groups with a CPU weight
    in_force: str


def run() -> list[Table]:
    booster, rows = regressor()
    bodies = [",".join(f"{cell:.7g}" for cell in row).encode() for row in rows[:2000]]
    return [_table(rung, booster, bodies) for rung in RUNGS]


def _table(rung: str, booster: Any, bodies: list[bytes]) -> Table:
    table = Table(
        f"A neighbour that misbehaves, on sandbox rung {rung}",
        ("the neighbour", "errors", "p50 ms alone → meanwhile", "p99 ms alone → meanwhile",
         "of it the client late, ms", "p99 ratio", "bar", "what became of it"),
    )  # fmt: skip
    if refusal := rungs.choose(rung, _uid_base()).refusal:
        table.notes.append(f"not measured: {refusal}")
        return table
    with Platform(environment={"CLARY_SANDBOX": rung}) as platform, tempfile.TemporaryDirectory() as folder:
        platform.deploy(GOOD, platform.upload(booster))
        _check_answers(platform, booster, bodies)
        script = platform.upload_archive(archive({"code/inference.py": SCRIPT.read_bytes()}), "bad.tar.gz")
        sharing, found = None, []
        for misdeed in MISDEEDS:
            if misdeed == "forks" and rung == "0":
                table.rows.append(
                    (MISDEEDS[misdeed], "", "", "", "", "", "not tried", "nothing limits processes here")
                )
                continue
            with _neighbour(platform, script, misdeed):
                sharing = sharing or _sharing(platform, misdeed)
                found.append(_measure(platform, misdeed, bodies, Path(folder) / "signed"))
            table.rows.append(_row(MISDEEDS[misdeed], found[-1], sharing))
    assert sharing is not None, "there are misdeeds"
    table.notes += _notes(sharing, all(each.alone.goes_first for each in found))
    return table


def _row(misdeed: str, found: Reading, sharing: Sharing) -> tuple[str, ...]:
    alone, meanwhile = found.alone, found.meanwhile
    bar = f"≤ {BAR:g}: not claimed"
    if sharing.is_available:
        kept = verdict(found.ratio, BAR, at_least=False)
        bar = f"≤ {BAR:g}: {'**missed**' if meanwhile.errors else kept}"
    return (
        misdeed,
        f"{meanwhile.errors} of {meanwhile.asked:,}",
        f"{alone.p50_ms:.2f} → {meanwhile.p50_ms:.2f}",
        f"{alone.p99_ms:.2f} → {meanwhile.p99_ms:.2f}",
        f"{alone.late_p99_ms:.2f} → {meanwhile.late_p99_ms:.2f}",
        f"{found.ratio:.1f}",
        bar,
        found.outcome,
    )


def _notes(sharing: Sharing, goes_first: bool) -> list[str]:
    client = "which goes before everything else on the machine" if goes_first else "on the same terms"
    return [
        f"the good one: single-row XGBoost, {RATE:g} signed requests/s through the gateway for {SECONDS:g} s, from "
        f"a client on the same cores, {client}; a time counts from when the request was due",
        "the client late: p99 of how late it woke to send, which is the machine's doing and not the server's",
        f"the bad one: scikit-learn image, one worker, {BAD_TYPE}",
        f"a CPU controller (cgroup) that this server may use: {'yes' if sharing.is_available else 'no'}; "
        f"in force between the two: {sharing.in_force}",
    ]


def _measure(platform: Platform, misdeed: str, bodies: list[bytes], signed: Path) -> Reading:
    load.write_requests(signed, invocations.signed(platform, GOOD, bodies))
    alone = paced.finish(paced.begin(platform.port, signed, RATE, SECONDS))
    load.write_requests(signed, invocations.signed(platform, GOOD, bodies))
    orders = _Orders(platform, misdeed)
    orders.start()
    orders.over.wait(TAKES_HOLD_S)
    meanwhile = paced.finish(paced.begin(platform.port, signed, RATE, SECONDS))
    orders.over.set()
    return Reading(alone, meanwhile, _outcome(platform, orders))


class _Orders(threading.Thread):
    """Asks the bad one for its misdeed, and again when it has answered or is there anew."""

    def __init__(self, platform: Platform, misdeed: str) -> None:
        super().__init__(daemon=True)
        self.misdeed = misdeed
        self._runtime = platform.client("sagemaker-runtime")
        self.answers: Counter[str] = Counter()
        self.over = threading.Event()

    def run(self) -> None:
        asked = {"EndpointName": self.misdeed, "ContentType": "text/csv", "Body": self.misdeed}
        while not self.over.is_set():
            try:
                self.answers[self._runtime.invoke_endpoint(**asked)["Body"].read().decode()] += 1
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
                self.over.wait(0.1)  # it was ended, or is not there again yet


@contextmanager
def _neighbour(platform: Platform, script: str, name: str) -> Iterator[None]:
    """The bad one, idle; at the end it is gone, and so is all that it started."""
    timeout_s = int(TAKES_HOLD_S + SECONDS) + 2  # it is waited for that long when it is removed
    variables = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MODEL_SERVER_TIMEOUT": f"{timeout_s}"}
    platform.deploy(name, script, image=IMAGE, variables=variables, instance_type=BAD_TYPE)
    asked = {"EndpointName": name, "ContentType": "text/csv", "Body": "nothing"}
    assert platform.client("sagemaker-runtime").invoke_endpoint(**asked)["Body"].read() == b"nothing"
    try:
        yield
    finally:
        platform.remove(name)


def _outcome(platform: Platform, orders: _Orders) -> str:
    """In words: how often and why it was ended, what it answered, or how much of it is still at work."""
    story = platform.running.client().admin("GET", f"/_clary/why/{orders.misdeed}")
    reasons = Counter(event["Detail"]["reason"] for event in story["Events"] if "reason" in event["Detail"])
    said = [f"{text} ({count} ×)" for text, count in (reasons + orders.answers).items()]
    at_work = sum(len(limits.descendants(minder)) for minder in _minders(platform, orders.misdeed))
    return "; ".join([*said, f"at the end {at_work:,} processes"])


def _minders(platform: Platform, endpoint: str) -> list[int]:
    found = []
    for directory in (platform.data_dir / "instances").iterdir():
        spec, minder = files.read_spec(directory), files.minder_of(directory)
        if spec is not None and minder is not None and spec.log.group.endswith(f"/{endpoint}"):
            found.append(minder.pid)
    return found


def _sharing(platform: Platform, bad: str) -> Sharing:
    """Of the first processes of both instances, which stand for the others."""
    host = hosts.HostClient(platform.settings.host_socket)
    found = host.call("status", hosts.GetStatus(), hosts.HostStatus)
    host.close()
    pids = [limits.descendants(_minders(platform, endpoint)[0])[-1] for endpoint in (GOOD, bad)]
    groups = [cgroups.group_of(Path(f"/proc/{pid}/cgroup")) for pid in pids]
    if None not in groups and groups[0] != groups[1]:
        weights = [_weight(group) for group in groups if group is not None]
        return Sharing(found.has_cpu_groups, f"a group each, with weights {weights[0]} and {weights[1]}")
    sessions = [Path(f"/proc/{pid}/autogroup") for pid in pids]
    if all(each.exists() for each in sessions) and len({each.read_text() for each in sessions}) == 2:
        how = "the kernel shares processors out among sessions (autogroup)"
    else:
        how = "every process counts alike"
    return Sharing(found.has_cpu_groups, f"none: {how}; the server says: processors {found.processors}")


def _weight(group: cgroups.Group) -> str:
    return (group.directory / group.weight_file).read_text().strip()


def _check_answers(platform: Platform, booster: Any, bodies: list[bytes]) -> None:
    """What is measured must be right: fifty rows against the booster in this process."""
    runtime = platform.client("sagemaker-runtime")
    rows = np.array([[float(cell) for cell in body.split(b",")] for body in bodies[:50]], dtype=np.float32)
    for body, value in zip(bodies, booster.predict(xgboost.DMatrix(rows)), strict=False):
        asked = {"EndpointName": GOOD, "ContentType": "text/csv", "Body": body}
        answer = float(runtime.invoke_endpoint(**asked)["Body"].read())
        assert abs(answer - float(value)) < 1e-5, (answer, value)


def _uid_base() -> int:
    default = Settings.__dataclass_fields__["sandbox_uid_base"].default
    assert isinstance(default, int)
    return default
