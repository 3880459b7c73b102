"""Instances: the unit of work, wherever it runs.

An `InstanceSpec` says everything a driver needs to start one instance, and nothing about who asked. It is
frozen and self-contained, so it can be stored, sent and compared. An `InstanceStatus` is what a driver saw.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal, NewType

InstanceId = NewType("InstanceId", str)

Role = Literal["serve", "train", "process", "transform"]

Phase = Literal[
    "preparing",  # its environment is being built (may take minutes; `detail` tells how far)
    "fetching",  # its artefacts are on their way
    "starting",  # the process runs and has not answered its ping yet
    "ready",  # it answered its ping; `address` takes traffic
    "unhealthy",  # it was ready, and its ping fails now
    "stopping",  # SIGTERM was sent
    "exited",  # it ended; `failure` says why, unless it was asked to
    "missing",  # the driver knows no such instance
]

MOST_CONTAINERS = 15
"""Of one instance."""

LIVE_PHASES: frozenset[Phase] = frozenset(
    {"preparing", "fetching", "starting", "ready", "unhealthy", "stopping"}
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """Data an instance needs before it starts. `archive` is unpacked at `path`; `prefix` is copied below it."""

    uri: str
    path: str = "/opt/ml/model"
    kind: Literal["archive", "prefix", "object"] = "archive"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a multi-model container finds the models that its callers name (`TargetModel`): below `prefix`, an
    `s3://…/`. `is_cached`: a model stays loaded after a call (`ModelCacheSetting`)."""

    prefix: str
    is_cached: bool = True


@dataclass(frozen=True, slots=True)
class Container:
    """One of several containers of an instance. `name` is its host name, and the word in error messages."""

    name: str
    image: str
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    models: ModelSource | None = None


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where stdout and stderr go: CloudWatch Logs' names."""

    account: str
    region: str
    group: str
    stream: str


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """All a driver needs to start one instance. Sizes in bytes, times in seconds.

    An instance of several containers says in `containers` what each is; `container`, `image`, `environment`,
    `artifacts` and `models` are those of its only container otherwise.

    Who runs each container as an instance of its own says of it in `member_of` which instance it belongs to, and that
    it is container `number` (from 1) of `member_count`.
    """

    instance_id: InstanceId
    role: Role
    image: str
    log: LogTarget
    group: str = ""  # the fleet or job it belongs to
    rank: int = 0
    peers: tuple[str, ...] = ()
    container: str = "primary"  # the name error messages use
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    command: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] = ()
    instance_type: str = "ml.m5.large"
    vcpus: int = 2
    memory_bytes: int = 8 << 30
    volume_bytes: int = 0  # what it may write; 0: as much as its host allows
    accelerators: int = 0
    network_isolated: bool = False
    execution_role_arn: str = ""
    download_timeout_s: float = 3600.0
    startup_timeout_s: float = 240.0
    zone: str = ""  # `us-east-1a`: a label, which spreads what belongs together
    models: ModelSource | None = None  # a multi-model container: it starts without a model
    containers: tuple[Container, ...] = ()  # empty, or at least two
    member_of: str = ""
    number: int = 0
    member_count: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an instance ended or never became ready; enough to tell a person what to do.

    `code` is stable and machine-readable:
      EnvironmentFailed ArtifactMissing ArtifactDenied ArtifactInvalid DownloadTimeout DiskFull
      ImageNotSupported StartFailed PingTimeout PingFailed Exited Killed OutOfMemory OutOfDisk
    `reason` is the sentence for FailureReason, without log lines; `log_tail` the last lines it wrote. `container` is
    the one that failed, of an instance of several.
    """

    code: str
    reason: str
    log_tail: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    next_command: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """What the driver saw of one instance. `address` is `unix:/path` or `tcp:host:port` once ready.

    Of an instance of several containers `addresses` and `resolved_images` have one for each, in their order, and
    the singular ones are the first container's. It is ready when all are, and has ended when one has.
    """

    instance_id: InstanceId
    phase: Phase
    detail: str = ""
    address: str = ""
    resolved_image: str = ""  # what really answers for the image: `clary/xgboost@sha256:…`
    failure: Failure | None = None
    started_at: float | None = None  # seconds since the epoch
    ready_at: float | None = None
    runs_script: bool = False  # code of the user's answers
    addresses: tuple[str, ...] = ()
    resolved_images: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        return self.phase in LIVE_PHASES


def instance_id(resource_uid: str, fleet_id: str, variant: str, ordinal: int, incarnation: int) -> InstanceId:
    """The id of an instance: the same inputs give the same id, so starting twice starts one."""
    text = f"{resource_uid}/{fleet_id}/{variant}/{ordinal}/{incarnation}"
    return InstanceId("i-" + hashlib.sha256(text.encode()).hexdigest()[:17])
