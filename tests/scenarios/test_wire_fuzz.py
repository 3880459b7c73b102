"""No request, however broken, gets a 5xx or silence, and the server is right afterwards. `make chaos` tries more."""

from collections.abc import Iterator

import pytest

from clary.main import operation_names
from clary.testing.fuzz import Fuzz
from clary.testing.raw_requests import RawRequest
from clary.testing.server import RunningServer
from platform_models import BUCKET, deploy, invoke, predictions, regressor, rows

NAME = "fuzzed"


@pytest.fixture(scope="module")
def fuzz(server: RunningServer) -> Iterator[Fuzz]:
    booster = regressor()
    deploy(server, NAME, booster)
    server.client("s3").put_object(Bucket=BUCKET, Key=NAME, Body=b"anything")
    names = [f"gateway-{number}" for number in range(server.settings.gateways)] + ["control", "host"]
    before = [server.process(name) for name in names]
    known = {"Bucket": BUCKET, "Key": NAME, "EndpointName": NAME, "CopySource": f"{BUCKET}/{NAME}"}
    yield Fuzz(server, known)
    assert [server.process(name) for name in names] == before
    assert invoke(server, NAME, rows()) == pytest.approx(predictions(booster, rows()), rel=1e-6)


@pytest.mark.parametrize(("service", "operation"), operation_names())
def test_Z04_every_request_gets_an_answer_that_fits(fuzz: Fuzz, service: str, operation: str) -> None:
    fuzz.operation(service, operation, examples=6, seed=1)


def test_Z04_no_bytes_on_the_port_get_silence(fuzz: Fuzz) -> None:
    fuzz.raw_bytes(examples=60, seed=1)


@pytest.mark.parametrize("body", [b"[" * 5000, b'{"a":' * 5000, b'{"a":"\xff"}'])
def test_Z04_a_body_that_is_no_json_is_refused_below_the_admin_path_too(fuzz: Fuzz, body: bytes) -> None:
    assert fuzz.exchange("clary", RawRequest("GET", "/_clary/status", {}, body)).status == 400
