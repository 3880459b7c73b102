"""Captured requests as lines of JSON."""

import base64
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from clary.domain.routes import Capture
from clary.gateway.capture_lines import Captured, Payload, line

CAPTURE = Capture("s3://b/p", 100.0, csv_types=("text/csv",), json_types=("application/json",))
AT = 1644860965.9


def record(request: Payload, answer: Payload | None, capture: Capture = CAPTURE, **more: str) -> Any:
    text = line(Captured("e-1", AT, request, answer, **more), capture)
    assert text.endswith(b"\n") and text.count(b"\n") == 1
    return json.loads(text)


def test_G01_a_line_is_as_sagemaker_writes_it() -> None:
    found = record(
        Payload("text/csv", b"69,0,153.7\n"),
        Payload("text/csv; charset=utf-8", b"0.0254"),
        inference_id="inf-1",
        custom_attributes="a=b",
    )
    assert found == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv",
                "mode": "INPUT",
                "data": "69,0,153.7\n",
                "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "text/csv; charset=utf-8",
                "mode": "OUTPUT",
                "data": "0.0254",
                "encoding": "CSV",
            },
        },
        "eventMetadata": {
            "eventId": "e-1",
            "customAttributes": ["a=b"],
            "inferenceId": "inf-1",
            "inferenceTime": "2022-02-14T17:49:25Z",
        },
        "eventVersion": "0",
    }


def test_G01_what_is_not_listed_is_base64() -> None:
    found = record(Payload("application/x-npy", b"\x93NUMPY"), Payload("application/json", b'{"a": 1}'))
    sides = found["captureData"]
    assert sides["endpointInput"]["encoding"] == "BASE64"
    assert base64.b64decode(sides["endpointInput"]["data"]) == b"\x93NUMPY"
    assert (sides["endpointOutput"]["encoding"], sides["endpointOutput"]["data"]) == ("JSON", '{"a": 1}')


def test_G01_a_model_error_has_no_output_and_options_choose_the_sides() -> None:
    assert set(record(Payload("text/csv", b"1"), None)["captureData"]) == {"endpointInput"}
    only_output = Capture("s3://b", 100.0, takes_input=False)
    assert set(record(Payload("", b"1"), Payload("", b"2"), only_output)["captureData"]) == {"endpointOutput"}


@settings(max_examples=25, deadline=None)
@given(
    data=st.binary(max_size=100_000), content_type=st.sampled_from(["text/csv", "TEXT/CSV ;x=y", "a/b", ""])
)
def test_G01_every_body_can_be_had_back(data: bytes, content_type: str) -> None:
    side = record(Payload(content_type, data), None)["captureData"]["endpointInput"]
    back = base64.b64decode(side["data"]) if side["encoding"] == "BASE64" else side["data"].encode()
    assert back == data
