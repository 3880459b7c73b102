"""The server's settings: one frozen object, from defaults, `clary.toml`, CLARY_* variables and flags, in that order.

Nothing else reads the environment. A setting's variable is its name in capitals behind `CLARY_`
(`CLARY_PORT`); in `clary.toml` it stands under its own name.
"""

import dataclasses
import json
import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints


class SettingsError(Exception):
    """A setting that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a person may set. Times in seconds, sizes in bytes."""

    data_dir: Path  # everything this server keeps
    cache_dir: Path  # runtime environments, shared by all data directories of this user
    host: str = "127.0.0.1"  # the address to listen on
    port: int = 8470  # the one port; 0 takes any free one
    account: str = "123456789012"  # the AWS account id to be
    region: str = "us-east-1"  # what `clary env` prints; every region is served
    gateways: int = 2  # gateway processes
    ephemeral: bool = False  # temporary data, gone at the end; allows `POST /_clary/reset`
    prewarm: tuple[str, ...] = ("xgboost",)  # frameworks made ready at the start
    sandbox: str = "auto"  # rung of the instances: 0, 1, or auto: 1 where it works
    sandbox_uid_base: int = 200_000  # started as root: the first uid of the instances
    sandbox_uids: int = 60_000  # started as root: how many uids from there on are theirs
    sandbox_processes: int = 4096  # processes and threads of one instance on rung 1, or of one container
    instance_disk_bytes: int = 30 << 30  # without VolumeSizeInGB; ml.g5 and the like: no limit; 0: no limit
    disk_reserve_bytes: int = 1 << 30  # kept free, at most 5 %: an instance that takes it is ended; 0: none
    container_engine: str = "auto"  # runs own images: auto (Docker's or Podman's), none, or a socket's path
    container_pull: str = "missing"  # own images are pulled: always, missing, never
    container_network: str = "bridge"  # the engine's network of containers that are not isolated

    max_invocation_bytes: int = 25 << 20  # a real-time request's body
    max_api_bytes: int = 16 << 20  # the body of any other request but S3's
    max_object_bytes: int = 5 << 30  # one PutObject or UploadPart
    zones: int = 3  # availability zones that instances are spread over; on one machine they are labels
    max_endpoint_instances: int = 100  # instances of one endpoint, all its variants together
    invocation_timeout_s: float = 60.0  # until the container must have answered
    retry_user_code: bool = False  # an instance ended: a request is repeated though a script may have run
    startup_timeout_s: float = 240.0  # until the first good ping, unless the variant says otherwise
    ping_interval_s: float = 5.0  # between pings of a ready instance
    ping_timeout_s: float = 2.0  # for one ping
    stop_grace_s: float = 30.0  # between SIGTERM and SIGKILL
    s3_base_domain: str = "localhost"  # BUCKET.DOMAIN means that bucket; empty: buckets stand in paths only
    upload_keep_s: float = 604_800.0  # until an upload in parts that nobody completes is ended
    hold_describe_s: float = 10.0  # a Describe waits this long for a status that settles soon; 0: never
    gateway_ack_timeout_s: float = 10.0  # until a gateway must have taken a route; then it is restarted
    telemetry_interval_s: float = 5.0  # between two reports of metrics
    metric_keep_s: float = 900.0  # how long reports wait for a control process that is away

    alarm_timing: str = "fast"  # fast: alarms are looked at when data come; aws: on whole minutes
    autoscaling_timing: str = "fast"  # fast: a burst is answered within seconds; aws: after three minutes

    capture_rotate_s: float = 10.0  # until captured requests are an object in their bucket
    capture_spool_bytes: int = 1 << 30  # captured requests that wait for control; what comes then is dropped

    archive_max_members: int = 100_000  # files in one model.tar.gz
    archive_max_bytes: int = 64 << 30  # of one unpacked model.tar.gz
    archive_max_ratio: float = 200.0  # unpacked to packed size, where more than 64 MiB are unpacked
    models_per_instance: int = 0  # that a multi-model instance keeps loaded; 0: as many as its memory holds
    models_disk_bytes: int = 16 << 30  # of a multi-model instance's unpacked models; 0: no limit
    models_refresh_s: float = 0.0  # how old a loaded model may be until its object is compared; 0: never
    log_max_bytes: int = 1 << 30  # of one log stream; then its oldest text goes
    zygote_idle_s: float = 900.0  # until an unused zygote ends
    zygote_max_idle: int = 4  # unused zygotes kept
    log_level: str = "INFO"  # of the server's own logs
    index_urls: dict[str, str] = field(default_factory=dict)  # package index of a framework: `xgboost=URL,…`
    find_links: dict[str, str] = field(default_factory=dict)  # its folder or page of wheels: `pytorch=DIR,…`
    cuda: str = "auto"  # packages for CUDA in environments: yes, no, or auto: where there is a GPU

    @property
    def run_dir(self) -> Path:
        """Sockets, pid files and snapshots. Short, because a Unix socket's path holds 107 bytes."""
        return self.data_dir / "run"

    @property
    def keys_dir(self) -> Path:
        return self.data_dir / "keys"

    @property
    def instances_dir(self) -> Path:
        return self.data_dir / "instances"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def objects_dir(self) -> Path:
        return self.data_dir / "objects"

    @property
    def artifacts_dir(self) -> Path:
        return self.data_dir / "artifacts"

    @property
    def images_dir(self) -> Path:
        """Images that were made of a requirements file."""
        return self.data_dir / "images"

    @property
    def captures_dir(self) -> Path:
        """Captured requests on their way from the gateways to their buckets."""
        return self.data_dir / "captures"

    @property
    def server_log_dir(self) -> Path:
        return self.data_dir / "server"

    @property
    def command_options(self) -> str:
        """What a `clary` command needs to find this server, with a blank in front; nothing for the usual place."""
        is_usual = self.data_dir == (Path.home() / ".clary").resolve()
        return "" if is_usual else f" --data-dir {shlex.quote(str(self.data_dir))}"

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.data_dir / 'store.db'}"

    @property
    def control_socket(self) -> Path:
        """HTTP from the gateways to control."""
        return self.run_dir / "control.sock"

    @property
    def routes_socket(self) -> Path:
        """The route link: gateways connect, control pushes snapshots."""
        return self.run_dir / "routes.sock"

    @property
    def routes_dir(self) -> Path:
        """The newest routes, one file an endpoint: what a gateway starts from when control is down."""
        return self.run_dir / "routes"

    @property
    def host_socket(self) -> Path:
        return self.run_dir / "host.sock"

    def gateway_socket(self, number: int) -> Path:
        """A gateway's own door: hands over the listening socket, tells its state."""
        return self.run_dir / f"gateway-{number}.sock"


