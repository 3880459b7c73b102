"""`clary demo`: the whole story in one command, told by an ordinary boto3 client, then by the SageMaker SDK.

Everything below `_Story` is what a user would write against the real SageMaker; nothing in it knows Clary. The
server is a separate `clary up` on temporary data, stopped at the end whatever happens. The SDK's half is
`demo_sdk`'s.
"""

import argparse
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clary import settings, supervisor
from clary.cli import CommandError, demo_sdk, server
from clary.cli.env import minimal
from clary.cli.progress import Phases
from clary.links import processes
from clary.wire.client import ClientError

NEEDED = ("boto3", "xgboost", "sklearn", "matplotlib")
NAME = "clary-demo"
ROLE = "arn:aws:iam::{account}:role/SageMakerExecutionRole"
IMAGE = "683313688378.dkr.ecr.{region}.amazonaws.com/sagemaker-xgboost:1.7-1"
SHOWN_ROWS = 10
STOPS_WITHIN_S = 130.0  # what `clary down` waits: each group of processes has its own grace


def run(arguments: argparse.Namespace) -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the demo's client needs {', '.join(missing)}: pip install 'clary[demo]', or use `make demo`"
        )
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    phases = Phases()
    sdk = None if arguments.no_sdk else demo_sdk.Sdk(arguments)
    with _server(arguments, phases) as running:
        _Story(running, Path(arguments.data) if arguments.data else None, output, phases).tell(sdk)
    _say_what_next(phases)
    return 0


@contextmanager
def _server(arguments: argparse.Namespace, phases: Phases) -> Iterator[server.Running]:
    """A `clary up` of our own. With --data-dir it is kept for a look afterwards, otherwise it is temporary."""
    data_dir = Path(arguments.data_dir or tempfile.mkdtemp(prefix="clary-demo-"))
    log = (data_dir if data_dir.exists() else data_dir.parent) / "demo-up.log"
    command = [sys.executable, "-P", "-m", "clary", "up", "--data-dir", str(data_dir), "--port", "0"]
    with phases.phase("start Clary"):
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        try:
            running = _wait_until_up(arguments, data_dir, process, log)
        except BaseException:
            _end(process, data_dir)
            raise
    try:
        with phases.phase("XGBoost's runtime environment", lambda: _environment(running)):
            _wait_for_environment(running, process, log)
        yield running
    finally:
        with phases.phase("stop Clary"):
            _end(process, data_dir)
        if not arguments.data_dir:
            shutil.rmtree(data_dir, ignore_errors=True)


def _wait_until_up(
    arguments: argparse.Namespace, data_dir: Path, process: subprocess.Popen[bytes], log: Path
) -> server.Running:
    while process.poll() is None:
        with suppress(CommandError, OSError, ClientError):
            running = server.running(argparse.Namespace(data_dir=str(data_dir)))
            running.client().admin("GET", "/_clary/health")
            return running
        time.sleep(0.05)
    raise CommandError(f"`clary up` ended:\n{log.read_text(errors='replace')}")


def _wait_for_environment(running: server.Running, process: subprocess.Popen[bytes], log: Path) -> None:
    while (state := _environment(running)) != "ready":
        if state.startswith("failed"):
            raise CommandError(f"the environment could not be built: {state}")
        if process.poll() is not None:
            raise CommandError(f"`clary up` ended:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)


def _environment(running: server.Running) -> str:
    """The state of the XGBoost environment: `ready`, `failed: …`, or what is being done for it."""
    try:
        status = running.client().admin("GET", "/_clary/status")
    except (OSError, ClientError) as error:  # it passes: the host starts, or is just being started again
        return f"no answer yet: {error}"
    return str(status["Parts"]["Environments"].get("xgboost", ""))


def _end(process: subprocess.Popen[bytes], data_dir: Path) -> None:
    """`clary up` ends its processes itself. One that takes too long, or a person who will not wait, ends it first."""
    process.send_signal(signal.SIGINT)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPS_WITHIN_S)
    finally:
        process.kill()
        process.wait()
        _end_what_it_left(process, data_dir)


def _end_what_it_left(process: subprocess.Popen[bytes], data_dir: Path) -> None:
    """Its processes live in sessions of their own. Those of another server on the data directory are none of it."""
    asked = server.wanted(argparse.Namespace(data_dir=str(data_dir)))
    leader = processes.read(
        asked.run_dir / "supervisor.pid.json"
    )  # a supervisor that came to its end removes it
    if leader is not None and leader.pid == process.pid:
        with suppress(FileNotFoundError):  # killed before it started anything
            supervisor.stop_everything(settings.read(supervisor.settings_path(asked)))


