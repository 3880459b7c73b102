"""What the operations of CloudWatch Logs have in common: naming a group, refusing, and a host that is away."""

from collections.abc import Iterator
from contextlib import contextmanager

from clary.domain.arns import parse_arn
from clary.domain.faults import Fault
from clary.telemetry.logs import LogsUnavailable
from clary.wire.operations import Call


def group_name(call: Call, name: str | None, identifier: str | None) -> str:
    """The group's name from whichever of the two members was given: a name, or a name or ARN."""
    if name is not None and identifier is not None:
        raise invalid("LogGroup name and LogGroup identifier are mutually exclusive parameters.")
    if name is not None:
        return name
    if identifier is None:
        raise invalid("Either LogGroup name or LogGroup identifier must be specified.")
    return name_from(call, identifier)


def name_from(call: Call, identifier: str) -> str:
    arn = parse_arn(identifier)
    if arn is None:
        return identifier
    if (arn.account, arn.region) != (call.account, call.region) or not arn.resource.startswith("log-group:"):
        raise no_group()
    return arn.resource.removeprefix("log-group:").removesuffix(":*")


@contextmanager
def reading() -> Iterator[None]:
    """Tells callers to try again when the host that holds the logs is away."""
    try:
        yield
    except LogsUnavailable as error:
        raise Fault("ServiceUnavailableException", f"The logs cannot be read now: {error}", 503) from error


def invalid(message: str) -> Fault:
    return Fault("InvalidParameterException", message)


def no_group() -> Fault:
    return Fault("ResourceNotFoundException", "The specified log group does not exist.")


def no_stream() -> Fault:
    return Fault("ResourceNotFoundException", "The specified log stream does not exist.")
