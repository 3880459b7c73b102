"""What the engine is told of a container."""

from dataclasses import replace

from clary.domain.instances import InstanceId, InstanceSpec, LogTarget
from clary.host.engine.creation import Abilities, Placing, abilities, creation, port_of

SPEC = InstanceSpec(
    instance_id=InstanceId("i-1"),
    role="serve",
    image="my-model:latest",
    log=LogTarget("123456789012", "us-east-1", "g", "s"),
    vcpus=4,
    memory_bytes=8 << 30,
)
PLACING = Placing(
    owner="/data",
    mounts=(("/artifacts/a", "/opt/ml/model"),),
    environment={"A": "1"},
    processes=100,
    network="bridge",
    published=False,
)
ALL = Abilities(cpus=2)


def test_H04_it_is_docker_run_image_serve() -> None:
    body = creation(SPEC, "my-model:latest", PLACING, ALL)
    assert (body["Image"], body["Cmd"], body["Env"]) == ("my-model:latest", ["serve"], ["A=1"])
    assert "Entrypoint" not in body  # the image's own
    assert body["Labels"] == {"clary.data-dir": "/data", "clary.instance": "i-1"}
    [mount] = body["HostConfig"]["Mounts"]
    assert mount == {"Type": "bind", "Source": "/artifacts/a", "Target": "/opt/ml/model", "ReadOnly": True}


def test_limits_are_the_instance_types_as_far_as_machine_and_engine_can() -> None:
    limits = creation(SPEC, "x", PLACING, ALL)["HostConfig"]
    assert (limits["Memory"], limits["MemorySwap"], limits["NanoCpus"], limits["PidsLimit"]) == (
        8 << 30, 8 << 30, 2_000_000_000, 100,
    )  # fmt: skip
    weak = Abilities(limits_memory=False, limits_swap=False, limits_cpu=False, limits_processes=False)
    assert (
        not {"Memory", "MemorySwap", "NanoCpus", "PidsLimit"}
        & creation(SPEC, "x", PLACING, weak)["HostConfig"].keys()
    )


def test_an_isolated_container_has_no_network_and_a_gpu_is_asked_for() -> None:
    assert creation(SPEC, "x", PLACING, ALL)["HostConfig"]["NetworkMode"] == "bridge"
    config = creation(replace(SPEC, network_isolated=True, accelerators=2), "x", PLACING, ALL)["HostConfig"]
    assert config["NetworkMode"] == "none"
    assert config["DeviceRequests"] == [{"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}]


def test_a_command_of_the_spec_replaces_the_images_entrypoint() -> None:
    body = creation(replace(SPEC, command=("python", "run.py")), "x", PLACING, ALL)
    assert (body["Entrypoint"], body["Cmd"]) == (["python"], ["run.py"])


def test_a_published_port_is_on_loopback_only() -> None:
    placing = replace(PLACING, published=True, environment={"SAGEMAKER_BIND_TO_PORT": "8091"})
    assert port_of(placing.environment) == 8091
    body = creation(SPEC, "x", placing, ALL)
    assert body["HostConfig"]["PortBindings"] == {"8091/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}


def test_engines_say_what_they_can() -> None:
    docker = abilities(
        {"ServerVersion": "27.1", "NCPU": 8, "SecurityOptions": ["name=seccomp", "name=rootless"]}
    )
    assert (docker.rootless, docker.cpus, docker.limits_memory) == (True, 8, True)
    podman = abilities(
        {"ServerVersion": "4.3.1", "BuildahVersion": "1.28", "Rootless": False, "MemoryLimit": False}
    )
    assert (podman.name, podman.rootless, podman.limits_memory) == ("Podman 4.3.1", False, False)
