"""What the engine is told of a container: pure, from the instance's spec to the body of the engine's `create`."""

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clary.domain.instances import InstanceSpec

PORT = 8080
BIND_TO_PORT = "SAGEMAKER_BIND_TO_PORT"
OWNER, INSTANCE = "clary.data-dir", "clary.instance"
LARGEST_SHM = 8 << 30
MOST_FILES = 65536
MOST_TASKS_OF_A_USER = 16384


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine says of itself and its machine."""

    name: str = ""
    rootless: bool = False
    cpus: int = 1
    limits_memory: bool = True
    limits_swap: bool = True
    limits_cpu: bool = True
    limits_processes: bool = True


def abilities(info: Mapping[str, Any]) -> Abilities:
    options = " ".join(info.get("SecurityOptions") or ())
    # Podman names itself in no field of this answer but this one.
    product = "Podman" if "BuildahVersion" in info else "Docker"
    return Abilities(
        name=f"{product} {info.get('ServerVersion', '')}".strip(),
        rootless=bool(info.get("Rootless")) or "name=rootless" in options,
        cpus=int(info.get("NCPU") or 1),
        limits_memory=bool(info.get("MemoryLimit", True)),
        limits_swap=bool(info.get("SwapLimit", True)),
        limits_cpu=bool(info.get("CpuCfsQuota", True)),
        limits_processes=bool(info.get("PidsLimit", True)),
    )


@dataclass(frozen=True, slots=True)
class Placing:
    """What comes to a container from this machine."""

    owner: str  # whose containers these are: the data directory
    mounts: Sequence[tuple[str, str]]  # outside, inside: read-only
    environment: Mapping[str, str]
    processes: int
    network: str
    published: bool


def port_of(environment: Mapping[str, str]) -> int:
    """Where the container is told to listen, or does unless it is told. Raises `ValueError`."""
    return int(environment.get(BIND_TO_PORT) or PORT)


def creation(spec: InstanceSpec, image: str, placing: Placing, engine: Abilities) -> dict[str, Any]:
    """`docker run IMAGE serve`, as an engine's API wants it."""
    body: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in placing.environment.items()],
        "Labels": {OWNER: placing.owner, INSTANCE: spec.instance_id},
        "HostConfig": _host_config(spec, placing, engine),
    }
    if spec.command:
        body |= {"Entrypoint": [spec.command[0]], "Cmd": list(spec.command[1:])}
    else:
        body |= {"Cmd": ["train" if spec.role == "train" else "serve"]}
    if placing.published:
        body["ExposedPorts"] = {f"{port_of(placing.environment)}/tcp": {}}
    return body


def _host_config(spec: InstanceSpec, placing: Placing, engine: Abilities) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NetworkMode": "none" if spec.network_isolated else placing.network,
        "Mounts": [
            {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
            for source, target in placing.mounts
        ],
        "ShmSize": min(spec.memory_bytes // 2, LARGEST_SHM),
        "Ulimits": _ulimits(),
        # The output is carried by the runner: twice on the disk would be once too often.
        "LogConfig": {"Type": "none"},
        "SecurityOpt": ["no-new-privileges"],
        "OomScoreAdj": 500,
        **_limits(spec, placing, engine),
    }
    if placing.published:
        config["PortBindings"] = {
            f"{port_of(placing.environment)}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]
        }
    if spec.accelerators:
        config["DeviceRequests"] = [{"Driver": "", "Count": spec.accelerators, "Capabilities": [["gpu"]]}]
    return config


def _limits(spec: InstanceSpec, placing: Placing, engine: Abilities) -> dict[str, int]:
    """Of the instance type, as far as the engine can: what it cannot, the host's own watch does (memory)."""
    limits: dict[str, int] = {}
    if engine.limits_memory:
        limits["Memory"] = spec.memory_bytes
        if engine.limits_swap:
            limits["MemorySwap"] = spec.memory_bytes
    if engine.limits_cpu:
        limits["NanoCpus"] = min(spec.vcpus, engine.cpus) * 1_000_000_000
    if engine.limits_processes:
        limits["PidsLimit"] = placing.processes
    return limits


def _ulimits() -> list[dict[str, Any]]:
    """Said outright: an engine that may not raise its own limits fails at its own defaults."""
    files = _at_most(resource.RLIMIT_NOFILE, MOST_FILES)
    tasks = _at_most(resource.RLIMIT_NPROC, MOST_TASKS_OF_A_USER)
    return [
        {"Name": "nofile", "Soft": files, "Hard": files},
        {"Name": "nproc", "Soft": tasks, "Hard": tasks},
    ]


def _at_most(which: int, wanted: int) -> int:
    _, hard = resource.getrlimit(which)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