class _Story:
    """Train, upload, deploy, invoke, compare: plain boto3 and XGBoost; then the same model with the SDK."""

    def __init__(self, running: server.Running, data: Path | None, output: Path, phases: Phases) -> None:
        self._running, self._data, self._output, self._phases = running, data, output, phases
        os.environ.update(minimal(running))
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
            os.environ.pop(name, None)

    def tell(self, sdk: demo_sdk.Sdk | None) -> None:
        with self._phases.phase("load the data and the client libraries"):
            import boto3

            from clary.cli import demo_data

            table = demo_data.from_csv(self._data) if self._data else demo_data.diabetes()
            x_train, y_train, x_test, y_test = table.split()
            self._s3, self._sagemaker = boto3.client("s3"), boto3.client("sagemaker")
            self._runtime = boto3.client("sagemaker-runtime")
        with self._phases.phase(
            f"train on {len(y_train)} rows of {table.name} × {x_train.shape[1]} features"
        ):
            booster = _train(x_train, y_train)
        with self._phases.phase("upload model.tar.gz to s3://clary-demo"):
            uri = self._upload(archive := _archive(booster))
        with self._phases.phase("create model, endpoint configuration, endpoint"):
            self._create(uri)
        with self._phases.phase("wait until it is InService (boto3's own waiter)"):
            waiter = self._sagemaker.get_waiter("endpoint_in_service")
            waiter.wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 600})
        with self._phases.phase(f"invoke it for {len(y_test)} test rows, one call each"):
            predicted = self._invoke(x_test)
        with self._phases.phase("draw the comparison"):
            picture = _draw(table, y_test, predicted, self._output)
        _report(booster, x_test, y_test, predicted, y_train, picture)
        if sdk is not None and (python := sdk.await_python(self._phases)) is not None:
            rows = [["" if value != value else float(value) for value in row] for row in x_test]
            print(f"   The same with the SageMaker SDK, in {len(demo_sdk.LINES)} lines:\n")
            answered = demo_sdk.tell(python, self._running, archive, rows, self._phases)
            furthest = max(abs(a - b) for a, b in zip(answered, predicted, strict=True))
            print(f"\n   against boto3's {len(predicted)} answers: largest difference {furthest:.2g}\n")

    def _upload(self, archive: bytes) -> str:
        self._s3.create_bucket(Bucket=NAME)
        self._s3.put_object(Bucket=NAME, Key="model.tar.gz", Body=archive)
        return f"s3://{NAME}/model.tar.gz"

    def _create(self, uri: str) -> None:
        found = self._running.settings
        self._sagemaker.create_model(
            ModelName=NAME,
            ExecutionRoleArn=ROLE.format(account=found.account),
            PrimaryContainer={"Image": IMAGE.format(region=found.region), "ModelDataUrl": uri},
        )
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": NAME,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        self._sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
        self._sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)

    def _invoke(self, rows: Any) -> list[float]:
        predictions = []
        for row in rows:
            body = ",".join("" if value != value else repr(float(value)) for value in row)
            answer = self._runtime.invoke_endpoint(EndpointName=NAME, ContentType="text/csv", Body=body)
            predictions.append(float(answer["Body"].read()))
        return predictions


def _train(features: Any, values: Any) -> Any:
    import xgboost

    parameters = {"objective": "reg:squarederror", "max_depth": 3, "eta": 0.05, "subsample": 0.8, "seed": 7}
    return xgboost.train(parameters, xgboost.DMatrix(features, label=values), num_boost_round=150)


def _archive(booster: Any) -> bytes:
    """model.tar.gz as SageMaker's built-in XGBoost writes it: one file, `xgboost-model`."""
    model = bytes(booster.save_raw("ubj"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("xgboost-model")
        member.size = len(model)
        archive.addfile(member, io.BytesIO(model))
    return buffer.getvalue()


def _draw(table: Any, actual: Any, predicted: list[float], output: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 5.6), dpi=130, layout="constrained")
    low, high = min(*actual, *predicted), max(*actual, *predicted)
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=1, label="perfect")
    axes.scatter(
        actual,
        predicted,
        s=22,
        alpha=0.75,
        color="#1b6ca8",
        edgecolor="white",
        linewidth=0.4,
        label="test row",
    )
    axes.set_xlabel(f"actual: {table.target}")
    axes.set_ylabel("predicted by the endpoint")
    axes.set_title(f"{table.name}: {len(predicted)} test rows, error (RMSE) {_rmse(actual, predicted):.3g}")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    path = output / f"{table.name}.png"
    figure.savefig(path)
    pyplot.close(figure)
    return path


def _report(
    booster: Any, x_test: Any, actual: Any, predicted: list[float], y_train: Any, picture: Path
) -> None:
    import xgboost

    print("\n      predicted       actual   difference")
    for guess, value in list(zip(predicted, actual, strict=True))[:SHOWN_ROWS]:
        print(f"   {guess:12.2f} {value:12.2f} {guess - value:12.2f}")
    if len(predicted) > SHOWN_ROWS:
        print(f"   … and {len(predicted) - SHOWN_ROWS} more")
    mean = float(y_train.mean())
    local = booster.predict(xgboost.DMatrix(x_test))
    furthest = max(abs(a - float(b)) for a, b in zip(predicted, local, strict=True))
    print(f"\n   error (RMSE)        {_rmse(actual, predicted):.4g}")
    print(f"   always the mean     {_rmse(actual, [mean] * len(predicted)):.4g}")
    print(f"   against the model predicting in this process: largest difference {furthest:.2g}")
    print(f"   picture             {picture}\n")


def _rmse(actual: Any, predicted: list[float]) -> float:
    total = sum((float(value) - guess) ** 2 for value, guess in zip(actual, predicted, strict=True))
    return float((total / len(predicted)) ** 0.5)


def _say_what_next(phases: Phases) -> None:
    total = sum(took for _, took in phases.times)
    slowest = max(phases.times, key=lambda entry: entry[1])
    print(
        f"\n{total:.1f} s in all; the longest phase: {slowest[0]} ({slowest[1]:.1f} s). Nothing is left running."
    )
    print(
        "\nTry next:\n"
        "  make demo DATA=table.csv             the same with your own table: its last column is predicted\n"
        "  clary up                             keep a server running, then in another terminal\n"
        '  eval "$(clary env)"                  point boto3, the SageMaker SDKs and the AWS CLI at it\n'
        "  docs/tutorial/first-endpoint.md      every step of it by hand\n"
        "  clary status | logs | why NAME       see what runs, what it says, and why it stands where it stands"
    )
