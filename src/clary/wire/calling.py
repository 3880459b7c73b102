"""Calls within the server: an operation's handler, called without a socket, with a service's own principal.

What comes over the wire and what a reconciler asks for pass the same validation and the same handler, so nothing that
a client may not write can be written from inside.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from botocore.model import OperationModel

from clary.domain.clock import Clock
from clary.domain.faults import Fault
from clary.domain.principals import Principal
from clary.wire.models import ServiceModels
from clary.wire.operations import Answer, Call, OperationTable


class InProcessCaller:
    """A `clary.wire.operations.Caller` over the table that the wire server answers from.

    Rights are not asked: the caller is the server. It must not be used inside a transaction, as handlers open
    their own.
    """

    def __init__(
        self,
        models: Callable[[], ServiceModels],
        table: OperationTable,
        validate: Callable[[OperationModel, Mapping[str, Any]], None],
        clock: Clock,
    ) -> None:
        """`models` gives the models of everything in `table`; it is asked at the first call, when all is there."""
        self._models = models
        self._table = table
        self._validate = validate
        self._clock = clock

    def __call__(
        self, service: str, operation: str, params: Mapping[str, Any], *, account: str, region: str
    ) -> Mapping[str, Any]:
        handler = self._table.find(service, operation)
        if handler is None:
            raise Fault("InternalFailure", f"{service}.{operation} has no handler in this server.", 500)
        self._validate(self._models().service(service).operation(operation), params)
        call = Call(
            service=service,
            operation=operation,
            account=account,
            region=region,
            principal=service_principal(account, service),
            request_id=str(uuid.uuid4()),
            received_at=self._clock.now(),
        )
        result = handler(call, params)
        members = result.members if isinstance(result, Answer) else result
        return members or {}


def service_principal(account: str, service: str) -> Principal:
    """Who calls when the server itself does."""
    name = f"{service}.amazonaws.com"
    return Principal(access_key_id="", account=account, arn=name, user_id=name)
