"""The instance's CPU group, as its minder makes, fills and removes it (`clary.host.cpu_groups` plans it)."""

# pathlib would be one more import in every minder.
# ruff: noqa: PTH102, PTH106, PTH112, PTH123

import errno
import os
from collections.abc import Mapping
from typing import Any

from clary.host import minder_calls


def join(launch: Mapping[str, Any], pid: int, log_descriptor: int) -> None:
    """Puts a process (0: this one) into the instance's group, before there is anything it could have forked."""
    if (group := launch.get("cpu_group")) is None:
        return
    for last in (False, False, True):
        try:
            _put_into(group, pid)
            return
        except ProcessLookupError:
            return  # it has ended already, and says itself why
        except OSError as error:
            # A host removed it while it was still empty: before its file was opened, or before it was written.
            if last or error.errno not in (errno.ENOENT, errno.ENODEV):
                minder_calls.say(
                    log_descriptor, f"the instance has no share of the processors of its own: {error}\n"
                )
                return


def remove(launch: Mapping[str, Any]) -> None:
    if (group := launch.get("cpu_group")) is None:
        return
    try:
        os.rmdir(group["directory"])
    except OSError:
        return  # the host removes it with the instance's directory


def _put_into(group: Mapping[str, Any], pid: int) -> None:
    directory = group["directory"]
    if not os.path.isdir(directory):
        os.mkdir(directory)
    for name, value in ((group["weight_file"], group["weight"]), ("cgroup.procs", pid)):
        with open(f"{directory}/{name}", "w") as file:
            file.write(str(value))
