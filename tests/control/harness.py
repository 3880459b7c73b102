"""Control without processes: a store in a temporary directory, instances in memory, routes in a dictionary."""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clary.blobs.base import NoSuchBucket, NoSuchKey, ObjectInfo, ObjectPage
from clary.domain.alarms import ALARM_KIND, AlarmState
from clary.domain.deployments import DEPLOYMENT_KIND, DeploymentPolicy, DeploymentRecord
from clary.domain.endpoints import EndpointSpec
from clary.domain.images import OwnImage
from clary.domain.instances import Failure, InstanceId, InstanceStatus
from clary.domain.principals import DEFAULT_ROLE_NAME, assumed_role
from clary.domain.routes import EndpointKey, EndpointRoute
from clary.drivers.fake import FakeDriver, Plan
from clary.reconcilers.base import Runner
from clary.reconcilers.endpoint import EndpointReconciler
from clary.services import sagemaker
from clary.store import Store
from clary.testing.clock import FakeClock
from clary.wire.operations import Call, OperationTable

ACCOUNT, REGION = "123456789012", "eu-central-1"
IMAGE = f"111122223333.dkr.ecr.{REGION}.amazonaws.com/sagemaker-xgboost:1.7-1"
ARTEFACT = "s3://models/model.tar.gz"
CRASHED = Failure("Exited", "It ended by itself.", log_tail=("bad model",), exit_code=3)


@dataclass
class FakeRouting:
    """All gateways as one: what they know, and what was ever promised."""

    routes: dict[EndpointKey, EndpointRoute] = field(default_factory=dict)
    busy: set[InstanceId] = field(default_factory=set)
    published: list[EndpointRoute] = field(default_factory=list)

    def publish(self, route: EndpointRoute) -> None:
        held = self.routes.get(route.key)
        if held is not None and held.uid == route.uid:
            assert route.generation >= held.generation, "a route went backwards"
            assert route.generation > held.generation or route == held, "a generation means two routes"
        self.routes[route.key] = route
        self.published.append(route)

    def withdraw(self, *keys: EndpointKey) -> None:
        for key in keys:
            self.routes.pop(key, None)

    def drain(self, ids: Sequence[InstanceId], timeout_s: float) -> set[InstanceId]:
        routed = {
            t.instance_id for r in self.routes.values() for v in (*r.variants, *r.shadows) for t in v.targets
        }
        assert not routed & set(ids), "drained while still routed"
        return self.busy & set(ids)

    def targets(self, name: str) -> list[InstanceId]:
        route = self.routes[EndpointKey(ACCOUNT, REGION, name.lower())]
        return [target.instance_id for variant in route.variants for target in variant.targets]


class OneImage:
    """A catalog that knows one repository."""

    repositories = ("sagemaker-xgboost",)

    def own(self, image_uri: str) -> OwnImage:
        return OwnImage("an image of one's own needs a container engine, and there is none", engine=False)

    def resolve(self, image_uri: str) -> object | None:
        return object() if "sagemaker-xgboost:" in image_uri else None


class FakeObjects:
    """The objects that exist, by URI."""

    def __init__(self, uris: set[str], clock: FakeClock) -> None:
        self.uris = uris
        self._clock = clock

    def head(self, bucket: str, key: str) -> ObjectInfo:
        if f"s3://{bucket}/{key}" not in self.uris:
            raise NoSuchKey(key)
        return ObjectInfo(bucket=bucket, key=key, size=1, etag="e", modified_at=self._clock.now())

    def objects(self, bucket: str, *, prefix: str = "", limit: int = 1000) -> ObjectPage:
        if not any(uri.startswith(f"s3://{bucket}/") for uri in self.uris):
            raise NoSuchBucket(bucket)
        keys = sorted(uri.removeprefix(f"s3://{bucket}/") for uri in self.uris)
        found = [self.head(bucket, key) for key in keys if key.startswith(prefix)]
        return ObjectPage(tuple(found[:limit]), (), None)


class Ids:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"{self.count:032x}"


