"""The server's own operations: Z01 (why), status and reset."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from clary.domain.deployments import Deployment
from clary.domain.endpoints import EndpointState
from clary.domain.faults import Fault
from clary.domain.instances import LogTarget
from clary.drivers.fake import Plan
from clary.links import hosts
from clary.reconcilers import reset
from clary.services import clary as admin
from clary.settings import Settings
from control.harness import CRASHED, Control

T = TypeVar("T")


class Admin(Control):
    def __init__(self, directory: Path, *, ephemeral: bool = True) -> None:
        super().__init__(directory)
        found = Settings(data_dir=directory, cache_dir=directory / "cache", ephemeral=ephemeral)
        self.asked: list[LogTarget] = []
        self.host: Callable[[str, Any], Any] = lambda operation, arguments: None
        self.table.add(
            "clary",
            *admin.resources(
                self.store,
                self.clock,
                found,
                log_tail=self._tail,
                reset=lambda: reset.empty(self.runner, self.store, self.driver, self.routing),
                parts=lambda: {"Host": "answers"},
                ask_host=self._host,
            ),
        )

    def _tail(self, target: LogTarget, lines: int) -> Sequence[str]:
        self.asked.append(target)
        return ["one", "two"]

    def _host(self, operation: str, arguments: object, result: type[T]) -> T:
        answer: T = self.host(operation, arguments)
        return answer

    def ask(self, operation: str, *, is_root: bool = True, **params: object) -> Any:
        handler = self.table.find("clary", operation)
        assert handler is not None
        answer = handler(self.call_of("clary", operation, is_root=is_root), params)
        json.dumps(answer)  # it goes out as plain JSON
        return answer


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Admin]:
    control = Admin(tmp_path)
    control.model()
    control.config()
    yield control
    control.close()


def test_Z01_why_tells_a_failure_with_its_evidence(control: Admin, tmp_path: Path) -> None:
    control.plan(Plan(until="starting", failure=CRASHED))
    control.endpoint()
    control.settle(6)
    why = control.ask("Explain", Name="E")
    assert (why["Name"], why["Kind"], why["Status"]) == ("e", "endpoint", "Failed")
    assert [event["Step"] for event in why["Events"]] == [
        "creation asked for",
        "instance wanted",
        "instance preparing",
        "instance fetching",
        "instance starting",
        "instance exited",
        "deployment failed",
        "failed",
    ]
    assert why["Failure"]["exit_code"] == 3
    assert why["Failure"]["log_tail"] == ("bad model",)
    assert why["LogTail"] == ["one", "two"]
    assert control.asked[0].stream == why["LogStream"]
    elsewhere = f"--data-dir {tmp_path}"
    assert why["Next"] == [f"clary logs e {elsewhere}", "aws sagemaker delete-endpoint --endpoint-name e"]


def test_Z01_why_knows_the_other_kinds_and_says_what_it_does_not_know(control: Admin) -> None:
    assert control.ask("Explain", Name="m")["Kind"] == "model"
    assert control.ask("Explain", Name="c")["Kind"] == "endpoint-config"
    with pytest.raises(Fault, match='named "x"'):
        control.ask("Explain", Name="x")


def test_status_shows_endpoints_with_their_instances(control: Admin) -> None:
    control.endpoint()
    control.settle(5)
    status = control.ask("GetStatus")
    (endpoint,) = status["Endpoints"]
    assert (endpoint["Name"], endpoint["Status"]) == ("e", "InService")
    assert [instance["Phase"] for instance in endpoint["Instances"]] == ["ready"]
    assert [instance["Config"] for instance in control.ask("Explain", Name="e")["Instances"]] == ["c"]
    assert status["Counts"]["endpoint"] == {"Total": 1, "InService": 1}
    assert status["Disk"]["FreeBytes"] > 0
    assert control.ask("GetHealth")["Status"] == "Healthy"


def test_reset_is_for_ephemeral_servers_and_the_root_key(tmp_path: Path) -> None:
    lasting = Admin(tmp_path, ephemeral=False)
    lasting.model()
    with pytest.raises(Fault, match="ephemeral"):
        lasting.ask("Reset")
    lasting.close()
    ephemeral = Admin(tmp_path)
    with pytest.raises(Fault) as refused:
        ephemeral.ask("Reset", is_root=False)
    assert refused.value.code == "AccessDeniedException"
    assert ephemeral.call("ListModels")["Models"]
    assert ephemeral.ask("Reset") == {}
    assert ephemeral.call("ListModels") == {"Models": []}
    ephemeral.close()


def test_Z03_deployments_are_told_newest_first_also_of_an_endpoint_that_is_gone(control: Admin) -> None:
    control.endpoint()
    control.settle(6)
    control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c")
    told = control.ask("ListDeployments", Name="E")
    assert (told["Name"], told["Status"]) == ("e", "Updating")
    newest, oldest = told["Deployments"]
    assert (newest["Operation"], newest["From"], newest["To"]) == ("UpdateEndpoint", "c", "c")
    assert (newest["Verdict"], newest["EndedAt"]) == ("in-progress", None)
    assert newest["Policy"]["Strategy"] == "ALL_AT_ONCE"
    assert newest["RequestedBy"].endswith("/clary")
    assert (oldest["Operation"], oldest["From"]) == ("CreateEndpoint", "")
    assert oldest["Changes"] == ["AllTraffic: added, model m on 1 × ml.m5.large, weight 1"]
    control.settle(8)
    control.call("DeleteEndpoint", EndpointName="e")
    control.settle(8)
    gone = control.ask("ListDeployments", Name="e")
    assert gone["Status"] == "Deleted"
    assert len(gone["Deployments"]) == 2
    with pytest.raises(Fault, match='endpoint named "x"'):
        control.ask("ListDeployments", Name="x")


def test_Z01_why_and_status_show_the_deployment_under_way(control: Admin) -> None:
    control.endpoint()
    control.settle(6)
    control.call("UpdateEndpoint", EndpointName="e", EndpointConfigName="c")
    with control.store.write() as tx:
        endpoint = tx.resources.find(control.account, control.region, "endpoint", "e")
        assert endpoint is not None
        under_way = Deployment("d", control.clock.now(), "baking", activated={"AllTraffic": 1})
        state = dataclasses.replace(endpoint.state_as(EndpointState), deployment=under_way)
        tx.resources.update(endpoint, state=state)
    why = control.ask("Explain", Name="e")
    assert why["Deployment"]["Stage"] == "baking"
    assert why["Deployment"]["Variants"] == [{"Name": "AllTraffic", "Activated": 1, "Ready": 0, "Wanted": 1}]
    assert any(command.startswith("clary deployments e ") for command in why["Next"])
    (endpoint_shown,) = control.ask("GetStatus")["Endpoints"]
    assert endpoint_shown["Deployment"] == why["Deployment"]


def multi_model(control: Admin) -> None:
    control.model("many", Mode="MultiModel", ModelDataUrl="s3://models/many/")
    control.config("many", {"ModelName": "many"})
    control.endpoint("many", config="many")
    control.settle(5)


def test_M04_status_and_why_say_that_an_endpoint_has_many_models(control: Admin) -> None:
    multi_model(control)
    (endpoint,) = control.ask("GetStatus")["Endpoints"]
    assert [variant["Mode"] for variant in endpoint["Variants"]] == ["MultiModel"]
    assert any(line.startswith("clary models many") for line in control.ask("Explain", Name="many")["Next"])


def test_M04_the_models_of_an_endpoint_are_told_as_the_host_knows_them(control: Admin) -> None:
    multi_model(control)
    asked: list[tuple[str, Any]] = []

    def host(operation: str, arguments: Any) -> Any:
        asked.append((operation, arguments))
        if operation == "load_model" and arguments.target_model == "none":
            raise hosts.HostError("ModelMissing", "there is nothing")
        id = asked[0][1].ids[0]
        return [hosts.ModelStatus(id, "a.tar.gz", "n", "loaded", 10, 20, 1.0, 2.0, calls=3, loads=1)]

    control.host = host
    (model,) = control.ask("ListEndpointModels", Name="many")["Models"]
    assert (model["TargetModel"], model["State"], model["Hits"], model["Variant"]) == (
        "a.tar.gz",
        "loaded",
        2,
        "AllTraffic",
    )
    control.ask("PinEndpointModels", Name="many", Action="pin", Models=["a"])
    assert asked[-1] == ("pin_models", hosts.PinModels((model["InstanceId"],), ("a",), True))
    done = control.ask("PinEndpointModels", Name="many", Action="prefetch", Models=["a", "none"])["Models"]
    assert [(each["TargetModel"], each["State"], each["Reason"]) for each in done] == [
        ("a", "loaded", ""),
        ("none", "failed", "there is nothing"),
    ]
    with pytest.raises(Fault, match="Action must be one of"):
        control.ask("PinEndpointModels", Name="many", Action="burn", Models=["a"])


def test_M04_an_endpoint_of_one_model_and_a_host_that_is_away_are_said(control: Admin) -> None:
    control.endpoint()
    control.settle(5)
    with pytest.raises(Fault, match="not a multi-model endpoint"):
        control.ask("ListEndpointModels", Name="e")
    multi_model(control)

    def away(operation: str, arguments: Any) -> Any:
        raise hosts.HostUnavailable("no host answers")

    control.host = away
    with pytest.raises(Fault) as refused:
        control.ask("ListEndpointModels", Name="many")
    assert refused.value.status == 503
