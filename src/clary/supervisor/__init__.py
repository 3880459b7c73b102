"""`clary up`: binds the port once, starts the processes, restarts what dies, stops them in the right order.

The processes live in sessions of their own and do not need the supervisor: if it is killed they go on, and the
next one adopts them by their pid files and gets the listening socket back from a gateway. `stop_everything`
works without any supervisor, from the pid files alone.
"""

from clary.supervisor.ending import stop_everything
from clary.supervisor.ground import MOST_FILES, AlreadyRuns, CannotStart
from clary.supervisor.leading import ROLL, Supervisor
from clary.supervisor.names import GATEWAY, find_process, names_of, process_names, roles, settings_path
from clary.supervisor.rolling import retires
from clary.supervisor.room import lacking

__all__ = [
    "GATEWAY",
    "MOST_FILES",
    "ROLL",
    "AlreadyRuns",
    "CannotStart",
    "Supervisor",
    "find_process",
    "lacking",
    "names_of",
    "process_names",
    "retires",
    "roles",
    "settings_path",
    "stop_everything",
]