class Control:
    """Store, services and reconciler. `restart` makes a new one over the same data, as a new process would."""

    def __init__(
        self,
        directory: Path,
        clock: FakeClock | None = None,
        driver: Any = None,
        routing: Any = None,
        ids: Ids | None = None,
        wrap: Callable[[Any], Any] = lambda thing: thing,
        account: str = ACCOUNT,
        region: str = REGION,
        has_reserve: bool = False,
    ) -> None:
        self.directory = directory
        self.clock = clock or FakeClock()
        self.driver: FakeDriver = driver or FakeDriver(auto=False)
        self.routing: FakeRouting = routing or FakeRouting()
        self.ids = ids or Ids()
        self.account, self.region = account, region
        if not (directory / "store.db").exists():
            (directory / "store.db").write_bytes(_empty_store())
        url = f"sqlite:///{directory / 'store.db'}"
        opened = Store.open(url, self.clock, is_durable=False, has_reserve=has_reserve)
        self.store: Store = wrap(opened)
        self.objects = FakeObjects({ARTEFACT}, self.clock)
        self.table = OperationTable()
        self.table.add(
            "sagemaker", *sagemaker.resources(self.store, self.clock, self.ids, OneImage(), self.objects)
        )
        self.reconciler = EndpointReconciler(
            self.store,
            wrap(self.driver),
            wrap(self.routing),
            self.clock,
            invocation_timeout_s=60.0,
            stop_grace_s=30.0,
        )
        self.runner = Runner(self.store, wrap(self.driver), self.clock, [self.reconciler])

    def close(self) -> None:
        self.store.close()

    def restarted(self, wrap: Callable[[Any], Any] = lambda thing: thing) -> "Control":
        """A new control over the same data, instances and gateways, as after a kill."""
        self.close()
        again = Control(self.directory, self.clock, self.driver, self.routing, self.ids, wrap)
        again.runner.recover()
        return again

    def call(self, operation: str, **params: object) -> Any:
        handler = self.table.find("sagemaker", operation)
        assert handler is not None, operation
        return handler(self.call_of("sagemaker", operation), params)

    def call_of(self, service: str, operation: str, *, is_root: bool = True) -> Call:
        principal = assumed_role(self.account, DEFAULT_ROLE_NAME, "clary", "AKIA", is_root=is_root)
        return Call(service, operation, self.account, self.region, principal, "req", self.clock.now())

    def model(self, name: str = "m", **container: object) -> None:
        primary = {"Image": IMAGE, "ModelDataUrl": ARTEFACT} | container
        role = f"arn:aws:iam::{ACCOUNT}:role/{DEFAULT_ROLE_NAME}"
        self.call("CreateModel", ModelName=name, PrimaryContainer=primary, ExecutionRoleArn=role)

    def config(self, name: str = "c", *variants: Mapping[str, object]) -> None:
        self.call(
            "CreateEndpointConfig",
            EndpointConfigName=name,
            ProductionVariants=[variant(**v) for v in variants or ({},)],
        )

    def endpoint(self, name: str = "e", config: str = "c") -> None:
        self.call("CreateEndpoint", EndpointName=name, EndpointConfigName=config)

    def describe(self, name: str = "e") -> Any:
        return self.call("DescribeEndpoint", EndpointName=name)

    def update(self, config: str, policy: DeploymentPolicy, name: str = "e") -> None:
        """UpdateEndpoint with a policy that need not keep to the API's limits."""
        self.call("UpdateEndpoint", EndpointName=name, EndpointConfigName=config)
        with self.store.write() as tx:
            found = tx.resources.find(self.account, self.region, "endpoint", name)
            assert found is not None
            tx.resources.update(found, spec=replace(found.spec_as(EndpointSpec), policy=policy))

    def alarm(self, name: str, status: str) -> None:
        """Puts an alarm, or its state."""
        with self.store.write() as tx:
            found = tx.resources.find(self.account, self.region, ALARM_KIND, name)
            now = self.clock.now()
            state = AlarmState(f"{name} was set to {status}.", "", now, now, now)
            if found is not None:
                tx.resources.update(found, status=status, state=state)
                return
            tx.resources.insert(
                uid=self.ids(),
                account=self.account,
                region=self.region,
                kind=ALARM_KIND,
                arn=f"arn:aws:cloudwatch:{self.region}:{self.account}:alarm:{name}",
                name=name,
                status=status,
                spec={},
                state=state,
            )

    def record(self, name: str = "e") -> tuple[str, DeploymentRecord]:
        """The newest deployment's verdict and record."""
        with self.store.read() as tx:
            found = tx.resources.find(self.account, self.region, "endpoint", name)
            assert found is not None
            newest = tx.resources.children(found.arn, DEPLOYMENT_KIND)[0]
        return newest.status, newest.state_as(DeploymentRecord)

    def settle(self, rounds: int = 12, step_s: float = 5.0) -> None:
        """Lets instances and reconcilers take turns for a while."""
        for _ in range(rounds):
            self.runner.run_pending()
            self.driver.step()
            self.runner.sweep()
            self.runner.run_pending()
            self.clock.advance(step_s)

    @property
    def held(self) -> dict[InstanceId, InstanceStatus]:
        """What the driver holds."""
        return {status.instance_id: status for status in self.driver.list()}

    def plan(self, plan: Plan, variant: str = "") -> None:
        """What becomes of the instances of a variant (of all) from now on; the others come up."""
        self.driver.plan(lambda spec: plan if spec.log.stream.startswith(variant) else Plan())

    def steps(self, name: str = "e") -> list[str]:
        with self.store.read() as tx:
            found = tx.resources.find(self.account, self.region, "endpoint", name)
            assert found is not None
            return [event.step for event in tx.events.of(found.uid)]


@functools.cache
def _empty_store() -> bytes:
    """A migrated store without rows: migrating one for every test would take most of the tests' time."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.db"
        Store.open(f"sqlite:///{path}", FakeClock(), is_durable=False).close()
        return path.read_bytes()


def variant(**members: object) -> dict[str, object]:
    return {
        "VariantName": "AllTraffic",
        "ModelName": "m",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    } | members
