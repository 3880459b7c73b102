"""How SNS refuses."""

from clary.domain.faults import Fault


def bad(why: str) -> Fault:
    return Fault("InvalidParameter", f"Invalid parameter: {why}")


def absent(what: str) -> Fault:
    return Fault("NotFound", f"{what} does not exist", 404)
