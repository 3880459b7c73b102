"""The Docker Engine API over a Unix socket: the little of it that Docker and Podman answer alike.

Every call has a connection of its own and may be made from any thread. Paths carry no version, so an engine answers
with its newest; nothing here needs more than version 1.40. Errors:

  EngineError
  ├── EngineAway       it does not answer, or went away during the call: what it did is unknown
  └── EngineRefused    it answered with an error, `status` and its own words
      └── NotThere     no such image or container
"""

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

CALL_TIMEOUT_S = 60.0
PULL_SILENCE_S = 600.0
_LONGEST_MESSAGE = 2000


class EngineError(Exception):
    """See the module."""


class EngineAway(EngineError):
    pass


class EngineRefused(EngineError):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotThere(EngineRefused):
    pass


class Output:
    """What a container prints, as it comes; stdout and stderr in one."""

    def __init__(self, connection: "UnixConnection", response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        """Ends with the container, or the engine: either closes the stream. Frames of 8 bytes and a payload."""
        while len(head := self._response.read(8)) == 8:
            left = int.from_bytes(head[4:], "big")
            while left and (data := self._response.read1(min(left, 1 << 18))):
                left -= len(data)
                yield data

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class EngineClient:
    """An engine at its socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def info(self, timeout_s: float = CALL_TIMEOUT_S) -> dict[str, Any]:
        return self._object("GET", "/info", timeout_s=timeout_s)

    def image(self, name: str) -> dict[str, Any]:
        """Raises `NotThere` for an image that the engine does not hold."""
        return self._object("GET", f"/images/{quote(name, safe='/:@')}/json")

    def pull(self, repository: str, tag: str, credentials: str, progress: Callable[[str], None]) -> None:
        """Returns when the engine holds the image. `credentials` is the X-Registry-Auth header, or nothing."""
        query = urlencode({"fromImage": repository, "tag": tag})
        headers = {"X-Registry-Auth": credentials} if credentials else {}
        connection, response = self._ask("POST", f"/images/create?{query}", None, headers, PULL_SILENCE_S)
        try:
            for line in response:
                _heed(line, progress)
        except (OSError, http.client.HTTPException) as error:
            raise EngineAway(f"the container engine at {self.path} went away: {error}") from error
        finally:
            response.close()
            connection.close()

    def create(self, name: str, body: Mapping[str, Any]) -> str:
        return str(self._object("POST", f"/containers/create?name={quote(name)}", body)["Id"])

    def start(self, container: str) -> None:
        self._done("POST", f"/containers/{container}/start")

    def inspect(self, container: str) -> dict[str, Any]:
        return self._object("GET", f"/containers/{container}/json")

    def attach(self, container: str) -> Output:
        """Its output from now on: before `start`, all of it."""
        connection, response = self._ask(
            "POST", f"/containers/{container}/attach?stream=1&stdout=1&stderr=1", None, {}, CALL_TIMEOUT_S
        )
        connection.raw.settimeout(None)  # it may be silent for days
        return Output(connection, response)

    def wait(self, container: str, timeout_s: float) -> int:
        """Its exit code, once it has ended."""
        return int(self._object("POST", f"/containers/{container}/wait", timeout_s=timeout_s)["StatusCode"])

    def kill(self, container: str, number: int) -> None:
        self._done("POST", f"/containers/{container}/kill?signal={number}")

    def remove(self, container: str) -> None:
        """Ends it where it runs; one that is not there is no error."""
        try:
            self._done("DELETE", f"/containers/{container}?force=1&v=1")
        except NotThere:
            return

    def labelled(self, *labels: str) -> list[dict[str, Any]]:
        """The containers that have all these labels (`key=value`), running or not."""
        query = urlencode({"all": 1, "filters": json.dumps({"label": list(labels)})})
        found: list[dict[str, Any]] = self._json("GET", f"/containers/json?{query}")
        return found

    def _object(
        self, method: str, path: str, body: object = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        found: dict[str, Any] = self._json(method, path, body, timeout_s)
        return found

    def _json(self, method: str, path: str, body: object = None, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        connection, response = self._ask(method, path, body, {}, timeout_s)
        try:
            return json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise EngineAway(f"the container engine at {self.path} broke off its answer: {error}") from error
        finally:
            connection.close()

    def _done(self, method: str, path: str) -> None:
        connection, _ = self._ask(method, path, None, {}, CALL_TIMEOUT_S)
        connection.close()

    def _ask(
        self, method: str, path: str, body: object, headers: Mapping[str, str], timeout_s: float
    ) -> "tuple[UnixConnection, http.client.HTTPResponse]":
        connection = UnixConnection(self.path, timeout_s)
        content = b"" if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, content, {**kind, **headers})
            response = connection.getresponse()
            if response.status < 400:
                return connection, response
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise EngineAway(f"the container engine at {self.path} does not answer: {error}") from error
        connection.close()
        kind_of_error = NotThere if response.status == 404 else EngineRefused
        raise kind_of_error(response.status, _message(text))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        # Kept, because an answer without a length takes the connection's own reference away.
        self.raw = self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _message(text: bytes) -> str:
    try:
        said = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        said = text.decode("utf-8", "replace")
    return re.sub(r"\s+", " ", said).strip()[:_LONGEST_MESSAGE]


def _heed(line: bytes, progress: Callable[[str], None]) -> None:
    """One line of a pull's progress. Errors come this way too, long after the status 200."""
    try:
        said = json.loads(line)
    except ValueError:
        return
    if said.get("error"):
        raise EngineRefused(500, _message(json.dumps({"message": said["error"]}).encode()))
    if status := said.get("status"):
        progress(f"{said.get('id', '')} {status} {said.get('progress', '')}".strip())
