"""`clary restart`: every process replaced by a new one, after an upgrade of Clary say, while endpoints serve.

Waits until it is done. Instances are not touched: an endpoint's own update replaces them.
"""

import argparse
import time

from clary.cli import CommandError, server
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.supervisor import GATEWAY, ROLL, names_of, retires, roles
from clary.wire.client import ClientError

WITHIN_S = 600.0  # a gateway that still retires since an earlier restart may take most of it


def run(arguments: argparse.Namespace) -> int:
    found = server.running(arguments)
    leader = processes.alive(found.settings.run_dir / "supervisor.pid.json")
    if leader is None:
        raise CommandError(
            "no supervisor runs here, so nothing would start what ends. Run `clary up`: it takes over what still runs"
        )
    if not processes.heeds(leader, ROLL):
        raise CommandError(
            "the supervisor that runs here is of a version that knows no `clary restart`. End it alone with "
            f"`kill -9 {leader.pid}`; then `clary up` takes over what still runs, and `clary restart` replaces it"
        )
    before = {role: _running(found, role) for role in roles(found.settings)}
    processes.signal(leader, ROLL)
    deadline = time.monotonic() + WITHIN_S
    waiting = set(before)
    while waiting:
        if time.monotonic() > deadline or not processes.is_alive(leader):
            raise CommandError(f"not replaced: {', '.join(sorted(waiting))}. See: clary status")
        for role in sorted(waiting):
            if _is_replaced(found, role, before[role]):
                print(f"{role} replaced", flush=True)
                waiting.discard(role)
        time.sleep(0.05)
    _wait_until_it_answers(found, deadline)
    print(
        "Done: new processes serve. Instances went on; a gateway that still had requests ends with the last one."
    )
    return 0


def _is_replaced(found: server.Running, role: str, before: dict[str, ProcessIdentity]) -> bool:
    """A gateway's successor counts once the old one retires, which then has requests of its own to finish."""
    now = _running(found, role)
    old = [name for name, identity in now.items() if before.get(name) == identity]
    return len(now) > len(old) and all(
        name.startswith(GATEWAY) and retires(found.settings, name) for name in old
    )


def _running(found: server.Running, role: str) -> dict[str, ProcessIdentity]:
    """The processes of a role, by name."""
    names = names_of(role, found.settings)
    alive = {name: processes.alive(found.settings.run_dir / f"{name}.pid.json") for name in names}
    return {name: identity for name, identity in alive.items() if identity is not None}


def _wait_until_it_answers(found: server.Running, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            found.client().admin("GET", "/_clary/health")
            return
        except (OSError, ClientError):
            time.sleep(0.05)
    raise CommandError("the new processes do not answer. See: clary status; clary doctor")
