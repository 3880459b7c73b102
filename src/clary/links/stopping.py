"""Ending every instance of a data directory, with its host or without one.

Used when everything stops. With a host alive it is asked; with a dead host the minders are signalled directly, for
each can end its instance by itself (see `links.instances`). Afterwards nothing of them is left but their logs.
"""

import logging
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from clary.links import hosts, instances, processes
from clary.links.processes import ProcessIdentity
from clary.settings import Settings

log = logging.getLogger(__name__)

MARGIN_S = 10.0


def stop_instances(settings: Settings) -> None:
    """Returns when no instance of this data directory runs and their directories are gone."""
    client = hosts.HostClient(settings.host_socket)
    try:
        client.call("stop_all", hosts.StopAll(settings.stop_grace_s), int, settings.stop_grace_s + 60)
    except (hosts.HostError, hosts.HostUnavailable) as error:
        log.info("instances are stopped without the host", extra={"why": str(error)})
    finally:
        client.close()
    directories = list(settings.instances_dir.glob("i-*"))
    _stop_minders(
        [m for d in directories if (m := instances.minder_of(d)) is not None], directories, settings
    )
    for directory in [*directories, *settings.instances_dir.glob(".gone-*")]:
        shutil.rmtree(directory, ignore_errors=True)


def _stop_minders(minders: list[ProcessIdentity], directories: list[Path], settings: Settings) -> None:
    """SIGTERM: each minder ends its instance after the grace it finds in stop.json, then itself."""
    living = [minder for minder in minders if processes.is_alive(minder)]
    if not living:
        return
    for directory in directories:
        with suppress(OSError):  # a full disk: the minder then takes its own default
            instances.write(directory, instances.STOP, instances.Stop(settings.stop_grace_s))
    for minder in living:
        processes.signal(minder, signal.SIGTERM)
    for minder in processes.wait_gone(living, settings.stop_grace_s + MARGIN_S):
        log.warning("a minder did not end and is killed", extra={"pid": minder.pid})
        processes.signal(minder, signal.SIGKILL)
