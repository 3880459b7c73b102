"""Environments: built once by one, never used half-built, and a failure says what to do. Builds need no network
here: the package is a wheel made on the spot.
"""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clary.catalog import Manifest
from clary.host.environments import Environment, EnvironmentFailed, Environments, environment_key
from clary.host.package_indexes import uv_variables


def make_wheel(folder: Path, name: str = "tiny", version: str = "1.0") -> str:
    """A package; its hash."""
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", f"ANSWER = 42\nVERSION = '{version}'\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


class Bench:
    def __init__(self, root: Path, digest: str = "") -> None:
        self.digest = digest or make_wheel(root)
        (root / "requirements.lock").write_text(f"tiny==1.0 --hash=sha256:{self.digest}\n")
        self.manifest = Manifest(
            directory=root,
            name="tiny",
            version="1.0",
            module="tiny",
            repositories=("tiny",),
            roles=("serve",),
            lock="requirements.lock",
        )
        self.environ: Mapping[str, str] = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(root),
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(root),
            "UV_CACHE_DIR": str(root / "uv"),
        }
        self.root = root / "environments"
        self.environments = Environments(self.root, {}, self.environ)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_environment_is_built_once_for_all_and_works(bench: Bench) -> None:
    heard: list[str] = []
    other_host = Environments(bench.root, {}, bench.environ)
    with ThreadPoolExecutor(6) as pool:
        found = list(
            pool.map(
                lambda each: each.obtain(bench.manifest, heard.append), [bench.environments, other_host] * 3
            )
        )
    assert len(set(found)) == 1
    assert sum("Creating virtual environment" in line for line in heard) == 1
    done = subprocess.run(
        [str(found[0].python), "-I", "-c", "import tiny; print(tiny.ANSWER)"], capture_output=True, check=True
    )
    assert done.stdout == b"42\n"
    assert bench.environments.size_bytes(bench.manifest) > 0


def test_a_half_built_environment_is_never_used(bench: Bench) -> None:
    built = bench.environments.obtain(bench.manifest, _nobody)
    directory = built.python.parent.parent
    (directory / ".ready").unlink()
    assert bench.environments.ready(bench.manifest) is None
    next(directory.rglob("tiny.py")).unlink()
    bench.environments.obtain(bench.manifest, _nobody)
    assert list(directory.rglob("tiny.py"))


def test_a_failed_build_says_why_and_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    make_wheel(tmp_path)
    bench = Bench(tmp_path, digest="0" * 64)
    with pytest.raises(EnvironmentFailed) as failed:
        bench.environments.obtain(bench.manifest, _nobody)
    assert "ash mismatch" in str(failed.value)
    assert "index_urls" in str(failed.value)
    assert bench.environments.failure_of(bench.manifest) == str(failed.value)
    assert not any(path.is_dir() for path in bench.root.iterdir())


def test_a_failed_build_may_be_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    wheel = next(tmp_path.glob("*.whl"))
    hidden = wheel.rename(tmp_path / "hidden")
    with pytest.raises(EnvironmentFailed):
        bench.environments.obtain(bench.manifest, _nobody)
    hidden.rename(wheel)
    assert bench.environments.obtain(bench.manifest, _nobody).python.exists()
    assert bench.environments.failure_of(bench.manifest) is None


def test_the_key_follows_the_lock(bench: Bench) -> None:
    before = environment_key(bench.manifest)
    assert environment_key(bench.manifest) == before
    (bench.manifest.directory / "requirements.lock").write_text("tiny==2.0\n")
    assert environment_key(bench.manifest) != before


def _says(environment: Environment, code: str) -> str:
    done = subprocess.run(
        [str(environment.python), "-I", "-c", f"import tiny; print({code})"],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip()


def test_H06_requirements_make_an_environment_of_their_own_on_top(bench: Bench, tmp_path: Path) -> None:
    make_wheel(tmp_path, "extra")
    make_wheel(tmp_path, version="2.0")
    plain = bench.environments.obtain(bench.manifest, _nobody)
    with ThreadPoolExecutor(3) as pool:
        wanted = ["extra\n", "extra\n", "tiny>=2\n"]
        found = list(pool.map(lambda text: bench.environments.obtain(bench.manifest, _nobody, text), wanted))
    assert found[0] == found[1]
    assert len({each.key for each in (plain, *found)}) == 3
    assert _says(found[0], "__import__('extra').ANSWER, tiny.VERSION") == "42 1.0"
    assert _says(found[2], "tiny.VERSION") == "2.0"
    assert _says(plain, "tiny.VERSION") == "1.0"  # a hard link was replaced, not written into
    assert bench.environments.ready(bench.manifest, "extra\n") == found[0]


def test_H06_a_dependency_that_does_not_install_says_so_in_uv_s_words(bench: Bench) -> None:
    with pytest.raises(EnvironmentFailed) as failed:
        bench.environments.obtain(bench.manifest, _nobody, "no-such-package\n")
    assert "requirements.txt could not be installed" in str(failed.value)
    assert "no-such-package" in str(failed.value)
    assert sorted(path.name for path in bench.root.iterdir() if path.is_dir()) == [
        bench.environments.obtain(bench.manifest, _nobody).python.parent.parent.name
    ]


def test_uv_gets_the_machine_s_settings_and_nothing_else() -> None:
    variables = uv_variables(
        {
            "HTTPS_PROXY": "p",
            "no_proxy": "n",
            "SSL_CERT_FILE": "c",
            "UV_INDEX": "i",
            "AWS_SECRET_ACCESS_KEY": "s",
        }
    )
    assert (
        variables.items()
        >= {"HTTPS_PROXY": "p", "no_proxy": "n", "SSL_CERT_FILE": "c", "UV_INDEX": "i"}.items()
    )
    assert "AWS_SECRET_ACCESS_KEY" not in variables


def test_what_pip_is_told_reaches_uv_unless_uv_is_told_itself(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url =\n  https://a\n  https://b\n"
    )
    from_file = uv_variables({"PIP_CONFIG_FILE": str(config)})
    assert from_file["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert from_file["UV_INDEX"] == "https://a https://b"
    from_variable = uv_variables({"PIP_CONFIG_FILE": str(config), "PIP_INDEX_URL": "https://v"})
    assert from_variable["UV_DEFAULT_INDEX"] == "https://v"
    uv_wins = uv_variables({"PIP_CONFIG_FILE": str(config), "UV_DEFAULT_INDEX": "https://uv"})
    assert uv_wins["UV_DEFAULT_INDEX"] == "https://uv"


def test_the_python_is_the_server_s_own(bench: Bench) -> None:
    python = bench.environments.obtain(bench.manifest, _nobody).python
    done = subprocess.run(
        [str(python), "-c", "import sys; print(sys.version)"], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == sys.version


def _nobody(text: str) -> None:
    return
