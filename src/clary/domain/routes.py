"""Routes: how the gateway reaches an endpoint. The gateway knows these and nothing else."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from clary.domain.instances import InstanceId

Routing = Literal["RANDOM", "LEAST_OUTSTANDING_REQUESTS"]


class EndpointKey(NamedTuple):
    """An endpoint's identity on the data plane. `name` is lower-case: names are unique without case."""

    account: str
    region: str
    name: str


@dataclass(frozen=True, slots=True)
class Target:
    """One address that takes traffic: `unix:/path` or `tcp:host:port`. `token` is sent when not empty."""

    instance_id: InstanceId
    address: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class VariantRoute:
    name: str
    weight: float
    targets: tuple[Target, ...]
    routing: Routing = "RANDOM"
    container: str = "primary"
    retries_elsewhere: bool = True  # a built-in handler without user code
    pipelines: bool = False  # our own model server: takes several small requests at once on one connection


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """Where requests for one endpoint go. `generation` grows with every change of this endpoint's route."""

    key: EndpointKey
    name: str  # as the user wrote it: for metrics, logs and messages
    uid: str
    generation: int
    variants: tuple[VariantRoute, ...]
    invocation_timeout_s: float = 60.0
