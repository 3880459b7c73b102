"""Which engine is found, and what people are told where there is none."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.host.engine.engines import Engines, NoEngine
from clary.host.engine.killings import Killings


class Answering:
    """A socket that answers `GET /info` like an engine."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        body = json.dumps({"ServerVersion": "27.0", "NCPU": 2}).encode()
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest.fixture
def answering(place: Path) -> Iterator[Path]:
    engine = Answering(place / "e.sock")
    yield place / "e.sock"
    engine.close()


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e")


def test_the_setting_names_a_socket(answering: Path) -> None:
    for named in (str(answering), f"unix://{answering}"):
        found = Engines(named, {}, Path("/nowhere")).get()
        assert (found.client.path, found.summary) == (str(answering), f"Docker 27.0 at {answering}")


def test_docker_host_and_the_users_own_sockets_are_found(answering: Path, place: Path) -> None:
    assert Engines("auto", {"DOCKER_HOST": f"unix://{answering}"}, Path("/nowhere")).running() is not None
    (place / "docker.sock").symlink_to(answering)
    found = Engines("auto", {"XDG_RUNTIME_DIR": str(place)}, Path("/nowhere")).running()
    assert found is not None
    assert found.client.path == f"{place}/docker.sock"


def test_podman_without_a_service_is_started_when_it_is_needed(place: Path) -> None:
    (place / "podman").touch(0o755)
    started: list[Answering] = []
    own = place / "own.sock"
    engines = Engines(
        "auto", {"PATH": str(place)}, own, lambda path: started.append(Answering(path)), usual=()
    )
    assert "started when an image of your own needs it" in engines.summary
    assert engines.running() is None
    try:
        assert engines.get().client.path == engines.get().client.path == str(own)
        assert len(started) == 1
    finally:
        for each in started:
            each.close()


def test_an_engine_on_another_machine_is_none(place: Path) -> None:
    environ = {"PATH": str(place), "DOCKER_HOST": "tcp://elsewhere:1"}
    with pytest.raises(NoEngine, match="there is no container engine"):
        Engines("auto", environ, place / "own.sock").get()


def test_where_there_is_none_people_are_told_what_to_do(place: Path) -> None:
    nobody = {"PATH": str(place), "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    with pytest.raises(NoEngine, match="apt-get install podman runc"):
        Engines("auto", nobody, place / "own.sock").get()
    with pytest.raises(NoEngine, match="the setting container_engine is none"):
        Engines("none", nobody, place / "own.sock").get()
    with pytest.raises(NoEngine, match=r"answers at /nowhere/e\.sock"):
        Engines("/nowhere/e.sock", nobody, place / "own.sock").get()
    assert "no new one can start" in Engines("/nowhere/e.sock", nobody, place / "own.sock").summary


@pytest.mark.parametrize(
    ("groups", "file", "content"),
    [
        ("4:memory:/c\n0::/\n", "memory/c/memory.oom_control", "under_oom 0\noom_kill 2\n"),
        ("0::/c\n", "c/memory.events", "oom 3\noom_kill 2\noom_group_kill 0\n"),
    ],
    ids=["cgroup v1", "cgroup v2"],
)
def test_the_kernels_kills_are_counted(tmp_path: Path, groups: str, file: str, content: str) -> None:
    (tmp_path / "groups").write_text(groups)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    assert Killings(1, tmp_path / "groups", tmp_path).count() == 2
    assert Killings(1, tmp_path / "absent", tmp_path).count() == 0
