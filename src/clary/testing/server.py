"""A real `clary up` for tests: its own processes on temporary data, ended with everything it made."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import botocore.config
import botocore.session

from clary.cli import CommandError, server
from clary.links import processes
from clary.links.processes import ProcessIdentity
from clary.settings import Settings
from clary.wire.client import ClientError

START_WITHIN_S = 300.0
END_WITHIN_S = 120.0


class RunningServer:
    """A server on a data directory of its own. `start` and `stop` may alternate: the data stays in between."""

    def __init__(
        self, data_dir: Path | None = None, *options: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._owns_data = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="clary-"))
        self._options = options
        self._environment = {**os.environ, **(environment or {})}
        self._up: subprocess.Popen[bytes] | None = None
        self._clients: dict[tuple[Any, ...], Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._owns_data:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            self.up_log.unlink(missing_ok=True)

    def start(self) -> None:
        """Runs `clary up` and waits until it answers. What it prints is kept in `up_log`."""
        if self._up is not None:
            self._up.wait(END_WITHIN_S)  # the one before, stopped or killed by the test
        port = [] if "--port" in self._options else ["--port", "0"]
        self.up_log.parent.mkdir(parents=True, exist_ok=True)
        with self.up_log.open("ab") as log:
            self._up = subprocess.Popen(
                [*self._clary("up"), *port, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )
        self.running = self._wait_until_up()

    def stop(self) -> None:
        """Runs `clary down`: also after the supervisor was killed."""
        done = subprocess.run(
            self._clary("down"), capture_output=True, text=True, env=self._environment, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"`clary down` failed: {done.stdout}{done.stderr}")
        if self._up is not None:
            self._up.wait(END_WITHIN_S)
            self._up = None

    @property
    def up_log(self) -> Path:
        """What `clary up` printed. Beside the data directory: an ephemeral server begins with an empty one."""
        return self.data_dir.with_name(f"{self.data_dir.name}.up.log")

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def settings(self) -> Settings:
        return self.running.settings

    @property
    def supervisor(self) -> ProcessIdentity:
        assert self._up is not None, "the server was started"
        found = processes.identify(self._up.pid)
        assert found is not None, "the supervisor runs"
        return found

    def process(self, name: str) -> ProcessIdentity | None:
        """`control`, `host`, `gateway-0` …: the one that runs now."""
        return processes.alive(self.settings.run_dir / f"{name}.pid.json")

    def client(self, service: str, **config: Any) -> Any:
        """A botocore client signed with the root key; one attempt, so that a test sees every failure.

        Made once for each server, service and configuration: making one costs more than most calls with it.
        """
        known = (self.url, service, tuple(sorted(config.items())))
        if known not in self._clients:
            self._clients[known] = self._new_client(service, config)
        return self._clients[known]

    def _new_client(self, service: str, config: Mapping[str, Any]) -> Any:
        key = self.running.key
        settings = {"retries": {"max_attempts": 0, "mode": "standard"}, "read_timeout": 120, **config}
        return botocore.session.get_session().create_client(
            service,
            endpoint_url=self.url,
            region_name=self.settings.region,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            config=botocore.config.Config(**settings),
        )

    def status(self) -> dict[str, Any]:
        return self.running.client().admin("GET", "/_clary/status")

    def reset(self) -> None:
        """Empties the server: endpoints, models, buckets, metrics and logs. Of an ephemeral server only."""
        self.running.client().admin("POST", "/_clary/reset")

    def wait_for_environment(self, framework: str) -> None:
        """Until the runtime environment stands: a minute or two the first time on a machine."""
        while (state := self.status()["Parts"]["Environments"].get(framework)) != "ready":
            if str(state).startswith("failed"):
                raise RuntimeError(f"the {framework} environment could not be built: {state}")
            time.sleep(0.05)

    def _clary(self, command: str) -> list[str]:
        return [sys.executable, "-P", "-m", "clary", command, "--data-dir", str(self.data_dir)]

    def _wait_until_up(self) -> server.Running:
        assert self._up is not None
        deadline = time.monotonic() + START_WITHIN_S
        while self._up.poll() is None and time.monotonic() < deadline:
            with suppress(CommandError, OSError, ClientError):
                running = server.running(argparse.Namespace(data_dir=str(self.data_dir)))
                running.client().admin("GET", "/_clary/health")
                if self._leads(running):
                    return running
            time.sleep(0.02)
        raise RuntimeError(f"`clary up` did not start:\n{self.up_log.read_text(errors='replace')}")

    def _leads(self, running: server.Running) -> bool:
        """Whether it is ours: what a killed one left answers already while the next one has not even begun."""
        leader = processes.alive(running.settings.run_dir / "supervisor.pid.json")
        return leader is not None and self._up is not None and leader.pid == self._up.pid
