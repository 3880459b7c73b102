"""The server's own operations, below `/_clary/`: what stands, why something is as it is, starting over."""

from collections.abc import Callable, Sequence

from clary.domain.clock import Clock
from clary.domain.instances import LogTarget
from clary.services.clary.explain import Explain
from clary.services.clary.status import Status
from clary.settings import Settings
from clary.store import Store


def resources(
    store: Store,
    clock: Clock,
    settings: Settings,
    *,
    log_tail: Callable[[LogTarget, int], Sequence[str]],
    reset: Callable[[], None],
    parts: Callable[[], dict[str, object]],
) -> tuple[object, ...]:
    """`log_tail` gives a stream's last lines; `reset` empties everything; `parts` says how each process is."""
    return (
        Status(store, clock, settings, reset=reset, parts=parts),
        Explain(store, log_tail, settings.command_options),
    )
