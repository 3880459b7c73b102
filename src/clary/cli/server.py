"""How a command finds the running server: from the settings that its supervisor left in the data directory."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clary import credentials, settings, supervisor
from clary.cli import CommandError
from clary.links import processes
from clary.settings import Settings
from clary.wire.client import Client, ClientError, Refused


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs: its settings in force and how to reach it."""

    settings: Settings
    url: str
    key: credentials.RootKey

    def client(self) -> Client:
        key = self.key
        return Client(self.url, key.access_key_id, key.secret_access_key, self.settings.region)


@contextmanager
def answered() -> Iterator[None]:
    """Turns what the server refuses, or does not answer, into a complaint for the terminal."""
    try:
        yield
    except Refused as error:
        raise CommandError(error.message) from error
    except ClientError as error:
        raise CommandError(f"the server does not answer: {error}. See: clary status; clary up") from error


def wanted(arguments: argparse.Namespace) -> Settings:
    """The settings the command line, the environment and `clary.toml` ask for."""
    return settings.load({"data_dir": arguments.data_dir})


def running(arguments: argparse.Namespace) -> Running:
    """The server on this data directory. Raises CommandError, with the next step, when none runs."""
    asked = wanted(arguments)
    where = f" --data-dir {asked.data_dir}" if arguments.data_dir else ""
    try:
        found = settings.read(supervisor.settings_path(asked))
        key = credentials.read(asked)
    except FileNotFoundError:
        raise CommandError(f"nothing runs on {asked.data_dir}. Start it with: clary up{where}") from None
    # Where there is a supervisor, a gateway that just died is about to be started again: it is no reason to complain.
    names = ["supervisor", *(name for name in supervisor.process_names(found) if name.startswith("gateway-"))]
    if not any(processes.alive(found.run_dir / f"{name}.pid.json") for name in names):
        raise CommandError(
            f"Clary was on {asked.data_dir} but does not run now. Start it with: clary up{where}"
        )
    return Running(found, f"http://{found.host}:{found.port}", key)