LONGEST_SOCKET_PATH = 107


def dump(settings: Settings) -> str:
    """The settings as JSON, for `read`: the supervisor hands them to its processes this way."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return json.dumps({name: str(v) if isinstance(v, Path) else v for name, v in values.items()}, indent=1)


def read(path: Path) -> Settings:
    """The settings that `dump` wrote, perhaps by a version that had settings more, or less, than this one."""
    names = {field.name for field in dataclasses.fields(Settings)}
    values = {name: value for name, value in json.loads(path.read_text()).items() if name in names}
    for name in ("data_dir", "cache_dir"):
        values[name] = Path(values[name])
    values["prewarm"] = tuple(values["prewarm"])
    return Settings(**values)


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from all sources. `flags` hold what a command line said, None meaning unsaid."""
    environ = os.environ if environ is None else environ
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    data_dir = Path(flags.pop("data_dir", None) or environ.get("CLARY_DATA_DIR") or Path.home() / ".clary")
    data_dir = data_dir.expanduser().resolve()
    values: dict[str, Any] = {
        "cache_dir": Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clary"
    }
    hints = get_type_hints(Settings)
    names = {field.name for field in dataclasses.fields(Settings)} - {"data_dir"}
    for source, found in (
        (str(data_dir / "clary.toml"), _read_toml(data_dir / "clary.toml")),
        (
            "the environment",
            {n: environ[f"CLARY_{n.upper()}"] for n in names if f"CLARY_{n.upper()}" in environ},
        ),
        ("the command line", flags),
    ):
        for name, value in found.items():
            if name not in names:
                raise SettingsError(f"{source} sets {name!r}, which is no setting")
            values[name] = _convert(source, name, hints[name], value)
    settings = Settings(data_dir=data_dir, **values)
    _check(settings)
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no valid TOML: {error}") from error


