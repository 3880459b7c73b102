"""Multi-model instances under a real host: loaded once and on demand, bounded, and never each other's trouble."""

import hashlib
import http.client
import io
import json
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import count

import pytest

from clary.blobs.base import Attributes, BucketExists
from clary.blobs.filesystem import FilesystemBlobs
from clary.domain.clock import SystemClock
from clary.domain.instances import InstanceId, ModelSource
from clary.host import limits
from clary.links import hosts
from clary.links import instances as files
from clary.links.metrics import MetricBatch
from hosting.harness import PATIENCE_S, HostProcess, rungs_here, running_host, toy_spec, until_phase

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/many:1"
SCRIPT = """
import json, os, pathlib
def model_fn(model_dir):
    return json.loads(pathlib.Path(model_dir, "model.json").read_text())["answer"]
def transform_fn(model, data, content_type, accept):
    return f"{model} {os.getpid()} {data}", "text/plain"
"""
_numbers = count(1)


@pytest.fixture(scope="module", params=rungs_here())
def host(request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    with running_host(sandbox=request.param, telemetry_interval_s=0.2) as host:
        yield host


@pytest.fixture(scope="module")
def plain_host() -> Iterator[HostProcess]:
    """For what is the same on every rung, with other settings."""
    with running_host(sandbox="0", models_refresh_s=0.001, models_disk_bytes=2500) as host:
        yield host


def packed(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Endpoint:
    """One multi-model instance with a prefix of its own."""

    def __init__(self, host: HostProcess, *, is_cached: bool = True, **environment: str) -> None:
        self.host = host
        number = next(_numbers)
        self.prefix = f"models/{number}/"
        source = ModelSource(f"s3://mme/{self.prefix}", is_cached)
        self.spec = toy_spec(number, image=IMAGE, environment=environment, models=source)
        self.id: InstanceId = self.spec.instance_id

    def start(self) -> "Endpoint":
        self.host.driver.start(self.spec)
        until_phase(self.host.driver, self.id, "ready")
        return self

    def put(self, target: str, data: bytes | None = None, **told: object) -> None:
        content = (
            packed({"model.json": json.dumps({"answer": target, **told}).encode()}) if data is None else data
        )
        with closing(FilesystemBlobs(self.host.settings.objects_dir, SystemClock(), sync=False)) as blobs:
            with suppress(BucketExists):
                blobs.create_bucket("mme", "us-east-1")
            with blobs.stage() as staged:
                staged.write(content)
                etag = hashlib.md5(content).hexdigest()
                blobs.put("mme", self.prefix + target, staged, etag=etag, attributes=Attributes())

    def delete(self, target: str) -> None:
        with closing(FilesystemBlobs(self.host.settings.objects_dir, SystemClock(), sync=False)) as blobs:
            blobs.delete("mme", self.prefix + target)

    def load(self, target: str, timeout_s: float = 60.0) -> hosts.LoadedModel:
        return self.host.client.call(
            "load_model", hosts.LoadModel(self.id, target, timeout_s), hosts.LoadedModel, timeout_s + 30
        )

    def refusal(self, target: str, timeout_s: float = 60.0) -> tuple[str, str]:
        with pytest.raises(hosts.HostError) as refused:
            self.load(target, timeout_s)
        return refused.value.code, str(refused.value)

    def ask(self, name: str, body: str = "?") -> tuple[int, str]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.host.directory(self.id) / files.SOCKET))
        try:
            connection.request("POST", f"/models/{name}/invoke", body, {"Content-Type": "text/csv"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def answers(self, target: str) -> str:
        """As a gateway does it: a model may go between the two, and is asked for again then."""
        for _ in range(5):
            status, text = self.ask(self.load(target).name, "?")
            if status != 404:
                break
        assert status == 200, text
        return text

    def use(self, target: str, at: float, calls: int = 1) -> None:
        use = hosts.ModelUse(self.id, self.load(target).name, calls, at)
        self.host.client.call("use_models", hosts.UseModels((use,)), type(None))

    def unload(self, target: str) -> None:
        name = self.load(target).name
        self.host.client.call("unload_models", hosts.UnloadModels(self.id, (name,)), type(None))

    def pin(self, *targets: str, is_pinned: bool = True) -> None:
        self.host.client.call("pin_models", hosts.PinModels((self.id,), targets, is_pinned), type(None))

    def statuses(self) -> dict[str, hosts.ModelStatus]:
        found = self.host.client.call("list_models", hosts.ListModels((self.id,)), list[hosts.ModelStatus])
        return {status.target_model: status for status in found}

    def states(self) -> dict[str, str]:
        return {target: status.state for target, status in self.statuses().items()}

    def on_disk(self) -> set[str]:
        place = self.host.directory(self.id) / "opt/ml/models"
        names = {status.name: target for target, status in self.statuses().items()}
        return {names.get(path.name, path.name) for path in place.iterdir()}


@contextmanager
def endpoint(host: HostProcess, *, is_cached: bool = True, **environment: str) -> Iterator[Endpoint]:
    found = Endpoint(host, is_cached=is_cached, **environment)
    found.start()
    try:
        yield found
    finally:
        host.driver.remove([found.id])


def until(holds: Callable[[], bool]) -> None:
    """Without a wait in between: each look asks another process."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if holds():
            return
    raise AssertionError("it never came to be")


def test_M01_M02_a_model_is_loaded_by_its_first_call_and_found_by_the_next(host: HostProcess) -> None:
    with endpoint(host) as mme:
        mme.put("a.tar.gz")
        mme.put("deep/b.tar.gz")
        assert mme.answers("a.tar.gz") == "a.tar.gz ?"
        assert mme.answers("deep/b.tar.gz") == "deep/b.tar.gz ?"
        assert mme.load("a.tar.gz").was_loaded
        mme.put("c.tar.gz")  # while it serves
        assert mme.answers("c.tar.gz") == "c.tar.gz ?"
        assert mme.states() == dict.fromkeys(("a.tar.gz", "deep/b.tar.gz", "c.tar.gz"), "loaded")
        assert mme.statuses()["a.tar.gz"].size_bytes > 0


def test_M01_what_cannot_be_had_is_said_in_words_and_harms_nobody(host: HostProcess) -> None:
    with endpoint(host) as mme:
        mme.put("good.tar.gz")
        mme.put("refused.tar.gz", do="refuse")
        mme.put("raises.tar.gz", do="raise")
        mme.put("plain", b"no archive at all")
        mme.put("evil.tar.gz", packed({"../evil": b"x"}))
        mme.put("wants.tar.gz", packed({"model.json": b"{}", "code/requirements.txt": b"numpy"}))
        said = {
            target: mme.refusal(target)
            for target in (
                "no.tar.gz",
                "../up",
                "/abs",
                "",
                "refused.tar.gz",
                "raises.tar.gz",
                "plain",
                "evil.tar.gz",
            )
        }
        assert {target for target, (code, _) in said.items() if code == "ModelMissing"} == {
            "no.tar.gz", "../up", "/abs", "",
        }  # fmt: skip
        assert "not meant to be loaded" in said["refused.tar.gz"][1]
        assert "a mistake of the handler's" in said["raises.tar.gz"][1]
        assert "no readable tar archive" in said["plain"][1]
        assert "leads out of the archive" in said["evil.tar.gz"][1]
        assert "SAGEMAKER_SUBMIT_DIRECTORY" in mme.refusal("wants.tar.gz")[1]
        assert mme.answers("good.tar.gz") == "good.tar.gz ?"
        assert mme.on_disk() == {"good.tar.gz"}


def test_M02_many_callers_of_a_cold_model_make_one_load(host: HostProcess) -> None:
    with endpoint(host) as mme:
        mme.put("a.tar.gz")
        with ThreadPoolExecutor(32) as pool:
            found = list(pool.map(lambda _: mme.load("a.tar.gz"), range(100)))
        assert {each.name for each in found} == {mme.statuses()["a.tar.gz"].name}
        assert mme.statuses()["a.tar.gz"].loads == 1
        assert host.log_text(mme.spec).count("loading a.tar.gz") >= 1
        assert not all(each.was_loaded for each in found)  # whoever came first


def test_M02_the_least_recently_used_goes_and_a_pinned_one_stays(host: HostProcess) -> None:
    with endpoint(host, CLARY_MODELS_PER_INSTANCE="2") as mme:
        for name in "abcd":
            mme.put(name)
        mme.load("a")
        mme.load("b")
        mme.use("a", at=4e9, calls=7)
        mme.load("c")
        assert mme.states() == {"a": "loaded", "b": "on disk", "c": "loaded"}
        assert mme.statuses()["a"].calls == 7
        assert "the limit of 2 models: c needed a place" in mme.statuses()["b"].reason
        mme.pin("c")
        mme.use("c", at=1.0)  # used longest ago, and pinned
        mme.load("d")
        assert mme.states() == {"a": "on disk", "b": "on disk", "c": "loaded", "d": "loaded"}
        mme.pin("d")
        code, text = mme.refusal("a")
        assert (code, "pinned" in text) == ("NoRoom", True)
        mme.pin("c", is_pinned=False)
        assert mme.answers("a") == "a ?"
        assert mme.statuses()["a"].loads == 2
        assert mme.statuses()["c"].state == "on disk"


def test_M02_memory_is_measured_and_bounded_and_comes_back(host: HostProcess) -> None:
    with endpoint(host, CLARY_MODELS_MEMORY_MB="100") as mme:
        for name in ("a", "b", "c"):
            mme.put(name, mebibytes=40)
        mme.put("huge", mebibytes=200)
        for name in ("a", "b", "c"):
            assert mme.answers(name) == f"{name} ?"
        statuses = mme.statuses()
        assert [statuses[name].state for name in "abc"] == ["on disk", "loaded", "loaded"]
        assert statuses["a"].reason == "memory: c needed room"
        for name in "bc":
            assert 40 << 20 <= statuses[name].memory_bytes < 42 << 20
        code, text = mme.refusal("huge")
        assert (code, "all models together may take 100.0 MiB" in text) == ("ModelInvalid", True)
        assert mme.states() == {"a": "on disk", "b": "loaded", "c": "loaded", "huge": "failed"}
        mme.load("a")
        minder = files.minder_of(host.directory(mme.id))
        assert minder is not None
        until(lambda: limits.exact_resident_bytes(minder.pid) < 100 << 20)


def test_M02_one_that_hangs_holds_up_nobody(host: HostProcess) -> None:
    with endpoint(host) as mme:
        mme.put("hangs", do="hang")
        mme.put("good")
        code, text = mme.refusal("hangs", timeout_s=0.05)
        assert (code, "still being loaded" in text) == ("ModelTimeout", True)
        assert mme.answers("good") == "good ?"
        until(lambda: mme.states() == {"hangs": "loading", "good": "loaded"})


def test_M02_a_limit_that_is_no_number_is_named(plain_host: HostProcess) -> None:
    with endpoint(plain_host, CLARY_MODELS_PER_INSTANCE="many") as mme:
        mme.put("a")
        assert "CLARY_MODELS_PER_INSTANCE is 'many'" in mme.refusal("a")[1]


def test_M03_a_replaced_or_deleted_object_serves_until_it_is_evicted(host: HostProcess) -> None:
    with endpoint(host, CLARY_MODELS_PER_INSTANCE="1") as mme:
        for name in ("a", "b", "other"):
            mme.put(name)
        mme.load("a")
        mme.put("a", answer="new a")
        assert mme.answers("a") == "a ?"
        mme.load("other")
        assert mme.answers("a") == "new a ?"
        mme.delete("a")
        assert mme.answers("a") == "new a ?"
        mme.load("other")
        assert mme.refusal("a")[0] == "ModelMissing"
        assert mme.on_disk() == {"other"}


def test_M03_with_the_setting_a_replaced_object_is_seen(plain_host: HostProcess) -> None:
    with endpoint(plain_host) as mme:
        mme.put("a")
        mme.load("a")
        mme.put("a", answer="new a")

        def is_new() -> bool:
            mme.use("a", at=4e9)
            return mme.answers("a") == "new a ?"

        until(is_new)
        mme.put("a", b"no archive")  # the one that serves goes on
        mme.use("a", at=4e9)
        assert mme.answers("a") == "new a ?"
        assert mme.states() == {"a": "loaded"}


def test_M03_a_model_that_is_not_to_be_cached_leaves_nothing(host: HostProcess) -> None:
    with endpoint(host, is_cached=False) as mme:
        mme.put("a")
        assert mme.answers("a") == "a ?"
        mme.unload("a")
        assert mme.states() == {"a": "evicted"}
        assert mme.on_disk() == set()
        assert mme.answers("a") == "a ?"


def test_M03_the_disk_is_bounded(plain_host: HostProcess) -> None:
    with endpoint(plain_host) as mme:
        for name in ("a", "b", "c"):
            mme.put(name, padding="x" * 1000)
            assert mme.answers(name) == f"{name} ?"
        assert mme.on_disk() == {"b", "c"}
        assert mme.statuses()["a"].reason == "disk: c needed room"
        mme.put("huge", padding="x" * 5000)
        assert mme.refusal("huge")[0] in ("NoRoom", "ModelInvalid")
        assert mme.answers("b") == "b ?"


def test_M02_a_new_host_knows_what_is_loaded(host: HostProcess) -> None:
    with endpoint(host, CLARY_MODELS_PER_INSTANCE="2") as mme:
        for name in "abc":
            mme.put(name)
            mme.load(name)
        mme.pin("b")
        before = mme.statuses()
        host.kill()
        host.start()
        after = mme.statuses()
        assert {target: (s.state, s.name, s.is_pinned) for target, s in after.items()} == {
            target: (s.state, s.name, s.is_pinned) for target, s in before.items()
        }
        assert mme.load("c").was_loaded
        assert mme.answers("a") == "a ?"
        assert mme.states() == {"a": "loaded", "b": "loaded", "c": "on disk"}


def test_M02_the_model_whose_load_ended_the_instance_is_named_and_then_refused(
    plain_host: HostProcess,
) -> None:
    mme = Endpoint(plain_host)
    mme.put("bad", do="abort")
    mme.put("good")
    for number in range(2):
        mme.spec = toy_spec(900 + number, image=IMAGE, models=mme.spec.models)
        mme.id = mme.spec.instance_id
        mme.start()
        assert mme.refusal("bad")[0] == "InstanceEnded"
        status = until_phase(plain_host.driver, mme.id, "exited")
        assert status.failure is not None
        assert f"it was loading s3://mme/{mme.prefix}bad" in status.failure.reason
    mme.spec = toy_spec(902, image=IMAGE, models=mme.spec.models)
    mme.id = mme.spec.instance_id
    mme.start()
    code, text = mme.refusal("bad")
    assert (code, "ended the instances that loaded it, 2 times" in text) == ("ModelInvalid", True)
    assert mme.answers("good") == "good ?"


def test_M02_each_model_of_a_script_is_a_process_that_goes_with_it(host: HostProcess) -> None:
    with endpoint(host, SAGEMAKER_PROGRAM="inference.py") as mme:
        for name in "ab":
            content = {
                "model.json": json.dumps({"answer": name}).encode(),
                "code/inference.py": SCRIPT.encode(),
            }
            mme.put(name, packed(content))
        assert mme.load("a").runs_script
        (first, one, _), (second, other, _) = mme.answers("a").split(), mme.answers("b").split()
        assert (first, second) == ("a", "b")
        assert one != other
        minder = files.minder_of(host.directory(mme.id))
        assert minder is not None
        with_both = len(limits.descendants(minder.pid))
        mme.unload("a")
        assert len(limits.descendants(minder.pid)) == with_both - 1
        assert mme.statuses()["b"].memory_bytes > 0
        assert mme.ask(mme.statuses()["a"].name) == (404, f"Model not found: {mme.statuses()['a'].name}")
        assert mme.answers("b").split()[0] == "b"


def test_M04_what_is_loaded_is_counted(host: HostProcess) -> None:
    with endpoint(host) as mme:
        mme.put("a")
        mme.load("a")
        mme.unload("a")
        mme.load("a")
        wanted = {"ModelDownloadingTime", "ModelLoadingTime", "ModelUnloadingTime", "LoadedModelCount"}
        found: dict[str, str] = {}

        def are_there() -> bool:
            taken = host.client.call("take_metrics", hosts.TakeMetrics("", 0), list[MetricBatch])
            found.update({point.name: point.unit for batch in taken for point in batch.points})
            return wanted <= found.keys()

        until(are_there)
        assert found["ModelLoadingTime"] == "Microseconds"
