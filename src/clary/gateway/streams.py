"""InvokeEndpointWithResponseStream: what the container writes leaves at once, in frames of an event stream.

Until the container's head has come everything is as for InvokeEndpoint, errors too. From then on the answer's status
is out, so what fails ends the stream with an exception frame.
"""

from typing import Final

import msgspec

from clary.gateway.invocation import Invocation
from clary.gateway.upstream import Broken, Connection, Headers
from clary.wire.protocols.eventstream import CONTENT_TYPE, event_headers, exception_headers, frame

LONGEST_STREAM_S: Final = 480.0

_PART = event_headers("PayloadPart", "application/octet-stream")
_EVENT_STREAM = f"Content-Type: {CONTENT_TYPE}\r\n".encode()
_STREAM_ERROR = exception_headers("ModelStreamError")

_REASONS = {
    Broken.TIMEOUT: ("ModelInvocationTimeExceeded", "The model did not finish its response in time."),
    Broken.CUT: ("StreamBroken", "The connection to the model broke before the end of its response."),
    Broken.GARBAGE: ("StreamBroken", "The model's response is not well-formed HTTP."),
}


class StreamInvocation(Invocation):
    _may_share = False
    _content_type_name = b"X-Amzn-SageMaker-Content-Type"

    def on_head(self, connection: Connection, status: int, headers: Headers) -> None:
        super().on_head(connection, status, headers)
        if self.is_success:
            connection.deadline = self._gateway.loop.time() + LONGEST_STREAM_S
            self._begin_passing_on()

    def on_broken(self, how: Broken) -> None:
        if not self._is_passing_on:
            super().on_broken(how)
            return
        code, message = _REASONS.get(how, _REASONS[Broken.CUT])
        payload = msgspec.json.encode({"Message": message, "ErrorCode": code})
        self._exchange.push(frame(_STREAM_ERROR, payload))
        self._exchange.end()
        self._judge(how)
        self._count_failure(is_models=True)
        self._target.release()
        self._tell_failure()

    def _begin_passing_on(self) -> None:
        self._is_passing_on = True
        self._exchange.on_lost = self._drop
        self._exchange.on_writable = self._go_on
        self._exchange.start(200, self._answer_fields())
        self._keep(b"")

    def _pass_on(self, data: bytes) -> None:
        if not self._exchange.push(frame(_PART, data)):
            assert self._connection is not None, "a body follows a head"
            self._connection.pause_reading()

    def _answer_fields(self) -> bytes:
        return super()._answer_fields() + _EVENT_STREAM
