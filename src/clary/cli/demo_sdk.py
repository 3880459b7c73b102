"""The demo's second half: the same model with the SageMaker Python SDK 2, in six lines that are shown as they run.

The SDK is large, so it is in an environment of its own, made once from the lock beside this module like the
environments of the runtimes; a Python that has it installed already is taken as it is. The environment is made while
the first half runs. Where it cannot be made the demo says so and ends without its second half.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clary.catalog import Manifest
from clary.cli import CommandError, server
from clary.cli.progress import Phases
from clary.cli.run import environment
from clary.host.environments import EnvironmentFailed, Environments

VERSION = "2.257.7"
SIZE_MB = 300
LINES = {
    "session, role = sagemaker.Session(), sagemaker.get_execution_role()": "session and role",
    'image = sagemaker.image_uris.retrieve("xgboost", session.boto_region_name, "1.7-1")': "the image's address",
    'data = session.upload_data("model.tar.gz", key_prefix="clary-demo")': "upload to the session's default bucket",
    "model = sagemaker.Model(image, data, role, predictor_cls=sagemaker.Predictor)": "the model",
    'predictor = model.deploy(1, "ml.m5.large", serializer=sagemaker.serializers.CSVSerializer())': (
        "deploy (the SDK sleeps 30 s before its first look)"
    ),
    "answer = predictor.predict(rows)": "predict all test rows in one call",
}

# Runs the lines one by one and says on its standard output when each is done. What the SDK prints goes elsewhere.
_RUNNER = """
import json, os, sys
told = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
import sagemaker
names = {"sagemaker": sagemaker, "rows": json.load(open("rows.json"))}
print("ready", file=told)
for line in json.load(open("lines.json")):
    exec(line, names)
    print("done", file=told)
print(json.dumps(names["answer"].decode()), file=told)
"""


class Sdk:
    """A Python with the SDK: found at once, or made by a thread from the moment this is created."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        wanted = server.wanted(arguments)
        self._environments = Environments(
            wanted.cache_dir / "environments", wanted.index_urls, os.environ, find_links=wanted.find_links
        )
        self._doing = ""
        self._failure = ""
        self._python = _installed() or self._built()
        self._thread = threading.Thread(target=self._make, daemon=True)
        if self._python is None:
            print(
                f"The second half uses the SageMaker SDK {VERSION}. Meanwhile an environment for it is made, once, "
                f"in {wanted.cache_dir} (about {SIZE_MB} MB; --no-sdk leaves it out)."
            )
            self._thread.start()

    def await_python(self, phases: Phases) -> Path | None:
        """The Python, once it is there; None, having said why, when it could not be made."""
        if self._python is None:
            with phases.phase("the SageMaker SDK's environment", lambda: self._doing):
                self._thread.join()
        if self._python is None:
            print(f"\n   The second half, with the SageMaker SDK, is left out: {self._failure}")
        return self._python

    def _built(self) -> Path | None:
        found = self._environments.ready(_MANIFEST)
        return found.python if found else None

    def _make(self) -> None:
        try:
            self._python = self._environments.obtain(_MANIFEST, self._tell).python
        except EnvironmentFailed as error:
            self._failure = str(error)

    def _tell(self, text: str) -> None:
        self._doing = text


def tell(
    python: Path, running: server.Running, archive: bytes, rows: Sequence[Sequence[object]], phases: Phases
) -> list[float]:
    """Runs the six lines against the server; what the endpoint predicted for the rows."""
    with tempfile.TemporaryDirectory(prefix="clary-sdk-") as place:
        folder = Path(place)
        (folder / "model.tar.gz").write_bytes(archive)
        (folder / "rows.json").write_text(json.dumps(rows))
        (folder / "lines.json").write_text(json.dumps([*LINES]))
        with _child(python, running, folder) as child:
            with phases.phase("import sagemaker"):
                _hear(child, folder)
            for line, title in LINES.items():
                print(f"   >>> {line}")
                with phases.phase(title):
                    _hear(child, folder)
            answer: str = json.loads(_hear(child, folder))
    return [float(word) for word in answer.split()]


@contextmanager
def _child(python: Path, running: server.Running, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    quiet = {"SAGEMAKER_SUPPRESS_V2_WARNING": "1", "HOME": str(folder)}
    with (folder / "sdk.log").open("w") as log:
        child = subprocess.Popen(
            [str(python), "-W", "ignore", "-c", _RUNNER],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env=environment(running) | quiet,
        )
    with child:
        try:
            yield child
        finally:
            child.kill()


def _hear(child: "subprocess.Popen[str]", folder: Path) -> str:
    assert child.stdout is not None, "it was asked for"
    line = child.stdout.readline()
    if not line:
        raise CommandError(f"the SDK's half of the demo ended:\n{(folder / 'sdk.log').read_text()[-3000:]}")
    return line


def _installed() -> Path | None:
    """This Python, when it has version 2 of the SDK."""
    try:
        is_there = importlib.metadata.version("sagemaker").startswith("2.")
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(sys.executable) if is_there and importlib.util.find_spec("sagemaker") else None


_MANIFEST = Manifest(
    directory=Path(__file__).parent,
    name="sagemaker-sdk",
    version=VERSION,
    module="sagemaker",
    repositories=(),
    roles=(),
    lock="demo_sdk.lock",
)
