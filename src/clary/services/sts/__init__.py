"""STS: who is calling, and credentials for a while. `resources` makes all that answers."""

from collections.abc import Callable

from clary.domain.rights import Rights
from clary.services.sts.identity import Identity
from clary.services.sts.sessions import Sessions
from clary.wire.sessions import KeyRing


def resources(keys: KeyRing, rights: Callable[[], Rights], now: Callable[[], float]) -> tuple[object, ...]:
    """`now` gives real time, in epoch seconds: credentials never run on a fake clock."""
    return (Identity(), Sessions(keys, rights, now))
