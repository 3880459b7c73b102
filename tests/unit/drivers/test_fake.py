"""The fake driver's script, beyond what the contract suite asks of every driver."""

import pytest

from clary.domain.instances import Failure, InstanceStatus
from clary.drivers.base import DriverError
from clary.drivers.fake import FakeDriver, Plan
from clary.drivers.load import UnknownDriver, load
from clary.settings import Settings
from hosting.harness import toy_spec

SPEC = toy_spec(1)
ID = SPEC.instance_id
BROKEN = Failure("Exited", "it exited with code 1", exit_code=1)


def seen(driver: FakeDriver) -> InstanceStatus:
    return driver.inspect([ID])[ID]


def test_without_auto_each_step_is_one_phase() -> None:
    driver = FakeDriver(auto=False)
    driver.start(SPEC)
    phases = [seen(driver).phase]
    for _ in range(4):
        driver.step()
        phases.append(seen(driver).phase)
    assert phases == ["preparing", "fetching", "starting", "ready", "ready"]
    driver.stop([ID], grace_s=1)
    assert seen(driver).phase == "stopping"
    driver.step()
    assert seen(driver).phase == "exited"


@pytest.mark.parametrize("until", ["preparing", "fetching", "starting", "ready"])
def test_an_instance_fails_where_its_plan_says(until: str) -> None:
    driver = FakeDriver(auto=False)
    driver.plan(lambda spec: Plan(until=until, failure=BROKEN))  # type: ignore[arg-type]
    driver.start(SPEC)
    while seen(driver).phase != until:
        driver.step()
    driver.step()
    assert seen(driver).failure == BROKEN


def test_an_instance_that_is_never_ready_stays_where_it_is() -> None:
    driver = FakeDriver()
    driver.plan(lambda spec: Plan(until="starting"))
    driver.start(SPEC)
    driver.step()
    assert seen(driver).phase == "starting"


def test_a_refused_start_begins_nothing() -> None:
    driver = FakeDriver()
    driver.plan(lambda spec: Plan(refuse_start=True))
    with pytest.raises(DriverError):
        driver.start(SPEC)
    assert driver.list() == []
    assert driver.started == []


def test_what_happens_to_running_instances_can_be_told() -> None:
    driver = FakeDriver()
    driver.start(SPEC)
    driver.become(ID, "unhealthy")
    assert seen(driver).phase == "unhealthy"
    driver.end(ID, BROKEN)
    assert seen(driver).failure == BROKEN
    driver.lose(ID)
    assert seen(driver).phase == "missing"


def test_drivers_are_loaded_by_name(settings: Settings) -> None:
    assert load("local", settings).abilities.name == "local"
    assert load("fake", settings).abilities.name == "fake"
    with pytest.raises(UnknownDriver, match="fake, local"):
        load("moon", settings)


@pytest.fixture
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("s")
    return Settings(data_dir=root, cache_dir=root)
