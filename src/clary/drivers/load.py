"""The drivers there are: a name and where to find it. Imported only when asked for."""

import importlib
from collections.abc import Callable
from typing import cast

from clary.drivers.base import Driver
from clary.settings import Settings

DRIVERS = {
    "local": "clary.drivers.local:make",
    "fake": "clary.drivers.fake:make",
}


class UnknownDriver(Exception):
    """There is no driver of that name; the message lists those there are."""


def load(name: str, settings: Settings) -> Driver:
    """The driver of that name, made from the settings."""
    try:
        module, function = DRIVERS[name].split(":")
    except KeyError:
        raise UnknownDriver(f"no driver {name!r}; there are {', '.join(sorted(DRIVERS))}") from None
    make = cast("Callable[[Settings], Driver]", getattr(importlib.import_module(module), function))
    return make(settings)
