"""Errors a caller sees.

    Fault                      code, message, HTTP status; `members` for modelled errors (ModelError …)
    ├── validation()           ValidationException, 400: the usual refusal of SageMaker's control plane
    ├── not_supported()        ValidationException: "<what> is not supported by this server"
    ├── access_denied()        AccessDeniedException, 403
    ├── limit_exceeded()       ResourceLimitExceeded, 400
    ├── throttled()            ThrottlingException, 400
    └── internal()             InternalFailure, 500: a bug of ours; the cause is in the server's log

One class: a fault's code is data (the service models name hundreds), so a class for each would say nothing
more. Whoever handles a fault reads `code`; the wire layer turns it into the protocol's own form.
"""

from collections.abc import Mapping
from typing import Any


class Fault(Exception):
    """An answer that is an error. `members` are further members of the modelled error shape."""

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        *,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.members: Mapping[str, Any] = members or {}
        self.headers: Mapping[str, str] = headers or {}

    @property
    def is_senders(self) -> bool:
        """Whether the caller is at fault (4xx) rather than this server (5xx)."""
        return self.status < 500


def validation(message: str) -> Fault:
    return Fault("ValidationException", message)


def not_supported(what: str) -> Fault:
    return Fault("ValidationException", f"{what} is not supported by this server")


def access_denied(message: str) -> Fault:
    return Fault("AccessDeniedException", message, 403)


def limit_exceeded(message: str) -> Fault:
    return Fault("ResourceLimitExceeded", message)


def throttled(message: str = "Rate exceeded") -> Fault:
    return Fault("ThrottlingException", message)


def internal(message: str = "The server failed to answer; its log names the cause.") -> Fault:
    return Fault("InternalFailure", message, 500)
