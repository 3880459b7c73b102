"""STS: who is calling. `resources` makes all that answers."""

from clary.services.sts.identity import Identity


def resources() -> tuple[object, ...]:
    return (Identity(),)