def _convert(source: str, name: str, hint: Any, value: Any) -> Any:
    try:
        if hint is bool:
            return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
        if hint in (int, float, str):
            return hint(value)
        if hint is Path:
            return Path(value).expanduser().resolve()
        if hint == tuple[str, ...]:
            return tuple(value.split(",") if isinstance(value, str) else value) if value else ()
        if hint == dict[str, str]:
            return (
                dict(pair.split("=", 1) for pair in value.split(","))
                if isinstance(value, str)
                else dict(value)
            )
    except (KeyError, TypeError, ValueError):
        raise SettingsError(f"{source} sets {name} to {value!r}, which is not {_describe(hint)}") from None
    raise AssertionError(f"setting {name} has a type that cannot be read: {hint}")


_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _describe(hint: Any) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(hint, "what it should be")


def _check(settings: Settings) -> None:
    if not (len(settings.account) == 12 and settings.account.isdigit()):
        raise SettingsError(f"account is {settings.account!r}; an AWS account id has twelve digits")
    if not 0 <= settings.port <= 65535:
        raise SettingsError(f"port is {settings.port}; it must lie between 0 and 65535 (0: any free one)")
    if not (settings.host == "localhost" or settings.host.startswith("127.")):
        raise SettingsError(
            f"host is {settings.host!r}; only loopback is allowed, because the port speaks no TLS"
        )
    for name in ("alarm_timing", "autoscaling_timing"):
        if getattr(settings, name) not in ("fast", "aws"):
            raise SettingsError(f"{name} is {getattr(settings, name)!r}; it must be fast or aws")
    if settings.sandbox not in ("auto", "0", "1"):
        raise SettingsError(f"sandbox is {settings.sandbox!r}; it must be auto, 0 or 1")
    if settings.container_pull not in ("always", "missing", "never"):
        raise SettingsError(
            f"container_pull is {settings.container_pull!r}; it must be always, missing or never"
        )
    engine = settings.container_engine
    if engine not in ("auto", "none") and not engine.removeprefix("unix://").startswith("/"):
        raise SettingsError(
            f"container_engine is {engine!r}; it must be auto, none or the path of a Unix socket"
        )
    if settings.container_network == "host":
        raise SettingsError(
            "container_network may not be host: containers would share ports with this machine"
        )
    if settings.sandbox_uid_base < 1 or settings.sandbox_uids < 1:
        raise SettingsError(
            "sandbox_uid_base and sandbox_uids must be at least 1: instances never run as root"
        )
    if settings.cuda not in ("auto", "yes", "no"):
        raise SettingsError(f"cuda is {settings.cuda!r}; it must be auto, yes or no")
    if min(settings.models_per_instance, settings.models_disk_bytes, settings.models_refresh_s) < 0:
        raise SettingsError(
            "models_per_instance, models_disk_bytes and models_refresh_s must not be negative"
        )
    if min(settings.instance_disk_bytes, settings.disk_reserve_bytes) < 0:
        raise SettingsError("instance_disk_bytes and disk_reserve_bytes must not be negative")
    if settings.gateways < 1:
        raise SettingsError("gateways must be at least 1")
    if not 1 <= settings.zones <= 26:
        raise SettingsError("zones must be between 1 and 26: they are called a to z")
    longest = settings.instances_dir / ("i-" + "0" * 17) / "http.sock"
    if len(os.fsencode(longest)) > LONGEST_SOCKET_PATH:
        over = len(os.fsencode(longest)) - LONGEST_SOCKET_PATH
        raise SettingsError(
            f"data_dir is {over} bytes too long for the sockets below it: "
            f"choose a shorter path than {settings.data_dir}"
        )
