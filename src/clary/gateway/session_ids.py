"""The ids of stateful sessions, as clients know them: the container's own id, the instance, the end.

    clients see      chat-7f3a-0d9c5be1f2a4-6920a1c0
    the container    chat-7f3a

So the id itself says which instance holds the session and until when: nothing is kept, every gateway can read it, and
it outlives a restart of any of them. A container mints its id and the end; both come in its answer's header
`X-Amzn-SageMaker-New-Session-Id: ID; Expires=TIME`.
"""

import hashlib
import re
from calendar import timegm
from time import strptime
from typing import NamedTuple

NEW_SESSION = "NEW_SESSION"
PATTERN = "^(NEW_SESSION)$|^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"
LONGEST = 256

_IS_ID = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*\Z").match
_IS_OURS = re.compile(r"(?P<own>.+)-(?P<mark>[0-9a-f]{12})-(?P<end>[0-9a-f]{8,10})\Z").match
_IS_NEW = re.compile(
    r"(?P<id>[a-zA-Z0-9](?:-*[a-zA-Z0-9])*);\s(?P<end>Expires=(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ))\Z"
).match


class SessionId(NamedTuple):
    """`own` is the container's, `mark` the instance's, `ends_at` in seconds since the epoch."""

    own: str
    mark: str
    ends_at: int

    def __str__(self) -> str:
        return f"{self.own}-{self.mark}-{self.ends_at:08x}"


class BadSession(ValueError):
    """The container's header is not what SageMaker asks for; the message says what is."""


def mark(instance_id: str) -> str:
    """What stands for an instance in the ids of its sessions: the same at every gateway."""
    return hashlib.sha256(instance_id.encode()).hexdigest()[:12]


def is_valid(text: str) -> bool:
    return len(text) <= LONGEST and _IS_ID(text) is not None


def parse(text: str) -> SessionId | None:
    """None when it was not minted here."""
    found = _IS_OURS(text) if len(text) <= LONGEST else None
    return SessionId(found["own"], found["mark"], int(found["end"], 16)) if found else None


def opened(header: str, mark: str) -> str:
    """A container's New-Session-Id header as the client gets it. Raises `BadSession`."""
    found = _IS_NEW(header)
    if found is None:
        raise BadSession(f"{header[:LONGEST]!r} is not of the form `ID; Expires=yyyy-mm-ddThh:mm:ssZ`")
    try:
        ends_at = timegm(strptime(found["time"], "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError as error:
        raise BadSession(f"{found['end']} is no time") from error
    if ends_at < 0:
        raise BadSession(f"{found['end']} is before 1970")
    text = f"{SessionId(found['id'], mark, ends_at)}; {found['end']}"
    if len(text) > LONGEST:
        raise BadSession(f"the id has {len(found['id'])} characters, {len(text) - LONGEST} more than fit")
    return text
