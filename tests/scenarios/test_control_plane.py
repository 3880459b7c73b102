"""The control plane as its users see it: botocore against wire, services, store and reconcilers in one process.

Instances and gateways are in memory; everything else is real, threads included.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.domain.principals import DEFAULT_ROLE_NAME
from clary.drivers.fake import FakeDriver, Plan
from clary.services import iam, sts
from clary.testing.clock import FakeClock
from clary.testing.wire import TEST_REGION, Clients, connect, example_keyring
from clary.wire import validate
from clary.wire.models import ServiceModels
from clary.wire.server import WireServer
from clary.wire.sigv4 import Verifier
from control.harness import ACCOUNT, ARTEFACT, CRASHED, IMAGE, Control, variant

SOON: dict[str, Any] = {"Delay": 0.01, "MaxAttempts": 3000}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path, driver=FakeDriver(), region=TEST_REGION)
    identities = iam.Identities(
        control.store, example_keyring(ACCOUNT), tmp_path, lambda: uuid.uuid4().hex, lambda: None
    )
    identities.apply()
    control.table.add("sts", *sts.resources(example_keyring(ACCOUNT), lambda: identities.rights, time.time))
    control.table.add("iam", *iam.resources(control.store, identities, lambda: uuid.uuid4().hex))
    control.runner.start()
    yield control
    control.runner.stop()
    control.close()


@pytest.fixture
def clients(control: Control) -> Iterator[Clients]:
    keyring = example_keyring(ACCOUNT)
    server = WireServer(
        ServiceModels(control.table.implemented()),
        control.table,
        validate=validate.validate,
        keys=Verifier(keyring),
        clock=control.clock,
        new_request_id=lambda: str(uuid.uuid4()),
    )
    yield connect(server, keyring=keyring)
    server.close()


@pytest.fixture
def sm(clients: Clients) -> Any:
    return clients.client("sagemaker")


def make(sm: Any, name: str, *variants: dict[str, object]) -> None:
    sm.create_model(ModelName="m", PrimaryContainer={"Image": IMAGE, "ModelDataUrl": ARTEFACT})
    sm.create_endpoint_config(EndpointConfigName="c", ProductionVariants=list(variants) or [variant()])
    sm.create_endpoint(EndpointName=name, EndpointConfigName="c", Tags=[{"Key": "team", "Value": "a"}])


def refused(call: Any, **params: object) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**params)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def test_H01_an_endpoint_from_creation_to_deletion(sm: Any, control: Control) -> None:
    make(sm, "Endpoint", variant(VariantName="A", InitialInstanceCount=2), variant(VariantName="B"))
    sm.get_waiter("endpoint_in_service").wait(EndpointName="Endpoint", WaiterConfig=SOON)
    shown = sm.describe_endpoint(EndpointName="endpoint")  # names are one whatever their case
    arn = f"arn:aws:sagemaker:{TEST_REGION}:{ACCOUNT}:endpoint/endpoint"
    assert (shown["EndpointName"], shown["EndpointArn"]) == ("Endpoint", arn)
    assert [v["CurrentInstanceCount"] for v in shown["ProductionVariants"]] == [2, 1]
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    assert [e["EndpointName"] for e in sm.list_endpoints(StatusEquals="InService")["Endpoints"]] == [
        "Endpoint"
    ]
    sm.delete_endpoint(EndpointName="Endpoint")
    sm.get_waiter("endpoint_deleted").wait(EndpointName="Endpoint", WaiterConfig=SOON)
    assert control.held == {}
    assert control.routing.routes == {}
    assert refused(sm.describe_endpoint, EndpointName="Endpoint") == (
        "ValidationException",
        f'Could not find endpoint "{arn}".',
    )


def test_H01_a_failed_endpoint_can_only_be_deleted(sm: Any, control: Control) -> None:
    control.plan(Plan(until="starting", failure=CRASHED))
    make(sm, "bad")
    waiter = sm.get_waiter("endpoint_in_service")
    with pytest.raises(Exception, match="Failed"):
        waiter.wait(EndpointName="bad", WaiterConfig=SOON)
    assert "clary why bad" in sm.describe_endpoint(EndpointName="bad")["FailureReason"]
    assert control.held == {}
    code, message = refused(sm.update_endpoint, EndpointName="bad", EndpointConfigName="c")
    assert (code, "Failed" in message) == ("ValidationException", True)
    sm.delete_endpoint(EndpointName="bad")
    sm.get_waiter("endpoint_deleted").wait(EndpointName="bad", WaiterConfig=SOON)


def test_H01_what_is_absent_or_there_already_is_refused_in_awss_words(sm: Any) -> None:
    make(sm, "e")
    base = f"arn:aws:sagemaker:{TEST_REGION}:{ACCOUNT}"
    for call, params, message in (
        (sm.describe_model, {"ModelName": "X"}, f'Could not find model "{base}:model/x".'),
        (sm.delete_model, {"ModelName": "X"}, f'Could not find model "{base}:model/x".'),
        (
            sm.create_endpoint_config,
            {"EndpointConfigName": "d", "ProductionVariants": [variant(ModelName="X")]},
            f'Could not find model "{base}:model/x".',
        ),
        (
            sm.create_endpoint,
            {"EndpointName": "f", "EndpointConfigName": "X"},
            f'Could not find endpoint configuration "{base}:endpoint-config/x".',
        ),
        (
            sm.create_endpoint,
            {"EndpointName": "E", "EndpointConfigName": "c"},
            f'Cannot create already existing endpoint "{base}:endpoint/e".',
        ),
        (
            sm.create_endpoint_config,
            {"EndpointConfigName": "C", "ProductionVariants": [variant()]},
            f'Cannot create already existing endpoint configuration "{base}:endpoint-config/c".',
        ),
        (
            sm.create_model,
            {"ModelName": "M", "PrimaryContainer": {"Image": IMAGE}},
            f'Cannot create already existing model "{base}:model/m".',
        ),
    ):
        assert refused(call, **params) == ("ValidationException", message)


def test_H01_lists_page_through_everything_once(sm: Any, control: Control) -> None:
    for number in range(23):
        sm.create_model(ModelName=f"Model-{number:02}", PrimaryContainer={"Image": IMAGE})
        control.clock.advance(1)
    pages = list(sm.get_paginator("list_models").paginate(PaginationConfig={"PageSize": 5}))
    names = [model["ModelName"] for page in pages for model in page["Models"]]
    assert names == [f"Model-{number:02}" for number in reversed(range(23))]
    assert [len(page["Models"]) for page in pages] == [5, 5, 5, 5, 3]
    up = sm.list_models(SortBy="Name", SortOrder="Ascending", NameContains="model-1", MaxResults=3)
    assert [m["ModelName"] for m in up["Models"]] == ["Model-10", "Model-11", "Model-12"]
    code, _ = refused(sm.list_models, NextToken=up["NextToken"])  # it belongs to another question
    assert code == "ValidationException"
    after = FakeClock().now() + timedelta(seconds=20)
    late = sm.list_models(CreationTimeAfter=after)["Models"]
    assert [m["ModelName"] for m in late] == ["Model-22", "Model-21"]


def test_H01_endpoints_do_not_wait_for_each_other(sm: Any, control: Control) -> None:
    make(sm, "first")
    count = 60
    stuck = threading.Event()
    publish = control.routing.publish

    def slow(route: Any) -> None:
        if route.name == "first":
            assert stuck.wait(60)
        publish(route)

    control.routing.publish = slow  # type: ignore[method-assign]
    for number in range(count):
        sm.create_endpoint(EndpointName=f"e-{number}", EndpointConfigName="c")
    for number in range(count):
        sm.get_waiter("endpoint_in_service").wait(EndpointName=f"e-{number}", WaiterConfig=SOON)
    stuck.set()
    sm.get_waiter("endpoint_in_service").wait(EndpointName="first", WaiterConfig=SOON)
    assert len(control.held) == count + 1


def test_the_default_role_is_who_the_caller_is(clients: Clients) -> None:
    who = clients.client("sts").get_caller_identity()
    assert who["Account"] == ACCOUNT
    assert f":assumed-role/{DEFAULT_ROLE_NAME}/" in who["Arn"]
    found = clients.client("iam").get_role(RoleName=DEFAULT_ROLE_NAME)["Role"]
    assert found["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/{DEFAULT_ROLE_NAME}"
    statement = found["AssumeRolePolicyDocument"]["Statement"][0]
    assert statement["Principal"]["Service"] == "sagemaker.amazonaws.com"
    with pytest.raises(ClientError) as error:
        clients.client("iam").get_role(RoleName="nobody")
    assert error.value.response["Error"]["Code"] == "NoSuchEntity"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
