"""Containers that are still to be removed: what a killed runner has left, or what the engine could not remove at once.

They are known by their names, or by the engine's ids. An instance that was removed may be started anew, and its new
container has the old one's name: so nothing is removed by a name once that has begun.
"""

import logging
import threading

from clary.host.engine.api import EngineError
from clary.host.engine.engines import Engine, Engines, NoEngine

log = logging.getLogger(__name__)


class Leftovers:
    """Thread-safe."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._left: set[str] = set()
        self._under_way: set[str] = set()
        self._changed = threading.Condition()
        self._tidying: threading.Thread | None = None

    def add(self, container: str) -> None:
        with self._changed:
            self._left.add(container)

    def forget(self, container: str) -> None:
        """What has this name from now on is wanted. Waits for a removal that is under way."""
        with self._changed:
            self._changed.wait_for(lambda: container not in self._under_way)
            self._left.discard(container)

    def tidy(self) -> None:
        """Removes what is still to be removed."""
        with self._changed:
            left = sorted(self._left)
        if not left:
            return
        try:
            engine = self._engines.get()
        except NoEngine:
            return  # with its next one, what is left is still there
        for container in left:
            if self._take(container):
                self._remove(engine, container)

    def tidy_later(self) -> None:
        """The same, beside everything else."""
        # One at a time: an engine that hangs is waited for longer than it takes until the next call.
        if self._left and not (self._tidying is not None and self._tidying.is_alive()):
            thread = threading.Thread(target=self.tidy, name="tidy-containers", daemon=True)
            thread.start()
            self._tidying = thread

    def tidy_within(self, seconds: float) -> None:
        """The same, and waits a while for its end: an engine may hang."""
        self.tidy_later()
        if self._tidying is not None:
            self._tidying.join(seconds)

    def _take(self, container: str) -> bool:
        """Whether it is this thread that removes it. Another that is at it is waited for."""
        with self._changed:
            self._changed.wait_for(lambda: container not in self._under_way)
            if container not in self._left:
                return False
            self._under_way.add(container)
            return True

    def _remove(self, engine: Engine, container: str) -> None:
        is_gone = False
        try:
            engine.client.remove(container)
            is_gone = True
        except EngineError as error:
            extra = {"container": container, "error": str(error)}
            log.warning("a container could not be removed", extra=extra)
        finally:
            with self._changed:
                self._under_way.discard(container)
                if is_gone:
                    self._left.discard(container)
                self._changed.notify_all()
