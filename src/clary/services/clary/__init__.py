"""The server's own operations, below `/_clary/`: what stands and why, what was deployed, starting over."""

from collections.abc import Callable, Sequence

from clary.domain.clock import Clock
from clary.domain.instances import LogTarget
from clary.services.clary.deployments import Deployments
from clary.services.clary.explain import Explain
from clary.services.clary.models import AskHost, EndpointModels
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
    ask_host: AskHost,
) -> tuple[object, ...]:
    """`log_tail` gives a stream's last lines; `reset` empties everything; `parts` says how each process is; `ask_host`
    calls the host over its link."""
    status = Status(store, clock, settings, reset=reset, parts=parts)
    explain = Explain(store, log_tail, settings.command_options)
    return (status, explain, Deployments(store), EndpointModels(store, ask_host))
