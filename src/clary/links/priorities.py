"""Which of Clary's processes gets a processor first, where there are too few."""

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

_SESSION_TRIES = 10


def give_way(by: int) -> None:
    """Serving goes first: where processors are short, gateways and instances get them before control does.

    Where Linux shares them out among sessions, a process's own niceness counts only inside its session, so the
    session's is set too.
    """
    os.nice(by)
    if os.getsid(0) != os.getpid():
        return  # started by hand: the session is somebody else's
    for _ in range(_SESSION_TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(by))
            return
        except BlockingIOError:  # ten times a second, for all unprivileged users together
            time.sleep(0.1)
        except OSError as error:
            log.info("sessions have no priorities here", extra={"error": str(error)})
            return
    log.warning("the session's priority could not be set")
