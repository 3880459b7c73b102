"""`python -m clary.host --settings FILE`: the host of this machine, until SIGTERM."""

import argparse
import logging
import os
import signal
from pathlib import Path

from clary import settings as settings_module
from clary.catalog import Catalog
from clary.domain.clock import SystemClock
from clary.host.service import Host
from clary.links import processes
from clary.telemetry import server_log

log = logging.getLogger("clary.host")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m clary.host")
    parser.add_argument("--settings", type=Path, required=True)
    settings = settings_module.read(parser.parse_args().settings)
    server_log.configure(settings.log_level)
    run(settings, Catalog.load(own=settings.images_dir))


def run(settings: settings_module.Settings, catalog: Catalog) -> None:
    """Serves until SIGTERM or SIGINT. The instances stay."""
    # Blocked before any thread starts, so that every thread inherits it and sigwait gets them.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    pid_file = settings.run_dir / "host.pid.json"
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    host = Host(settings, catalog, SystemClock(), os.environ)
    processes.record(pid_file)
    log.info("the host is up", extra={"socket": str(settings.host_socket)})
    received = signal.sigwait(ends)
    log.info("the host goes down, its instances stay", extra={"signal": signal.Signals(received).name})
    host.close()
    pid_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
