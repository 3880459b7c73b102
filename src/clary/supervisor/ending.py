"""The end of everything: works without a supervisor, from the pid files alone."""

import signal

from clary.links import processes, stopping
from clary.settings import Settings
from clary.supervisor.names import GATEWAY, find_process, process_names


def stop_everything(settings: Settings) -> list[str]:
    """Ends the processes and every instance, whoever started them; the names of what had to be killed.

    The order matters: control first, so that nothing is started again; then the gateways, which finish what
    they have while the instances still answer; then the instances; the host last.
    """
    killed: list[str] = []
    killed += _end(settings, ["control"], settings.stop_grace_s)
    killed += _end(
        settings,
        [name for name in process_names(settings) if name.startswith(GATEWAY)],
        settings.stop_grace_s,
    )
    stopping.stop_instances(settings)
    killed += _end(settings, ["host"], settings.stop_grace_s)
    _clear_run_directory(settings)
    return killed


def _end(settings: Settings, names: list[str], grace_s: float) -> list[str]:
    found = {name: find_process(settings, name) for name in names}
    running = {name: identity for name, identity in found.items() if identity is not None}
    for identity in running.values():
        processes.signal(identity, signal.SIGTERM)
    stubborn = processes.wait_gone(running.values(), grace_s)
    for identity in stubborn:
        processes.signal(identity, signal.SIGKILL)
    processes.wait_gone(stubborn, 5.0)
    return [name for name, identity in running.items() if identity in stubborn]


def _clear_run_directory(settings: Settings) -> None:
    """Removes sockets and pid files; the routes stay, for the next start shows them to the gateways at once."""
    for pattern in ("*.sock", "*.pid.json", "settings.json"):
        for path in settings.run_dir.glob(pattern):
            path.unlink(missing_ok=True)
