"""`clary up`: the server in the foreground, saying what it did and what to do next."""

import argparse
import contextlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clary import credentials, settings, supervisor
from clary.cli import CommandError, server
from clary.host import cgroups
from clary.links import upstream_proxy
from clary.supervisor import AlreadyRuns, CannotStart, Supervisor
from clary.wire.client import ClientError

READY_WITHIN_S = 120.0


def run(arguments: argparse.Namespace) -> int:
    wanted = _settings(arguments)
    cgroups.settle()
    leader = Supervisor(wanted, say=lambda line: _say(f"  {line}"))
    began = time.monotonic()
    try:
        adopted = leader.start()
    except AlreadyRuns as error:
        option = wanted.command_options
        raise CommandError(f"{error}. See: clary status{option}; stop it with: clary down{option}") from error
    except CannotStart as error:
        if wanted.ephemeral:
            shutil.rmtree(wanted.data_dir, ignore_errors=True)
        raise CommandError(str(error)) from error
    try:
        _note_upstream_proxy(leader.settings)
        _say_hello(leader, adopted, began)
        leader.run()
    finally:
        _say("Stopping …")
        leader.stop()
        found = leader.settings
        kept = "Nothing is kept." if found.ephemeral else f"Everything is kept in {found.data_dir}."
        _say(f"Stopped. {kept}")
    return 0


def _say(line: str) -> None:
    """A terminal that has gone, or a full disk behind a redirected output, is no reason to stop serving."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _settings(arguments: argparse.Namespace) -> settings.Settings:
    flags = {
        name: getattr(arguments, name) for name in ("data_dir", "port", "account", "gateways", "ephemeral")
    }
    if arguments.ephemeral and arguments.data_dir is None:
        flags["data_dir"] = tempfile.mkdtemp(prefix="clary-")
    elif (
        arguments.ephemeral and Path(arguments.data_dir).exists() and any(Path(arguments.data_dir).iterdir())
    ):
        raise CommandError(f"--ephemeral deletes its data at the end, and {arguments.data_dir} is not empty")
    return settings.load(flags)


def _note_upstream_proxy(found: settings.Settings) -> None:
    before = upstream_proxy.found_in(os.environ)
    if before is None:
        return
    try:
        upstream_proxy.note(found, before)
    except OSError as error:  # a full disk ends nothing that runs
        _say(
            f"  the proxy of this environment could not be noted ({error.strerror}): that of the last start counts"
        )


def _say_hello(leader: Supervisor, adopted: bool, began: float) -> None:
    found = leader.settings
    url = f"http://{found.host}:{found.port}"
    running = server.Running(found, url, credentials.read(found))
    health = _wait_until_ready(leader, running, adopted)
    if health is None:
        return
    kept = "temporary data in" if found.ephemeral else "data in"
    _say(
        f"Clary {importlib.metadata.version('clary')} at {url} · {kept} {found.data_dir} · account {found.account}"
    )
    _say(
        f"  {'found its processes still running' if adopted else 'started'} in {time.monotonic() - began:.1f} s"
    )
    for name, state in sorted(health["Parts"]["Environments"].items()):
        _say(f"  environment {name}: {state}")
    for part in ("Sandbox", "Processors"):
        told = health["Parts"].get(part, "unknown: the host does not answer yet")
        _say(f"  {part.lower()} {told}")
    option = found.command_options
    _say(f'Next, in another terminal:  eval "$({_program()} env{option})"   then any boto3, SageMaker SDK')
    _say(f"  or AWS CLI code; or, for one command:  {_program()} run{option} -- COMMAND")
    _say("Ctrl-C stops it.")


def _wait_until_ready(leader: Supervisor, running: server.Running, adopted: bool) -> dict[str, Any] | None:
    """Waits for the first healthy answer through a gateway, and says meanwhile that it waits.

    None: asked to stop, or what was adopted does not answer: its endpoints may serve all the same, so they stay.
    """
    deadline, told = time.monotonic() + READY_WITHIN_S, time.monotonic()
    while not leader.is_stopping:
        try:
            return running.client().admin("GET", "/_clary/health")
        except (OSError, ClientError) as error:
            if time.monotonic() > deadline:
                where = f"{running.settings.server_log_dir}"
                if lacking := supervisor.lacking(running.settings):
                    where += f"; {lacking}"
                if adopted:
                    _say(
                        f"  the server does not answer yet ({error}); its endpoints go on; its logs are in {where}"
                    )
                    return None
                raise CommandError(
                    f"the server does not answer ({error}); its logs are in {where}"
                ) from error
        if time.monotonic() - told > 2.0:
            told = time.monotonic()
            _say("  still starting …")
        leader.tend(0.03)
    return None


def _program() -> str:
    """How this very command was called, so that the next line works as printed."""
    called = Path(sys.argv[0])
    return "clary" if called.name != "clary" or shutil.which("clary") == str(called) else str(called)
