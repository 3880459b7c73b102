"""An engine that breaks off."""

import socket
import threading
from pathlib import Path

import pytest

from clary.host.engine.api import EngineAway, EngineClient


def test_a_pull_that_breaks_off_is_an_engine_that_went_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    path: Path = tmp_path_factory.mktemp("e") / "e.sock"
    said: list[str] = []

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            line = b'{"status": "Pulling"}\r\n'
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head + b"%x\r\n%b\r\n" % (len(line), line) + b"ff\r\n{")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(EngineAway, match="went away"):
            EngineClient(str(path)).pull("mine", "1", "", said.append)
        thread.join()
    assert said == ["Pulling"]
