"""`clary restart`: every process replaced by a new one, after an upgrade of Clary say, while endpoints serve.

Waits until it is done. Instances are not touched: an endpoint's own update replaces them.
"""

import argparse
import signal
import time

from clary.cli import CommandError, server
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.supervisor import names_of, roles
from clary.wire.client import ClientError

WITHIN_S = 300.0


def run(arguments: argparse.Namespace) -> int:
    found = server.running(arguments)
    leader = processes.alive(found.settings.run_dir / "supervisor.pid.json")
    if leader is None:
        raise CommandError(
            "no supervisor runs here, so nothing would start what ends. Run `clary up`: it takes over what still runs"
        )
    before = {role: _running(found, role) for role in roles(found.settings)}
    processes.signal(leader, signal.SIGHUP)
    deadline = time.monotonic() + WITHIN_S
    waiting = set(before)
    while waiting:
        if time.monotonic() > deadline or not processes.is_alive(leader):
            raise CommandError(f"not replaced: {', '.join(sorted(waiting))}. See: clary status")
        for role in sorted(waiting):
            now = _running(found, role)
            if now and not now & before[role]:
                print(f"{role} replaced", flush=True)
                waiting.discard(role)
        time.sleep(0.05)
    _wait_until_it_answers(found, deadline)
    print(
        "Done: new processes serve. Instances went on; a gateway that still had requests ends with the last one."
    )
    return 0


def _running(found: server.Running, role: str) -> set[ProcessIdentity]:
    """A gateway's successor counts once the old one retires."""
    names = names_of(role, found.settings)
    alive = [processes.alive(found.settings.run_dir / f"{name}.pid.json") for name in names]
    return {identity for identity in alive if identity is not None}


def _wait_until_it_answers(found: server.Running, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            found.client().admin("GET", "/_clary/health")
            return
        except (OSError, ClientError):
            time.sleep(0.05)
    raise CommandError("the new processes do not answer. See: clary status; clary doctor")
