"""kill -9 of each process under load, and of everything that `clary down` might have counted on."""

import signal
from contextlib import suppress

from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.chaos.experiment import Broken, Conditions, hold, wait_until
from benchmarks.chaos.ledger import Ledger, served_settles_at
from benchmarks.chaos.paced import Paced
from benchmarks.chaos.pinned import PinnedLoad
from benchmarks.chaos.remains import minders, nothing_is_left
from benchmarks.platform import Platform, regressor
from clary.links import processes, stopping
from clary.links.processes import ProcessIdentity
from clary.wire.client import ClientError as AdminError

ENDPOINT = "under-load"
BETWEEN = 2000
"""Requests answered between two kills."""


def kill_everything_but_gateways(conditions: Conditions) -> str:
    """control, host and supervisor: each in turn, then all three, while one endpoint with two instances serves."""
    booster, rows = regressor(trees=20)
    random = conditions.random
    order = [name for _ in range(2) for name in random.sample(["control", "host", "supervisor", "all"], 4)]
    with conditions.platform() as platform:
        platform.deploy(ENDPOINT, platform.upload(booster), instances=2)
        before = _instances(platform)
        with Paced(platform, ENDPOINT, {"model": booster}, rows, connections=4) as load:
            load.until(BETWEEN)
            for name in order:
                for one in ("control", "host", "supervisor") if name == "all" else (name,):
                    _kill(platform, one)
                load.until(BETWEEN)
                _must_be_whole(load.ledger, f"while {name} was dead")
                if name in ("supervisor", "all"):
                    _comes_back(platform)
                wait_until_whole(platform)
                load.until(BETWEEN)
                _must_be_whole(load.ledger, f"after {name} was back")
        _must_be_whole(load.ledger, "in the end")
        hold(_instances(platform) == before, f"other instances: {before} became {_instances(platform)}")
        count = served_settles_at(platform, ENDPOINT, load.ledger.asked)
        hold(count == load.ledger.asked, f"the client asked {load.ledger.asked:,}, CloudWatch says {count:,}")
        platform.stop()
        nothing_is_left(platform.settings)
    return f"kills: {', '.join(order)}; client: {load.ledger}; server: {count:,} Invocations"


def kill_one_gateway(conditions: Conditions) -> str:
    """Each gateway in turn, with connections that stay: those of the other one must not feel it."""
    booster, rows = regressor(trees=20)
    victims = ["gateway-0", "gateway-1"] * 2
    conditions.random.shuffle(victims)
    broken = 0
    with conditions.platform() as platform:
        platform.deploy(ENDPOINT, platform.upload(booster), instances=2)
        for victim in victims:
            with PinnedLoad(platform, ENDPOINT, booster, rows, each=6) as load:
                load.until(BETWEEN)
                _kill(platform, victim)
                load.until(BETWEEN)
            load.only_broke(victim)
            broken += load.broken_of(victim)
            wait_until_whole(platform)
    return (
        f"kills: {', '.join(victims)}; {broken} connections of the killed gateways broke, each once and "
        f"right again at the first new connection; 0 of the others'"
    )


def down_leaves_nothing(conditions: Conditions) -> str:
    """`clary down`: of a server that runs, of one without supervisor and host, of one with nothing but instances."""
    booster, _ = regressor(trees=20)
    cases: list[tuple[str, ...]] = [
        (),
        ("supervisor", "host"),
        ("supervisor", "control", "host", "gateway-0", "gateway-1"),
    ]
    for killed in cases:
        with conditions.platform() as platform:
            try:
                platform.deploy(ENDPOINT, platform.upload(booster), instances=3)
                # One more that is only just beginning.
                platform.deploy("beginning", platform.upload(booster), wait=False)
                for name in killed:
                    _kill(platform, name)
                platform.stop()
                nothing_is_left(platform.settings)
            finally:
                if conditions.sabotage:  # what was left is nobody's now
                    stopping.stop_instances(platform.settings)
    return f"{len(cases)} times: 0 processes, 0 instance directories, 0 sockets left"


def _kill(platform: Platform, name: str) -> None:
    identity = platform.process(name)
    if identity is None:
        raise Broken(f"{name} does not run, though nobody killed it")
    processes.signal(identity, signal.SIGKILL)
    hold(not processes.wait_gone([identity], 10), f"{name} did not die")


def _instances(platform: Platform) -> dict[str, ProcessIdentity]:
    return minders(platform.settings)


def _comes_back(platform: Platform) -> None:
    """`clary up` again: everything that still runs is adopted, on the same port."""
    names = [f"gateway-{number}" for number in range(platform.settings.gateways)]
    port, kept = platform.port, {name: platform.process(name) for name in names}
    instances = _instances(platform)
    try:
        platform.start()
    except RuntimeError as error:
        raise Broken(f"`clary up` did not adopt what runs: {error}") from error
    hold(platform.port == port, f"port {port} became {platform.port}")
    now = {name: platform.process(name) for name in names}
    hold(now == kept, f"gateways {kept} became {now}")
    hold(_instances(platform) == instances, f"instances {instances} became {_instances(platform)}")


def wait_until_whole(platform: Platform) -> None:
    """Until every process runs and control answers for a host that answers."""

    def is_whole() -> bool:
        names = [
            "control",
            "host",
            "supervisor",
            *(f"gateway-{n}" for n in range(platform.settings.gateways)),
        ]
        if any(platform.process(name) is None for name in names):
            return False
        with suppress(AdminError, OSError, ClientError, BotoCoreError):
            return bool(platform.status()["Parts"]["Host"] == "answers")
        return False

    wait_until(is_whole, "all processes run and control and host answer")


def _must_be_whole(ledger: Ledger, when: str) -> None:
    hold(not ledger.wrong and not ledger.broken, f"{when}: {ledger}")
