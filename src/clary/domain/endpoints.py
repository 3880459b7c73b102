"""Endpoints: what is wanted (spec) and what is in force (state), as the store keeps them.

A fleet is made for one deployment from a frozen copy of the endpoint configuration and its models: deleting or
replacing those later changes nothing. Weights and counts stand in the fleet too; changing them keeps the fleet's
id, and with it its processes.
"""

import string
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from clary.domain.arns import endpoint_log_group
from clary.domain.deployments import AT_ONCE, Deployment, DeploymentPolicy
from clary.domain.instances import (
    Artifact,
    Container,
    Failure,
    InstanceSpec,
    LogTarget,
    ModelSource,
    instance_id,
)
from clary.domain.routes import Capture, EndpointKey, EndpointRoute, Routing

PRIMARY_CONTAINER = "primary"


@dataclass(frozen=True, slots=True)
class Variant:
    """One production variant: a model, what it runs on, its share of the traffic."""

    name: str
    model_name: str
    image: str
    instance_type: str
    vcpus: int
    memory_bytes: int
    accelerators: int
    weight: float
    count: int
    container: str = PRIMARY_CONTAINER
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    execution_role_arn: str = ""
    network_isolated: bool = False
    download_timeout_s: float = 3600.0
    startup_timeout_s: float = 240.0
    routing: Routing = "RANDOM"
    shows_routing: bool = False  # whether the configuration named a strategy: Describe echoes it then
    models: ModelSource | None = None  # Mode MultiModel
    containers: tuple[Container, ...] = ()  # empty, or at least two; see `InstanceSpec`
    is_direct: bool = (
        False  # callers name one of the containers; otherwise a request goes through all of them
    )
    volume_bytes: int = 0  # what an instance may write; 0: as much as its host allows

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Under which its images are kept in `EndpointState.images`, container by container."""
        return tuple(f"{self.name}/{each.name}" for each in self.containers) or (self.name,)

    def container_named(self, name: str) -> Container:
        """One of several by its name; the only one, or all there is to say of several, otherwise."""
        own = Container(self.container, self.image, self.environment, self.artifacts, self.models)
        return next((each for each in self.containers if each.name == name), own)

    @property
    def environments(self) -> tuple[dict[str, str], ...]:
        return tuple(each.environment for each in self.containers) or (self.environment,)


@dataclass(frozen=True, slots=True)
class Fleet:
    id: str
    config_name: str
    variants: tuple[Variant, ...]
    shadows: tuple[Variant, ...] = ()  # get copies of the requests; their answers go nowhere
    capture: Capture | None = None
    stopped_capture: Capture | None = None  # configured with EnableCapture false: shown, and nothing more

    def variant(self, name: str) -> Variant | None:
        return next((variant for variant in self.variants if variant.name == name), None)

    def with_numbers_of(self, other: "Fleet", *, weights: bool = True, counts: bool = True) -> "Fleet":
        """This fleet with the weights and counts that variants of the same name have in `other`."""
        return replace(
            self,
            variants=tuple(
                mine
                if (theirs := other.variant(mine.name)) is None
                else replace(
                    mine,
                    weight=theirs.weight if weights else mine.weight,
                    count=theirs.count if counts else mine.count,
                )
                for mine in self.variants
            ),
        )


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """What is wanted. `deployment_started_at` is when this fleet, or these numbers, were asked for."""

    fleet: Fleet
    deployment_started_at: datetime
    deployment_id: str = ""  # of the record; empty while only numbers change
    policy: DeploymentPolicy = AT_ONCE
    deployment_config: dict[str, Any] | None = (
        None  # DeploymentConfig as it was asked for last, or kept at creation
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a deployment failed. `reason` is the FailureReason; `failure` the evidence it was made from."""

    reason: str
    variant: str = ""
    instance_id: str = ""
    failure: Failure | None = None


Outlook = Literal["unknown", "soon", "slow"]
"""When a deployment will be settled, as far as can be seen: `slow` while an environment is built."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a rolling update left behind when neither it nor its rollback succeeded: a part of the new `fleet`
    serves beside a part of the old one, until the next update replaces both.

    Of each variant, `activated` instances of this fleet serve, and `retained` of the fleet in force.
    """

    fleet: Fleet
    activated: dict[str, int]
    retained: dict[str, int]


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What is in force.

    `fleet` takes the traffic, with its current weights and counts; None before the first deployment succeeded.
    `route` is the newest route that was, or was about to be, published; only `is_route_acked` says that every
    gateway has it. It is stored before it is published, so that a generation never means two routes.
    """

    fleet: Fleet | None = None
    # What really answers for the image of a variant; of one with several containers, of each `variant/container`.
    images: dict[str, str] = field(default_factory=dict)
    deployed_at: datetime | None = None
    route: EndpointRoute | None = None
    route_generation: int = 0
    is_route_acked: bool = False
    problem: Problem | None = None
    outlook: Outlook = "unknown"  # of the deployment under way
    deployment: Deployment | None = (
        None  # the one under way; None while nothing is deployed or only numbers change
    )
    used_deployment_config: dict[str, Any] | None = None  # LastDeploymentConfig
    is_traced: bool = False  # the fleet came by an update: its metrics carry EndpointConfigName too
    leftover: Leftover | None = None  # only while the status is UpdateRollbackFailed or a repair is under way
    troubles: dict[str, str] = field(default_factory=dict)  # variant → what keeps happening to its instances
    next_incarnation: int = (
        0  # of places of the fleet in force that stand empty: no instance's id comes twice
    )


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a fleet, and which incarnation of its instance stands there."""

    fleet: str
    variant: str
    ordinal: int
    incarnation: int = 0

    @property
    def place(self) -> tuple[str, str, int]:
        return (self.fleet, self.variant, self.ordinal)


def endpoint_key(account: str, region: str, name: str) -> EndpointKey:
    return EndpointKey(account, region, name.lower())


def zone_of(region: str, ordinal: int, zones: int) -> str:
    """The zone of an instance: a variant's instances go round all of them. A replacement stays in its zone."""
    return f"{region}{string.ascii_lowercase[ordinal % max(1, min(zones, 26))]}"


def instance_spec(
    key: EndpointKey, name: str, uid: str, slot: Slot, variant: Variant, zones: int = 1
) -> InstanceSpec:
    """All a driver needs for the instance in one slot."""
    id_ = instance_id(uid, slot.fleet, slot.variant, slot.ordinal, slot.incarnation)
    return InstanceSpec(
        instance_id=id_,
        role="serve",
        image=variant.image,
        log=LogTarget(key.account, key.region, endpoint_log_group(name), f"{variant.name}/{id_}"),
        group=slot.fleet,
        rank=slot.ordinal,
        container=variant.container,
        environment=dict(variant.environment),
        artifacts=variant.artifacts,
        instance_type=variant.instance_type,
        vcpus=variant.vcpus,
        memory_bytes=variant.memory_bytes,
        volume_bytes=variant.volume_bytes,
        accelerators=variant.accelerators,
        network_isolated=variant.network_isolated,
        execution_role_arn=variant.execution_role_arn,
        download_timeout_s=variant.download_timeout_s,
        startup_timeout_s=variant.startup_timeout_s,
        zone=zone_of(key.region, slot.ordinal, zones),
        models=variant.models,
        containers=variant.containers,
    )
