"""`clary down`: stops a server, whether its supervisor still runs or not."""

import argparse
import shutil
import signal

from clary import settings, supervisor
from clary.cli import CommandError, server
from clary.links import processes


def run(arguments: argparse.Namespace) -> int:
    asked = server.wanted(arguments)
    try:
        found = settings.read(supervisor.settings_path(asked))
    except FileNotFoundError:
        print(f"Nothing runs on {asked.data_dir}.")
        return 0
    leader = processes.alive(found.run_dir / "supervisor.pid.json")
    if leader is not None:
        _stop_by_supervisor(leader, found.stop_grace_s)
    if leader is None or _has_left_something(found):
        killed = supervisor.stop_everything(found)
        for name in killed:
            print(f"{name} did not end by itself and was killed.")
    if found.ephemeral:
        shutil.rmtree(found.data_dir, ignore_errors=True)  # its supervisor did it, unless it was killed
    print(
        "Stopped. Nothing is kept."
        if found.ephemeral
        else f"Stopped. Everything is kept in {found.data_dir}."
    )
    return 0


def _has_left_something(found: settings.Settings) -> bool:
    """A supervisor that was being killed when it was asked, or in the middle of its work, ends nothing."""
    names = supervisor.process_names(found)
    return any(processes.alive(found.run_dir / f"{name}.pid.json") for name in names)


def _stop_by_supervisor(leader: processes.ProcessIdentity, grace_s: float) -> None:
    processes.signal(leader, signal.SIGTERM)
    # The supervisor waits for three groups of processes in turn, each for its own grace.
    if processes.wait_gone([leader], 4 * grace_s + 10):
        raise CommandError(
            f"the supervisor (process {leader.pid}) does not end; look at it, or kill it and run this again"
        )
