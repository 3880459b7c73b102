"""What an environment may be made of: the way its packages take, and no CUDA where nothing can use it. No network: the
packages are wheels made on the spot.
"""

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.catalog import Catalog, Manifest
from clary.host import installing
from clary.host.environments import EnvironmentFailed, Environments
from clary.host.installing import cuda_among, special_builds


def wheel(folder: Path, name: str, version: str, requires: str = "") -> str:
    """Makes a package; its hash."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = '{version}'\n")
        archive.writestr(f"{about}/METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


class World:
    """A framework `net` of torch's build for CPUs; packages for everybody in `public`, that build in `cpu`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.public, self.cpu = root / "public", root / "cpu"
        wheel(self.public, "torch", "2.0", "nvidia-cublas")
        wheel(self.public, "torch", "2.1", "nvidia-cublas")
        wheel(self.public, "nvidia_cublas", "12.0")
        wheel(self.public, "vision", "2.0", "torch==2.0")
        wheel(self.public, "vision", "2.1", "torch==2.1")
        digest = wheel(self.cpu, "torch", "2.0+cpu")
        (root / "requirements.lock").write_text(f"torch==2.0+cpu --hash=sha256:{digest}\n")

    def manifest(self, *indexes: str) -> Manifest:
        return Manifest(
            directory=self.root,
            name="net",
            version="2.0",
            module="net",
            repositories=(),
            roles=("serve",),
            lock="requirements.lock",
            indexes=indexes,
        )

    def environments(self, *places: Path, allows_cuda: bool = False, **settings: str) -> Environments:
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.root),
            "UV_CACHE_DIR": str(self.root / "uv"),
            "UV_FIND_LINKS": ",".join(map(str, places)),
            "UV_HTTP_RETRIES": "0",
            "UV_DEFAULT_INDEX": settings.pop("index", "") or (self.root / "none").as_uri(),
        }
        (self.root / "none").mkdir(exist_ok=True)
        return Environments(
            self.root / "environments", {}, environ, find_links=settings, allows_cuda=allows_cuda
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(installing, "CPU_BUILDS", (tmp_path / "unreachable").as_uri())
    return World(tmp_path)


def test_H06_a_framework_s_own_index_is_tried_when_the_machine_has_not_its_build(
    world: World, index_of_cpu_builds: str
) -> None:
    environments = world.environments(world.public)
    with pytest.raises(EnvironmentFailed, match="indexes of this machine"):
        environments.obtain(world.manifest("http://127.0.0.1:1/simple"), _nobody)
    built = environments.obtain(world.manifest(index_of_cpu_builds), _nobody)
    assert special_builds(built.python.parent.parent) == [("torch", "2.0+cpu")]
    ready = (built.python.parent.parent / ".ready").read_text().splitlines()
    assert ready[1:] == [index_of_cpu_builds]  # what comes on top later takes the same way


def test_H06_a_setting_names_where_a_framework_s_packages_are(world: World) -> None:
    environments = world.environments(world.public, net=str(world.cpu))
    built = environments.obtain(world.manifest(), _nobody)
    assert special_builds(built.python.parent.parent) == [("torch", "2.0+cpu")]


@pytest.mark.parametrize("wanted", ["torch\n", "torch==2.0\n", "vision\n", "torch>=1.5,<3\n"])
def test_H06_the_build_for_cpus_stays_whatever_wants_torch_on_top(world: World, wanted: str) -> None:
    environments = world.environments(world.public, world.cpu)
    built = environments.obtain(world.manifest(), _nobody, wanted)
    assert special_builds(built.python.parent.parent) == [("torch", "2.0+cpu")]


def test_H06_an_install_that_would_bring_cuda_is_refused_with_what_to_do(world: World) -> None:
    environments = world.environments(world.public, world.cpu)
    with pytest.raises(EnvironmentFailed) as failed:
        environments.obtain(world.manifest(), _nobody, "torch==2.1\n")
    words = str(failed.value)
    assert "torch==2.1" in words
    assert "nvidia-cublas==12.0" in words
    assert "torch==2.0+cpu is there already" in words
    assert 'cuda = "yes"' in words
    assert "find_links" in words
    allowed = world.environments(world.public, world.cpu, allows_cuda=True)
    built = allowed.obtain(world.manifest(), _nobody, "torch==2.1\n")
    assert special_builds(built.python.parent.parent) == []


def test_H06_another_build_for_cpus_may_take_the_place(world: World) -> None:
    wheel(world.cpu, "torch", "2.1+cpu")
    environments = world.environments(world.public, world.cpu)
    built = environments.obtain(world.manifest(), _nobody, "torch==2.1+cpu\n")
    assert special_builds(built.python.parent.parent) == [("torch", "2.1+cpu")]


def test_what_counts_as_cuda() -> None:
    harmless = [("torch", "2.0+cpu"), ("nvidia-nccl-cu12", "2.0"), ("numpy", "2.0"), ("xgboost", "3.0")]
    assert cuda_among(harmless) == ()
    bad = [("torch", "2.0+cu130"), ("triton", "3.0"), ("nvidia-cudnn-cu13", "9"), ("nvidia-nvjitlink", "1")]
    assert len(cuda_among(bad)) == len(bad)


def test_every_lock_with_torch_has_it_for_all_pythons_and_processors() -> None:
    folders = {manifest.name: manifest.directory for manifest in Catalog.load().manifests}
    wheels = (folders["pytorch"] / "torch-wheels.txt").read_text().splitlines()
    for folder in folders.values():
        for lock in folder.glob("*.lock"):
            text = lock.read_text()
            for line in wheels if "torch==2.13.0+cpu" in text else ():
                assert line.split()[0] in text, f"{lock}: run weave_torch_hashes.py"


@pytest.fixture
def index_of_cpu_builds(world: World) -> Iterator[str]:
    """A package index, as `pip` knows them, with nothing but torch's build for CPUs."""
    path = next(world.cpu.glob("*.whl"))

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = path.read_bytes() if self.path.endswith(".whl") else b""
            if self.path.rstrip("/").endswith("torch"):
                body = f'<a href="/{path.name.replace("+", "%2B")}">{path.name}</a>'.encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _nobody(text: str) -> None:
    return
