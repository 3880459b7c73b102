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
    """One address that takes traffic: `unix:/path` or `tcp:host:port`. `token` is sent when not empty.

    `addresses` are those of an instance's containers, in their order, when it has several; the first is `address`.
    """

    instance_id: InstanceId
    address: str
    token: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """One variant of one fleet. While a deployment moves traffic a variant's name may stand in a route twice, once
    for each fleet: `share` divides its traffic between them then, whether it is drawn by weight or named.

    Of a shadow, `weight` is the fraction (0 to 1) of production's requests that are copied to it.
    """

    name: str
    weight: float
    targets: tuple[Target, ...]
    routing: Routing = "RANDOM"
    container: str = "primary"
    retries_elsewhere: bool = True  # a built-in handler without user code
    pipelines: bool = False  # our own model server: takes several small requests at once on one connection
    fleet: str = ""  # the fleet's id
    share: float = 1.0  # of this variant's traffic
    config_name: str = ""  # not empty: its metrics are counted with the dimension EndpointConfigName as well
    models: str = ""  # not empty, an `s3://…/`: callers name one of the models below it
    keeps_models: bool = True  # loaded after a call
    containers: tuple[str, ...] = ()  # the names of an instance's containers, when it has several
    is_direct: bool = (
        False  # callers name one of the containers; otherwise a request goes through all of them
    )


@dataclass(frozen=True, slots=True)
class Capture:
    """Which requests and answers are written down below `destination` (`s3://…`), and how they are encoded."""

    destination: str
    percent: float  # of the requests, 0 to 100
    takes_input: bool = True
    takes_output: bool = True
    csv_types: tuple[
        str, ...
    ] = ()  # content types written as CSV text, others as JSON text, the rest as BASE64
    json_types: tuple[str, ...] = ()
    kms_key_id: str = ""


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """Where requests for one endpoint go. `generation` grows with every change of this endpoint's route."""

    key: EndpointKey
    name: str  # as the user wrote it: for metrics, logs and messages
    uid: str
    generation: int
    variants: tuple[VariantRoute, ...]
    invocation_timeout_s: float = 60.0
    shadows: tuple[VariantRoute, ...] = ()
    capture: Capture | None = None
