"""What requests are for and what they hold, before any model has a part in it: the container's rules."""

import json
from typing import Any

import pytest

from clary.runtimes.contract import UnsupportedMediaType
from clary.runtimes.frameworks.tensorflow.faults import InvalidArgument
from clary.runtimes.frameworks.tensorflow.payloads import answer_type, kind_of, to_serving_json
from clary.runtimes.frameworks.tensorflow.targets import Target, attributes_of, path_of, target_of


@pytest.mark.parametrize(
    ("kind", "body", "instances"),
    [
        ("application/json", b'{"instances": [1]}', [1]),
        ("application/json", b"7", [7]),
        ("application/json", b"[1, 2]", [[1, 2]]),
        ("application/json", b" [ [1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ("application/json", b'{"a": 1}', [{"a": 1}]),
        ("application/jsonlines", b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ("application/jsons", b"[1, 2]\r\n\r\n[3, 4]", [[1, 2], [3, 4]]),
        ("text/csv", b"1.0\n2\n\n", [1.0, 2]),
        ("text/csv", b"1.0,2\n-3e2,.5\n".replace(b".5", b"0.5"), [[1.0, 2], [-300.0, 0.5]]),
        ("text/csv", b"a,b,c\nd,1,f", [["a", "b", "c"], ["d", "1", "f"]]),
        ("text/csv", b'"a, b"\n"c"', [["a, b"], "c"]),
        ("text/csv", b'elephant\nsay "hi"', ["elephant", 'say "hi"']),
    ],
)
def test_H06_bodies_become_instances(kind: str, body: bytes, instances: Any) -> None:
    assert json.loads(to_serving_json(kind, body)) == {"instances": instances}


def test_what_serving_reads_itself_is_passed_on() -> None:
    for body in (b'{"inputs": {"x": [1]}}', b'{"examples":[{}]}', b'{"signature_name":"s","instances" : 1}'):
        assert to_serving_json("application/json", body) == body


def test_content_types() -> None:
    assert kind_of("Application/JSON; charset=utf-8") == "application/json"
    for wrong in (None, "", "image/png"):
        with pytest.raises(UnsupportedMediaType, match="Unsupported Media Type"):
            kind_of(wrong)
    assert answer_type("application/jsonlines, text/csv") == "application/jsonlines"
    for other in (None, "*/*", "text/csv"):
        assert answer_type(other) == "application/json"


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", Target("first", None, "", "predict")),
        ("tfs-model-name=b", Target("b", None, "", "predict")),
        ("mine=1,tfs-model-name=b,tfs-model-version=5,tfs-method=classify", Target("b", 5, "", "classify")),
        ("tfs-method=regress", Target("first", None, "", "regress")),
    ],
)
def test_H06_custom_attributes_choose_model_version_and_method(header: str, target: Target) -> None:
    assert target_of("POST", path_of(attributes_of(header), "first")) == target


def test_paths_of_the_rest_api() -> None:
    assert target_of("GET", "/v1/models/a") == Target("a", None, "", "status")
    assert target_of("GET", "/v1/models/a/versions/3/metadata") == Target("a", 3, "", "metadata")
    assert target_of("POST", "/v1/models/a%20b/labels/new:predict") == Target("a b", None, "new", "predict")
    for method, path in (
        ("POST", "/v1/models/a"),
        ("GET", "/"),
        ("POST", "/v1/models/a:train"),
        ("PUT", "/v1/models/a"),
    ):
        with pytest.raises(InvalidArgument, match=f"Malformed request: {method} {path}"):
            target_of(method, path)
