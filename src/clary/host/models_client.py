"""What the host says to a multi-model container: the `/models` routes over its socket, our own server's or anybody's.

Connections are kept and used again; one that ended while it was idle says nothing about the container, so the call is
made once more on a new one: every operation of the contract may be repeated.
"""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlencode

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 60.0
LIST_TIMEOUT_S = 15.0
LONGEST_TEXT = 2048
LARGEST_ANSWER = 16 << 20
MOST_PAGES = 1000
"""A container that never comes to an end of its models is not listened to for ever."""


class Unreachable(Exception):
    """There is no container, or it ended during the call. `was_sent`: it may have seen the request."""

    def __init__(self, why: str, *, was_sent: bool) -> None:
        super().__init__(why)
        self.was_sent = was_sent


class TooSlow(Exception):
    """No answer in time; what becomes of the request is unknown."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str

    @property
    def said(self) -> "Said":
        with suppress(ValueError, TypeError, AttributeError):
            return _said(json.loads(self.text))
        return Said()


@dataclass(frozen=True, slots=True)
class Said:
    """What our own server says of a model besides; others say nothing, and what they hold is code of the user's."""

    memory_bytes: int = 0
    runs_script: bool = True


class ModelsClient:
    """Thread-safe. `address` is `unix:/path` or `tcp:host:port`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def load(self, name: str, url: str, timeout_s: float) -> Answer:
        body = json.dumps({"model_name": name, "url": url}).encode()
        return self._call("POST", "/models", body, timeout_s)

    def unload(self, name: str) -> Answer:
        return self._call("DELETE", f"/models/{quote(name)}")

    def look(self, name: str) -> Answer:
        return self._call("GET", f"/models/{quote(name)}")

    def loaded(self) -> Iterator[tuple[str, Said]]:
        """Names of all that are loaded."""
        token = ""
        for _ in range(MOST_PAGES):
            query = "?" + urlencode({"next_page_token": token}) if token else ""
            answer = self._call("GET", f"/models{query}", timeout_s=LIST_TIMEOUT_S)
            try:
                page = json.loads(answer.text) if answer.status == 200 else {}
                for model in page.get("models", ()):
                    yield str(model["modelName"]), _said(model)
            except (ValueError, TypeError, KeyError, AttributeError):
                return
            token = str(page.get("nextPageToken") or page.get("next_page_token") or "")
            if not token:
                return

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _call(
        self, method: str, target: str, body: bytes | None = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> Answer:
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            with suppress(Unreachable):
                return self._exchange(kept, method, target, body, timeout_s)
        return self._exchange(self._connect(), method, target, body, timeout_s)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        body: bytes | None,
        timeout_s: float,
    ) -> Answer:
        connection.sock.settimeout(timeout_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read(LARGEST_ANSWER)
        except TimeoutError as error:
            connection.close()
            raise TooSlow(f"no answer within {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(str(error) or type(error).__name__, was_sent=True) from error
        if response.will_close or connection.sock is None or not response.isclosed():
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        return Answer(response.status, content.decode("utf-8", "replace"))

    def _connect(self) -> http.client.HTTPConnection:
        kind, _, place = self.address.partition(":")
        connection = http.client.HTTPConnection("localhost")
        try:
            if kind == "unix":
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(CONNECT_TIMEOUT_S)
                connection.sock.connect(place)
            else:
                host, _, port = place.rpartition(":")
                connection.sock = socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as error:
            connection.close()
            raise Unreachable(f"nothing answers at {self.address}: {error}", was_sent=False) from error
        return connection


def _said(model: dict[str, object]) -> Said:
    return Said(int(str(model.get("memoryBytes", 0))), bool(model.get("runsScript", True)))


def shown(answer: Answer) -> str:
    """A container's words, not endless."""
    text = " ".join(answer.text.split())
    return text[:LONGEST_TEXT] or f"status {answer.status} without a word"
