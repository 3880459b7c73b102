"""A user's story: SavedModels of TensorFlow, several in one archive, and handlers of the user's own around them."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import clary
from clary.testing.server import RunningServer
from framework_environments import python_of
from platform_models import archive, create, upload, wait_for_status
from tensorflow_models import ROWS

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/tensorflow-inference:2.19.0-cpu"
MAKER = Path(__file__).parent.parent / "tensorflow_models.py"
HANDLERS = """
import json
import requests
from vendored import FACTOR

def input_handler(data, context):
    if context.request_content_type == "text/csv":
        values = [float(text) for text in data.read().decode().split(",")]
    else:
        values = json.loads(data.read())["values"]
    if values == ["rest"]:  # what a handler may ask of its models besides the one call
        values = requests.post(context.rest_uri, data=json.dumps({"instances": [8.0]})).json()["predictions"]
        model = context.rest_uri.rpartition(":")[0]
        assert requests.get(model).json()["model_version_status"][0]["state"] == "AVAILABLE"
        signatures = requests.get(model + "/metadata").json()["metadata"]["signature_def"]["signature_def"]
        assert signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
        assert requests.get(model + "/versions/99").status_code == 404
        port = model.split("/")[2]
        assert requests.get("http://" + port + "/v1/models/half").status_code == 404
    if values == ["grpc"]:
        return context.channel
    return json.dumps({"instances": [value * FACTOR for value in values]})

def output_handler(response, context):
    if response.status_code != 200:
        raise ValueError(response.text)
    told = {"scaled": response.json()["predictions"], "length": context.content_length}
    return json.dumps(told), context.accept_header
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensorflow")
    variables = {**os.environ, "PYTHONPATH": str(Path(clary.__path__[0]).parent)}
    subprocess.run([python_of("tensorflow"), MAKER, folder], check=True, env=variables)
    return folder


@pytest.fixture(scope="module")
def expected(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / "expected.json").read_text())
    return found


@pytest.fixture(scope="module")
def many(server: RunningServer, made: Path) -> str:
    """An endpoint with all the models."""
    create(server, "savedmodels", models(made), Image=IMAGE)
    found = wait_for_status(server, "savedmodels", "InService")
    assert "tensorflow" in found["ProductionVariants"][0]["DeployedImages"][0]["ResolvedImage"]
    return "savedmodels"


def models(made: Path, below: str = "", **more: bytes) -> bytes:
    files = [path for path in (made / below).rglob("*") if path.is_file() and path.suffix != ".json"]
    return archive({**{str(path.relative_to(made)): path.read_bytes() for path in files}, **more})


def ask(
    server: RunningServer,
    name: str,
    body: Any,
    attributes: str = "",
    kind: str = "application/json",
    accept: str = "application/json",
) -> Any:
    content = body if isinstance(body, str) else json.dumps(body)
    more = {"CustomAttributes": attributes} if attributes else {}
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, Body=content, ContentType=kind, Accept=accept, **more
    )
    assert answer["ContentType"] == accept
    return json.loads(answer["Body"].read())


def refusal(
    server: RunningServer, name: str, body: Any, attributes: str = "", **more: str
) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        ask(server, name, body, attributes, **more)
    response: Any = caught.value.response
    return response["OriginalStatusCode"], json.loads(response["OriginalMessage"])["error"]


def test_H06_the_newest_version_answers_unless_another_is_asked_for(
    server: RunningServer, many: str, expected: dict[str, Any]
) -> None:
    body = {"instances": [1.0, 2.0, 5.0]}
    older, newer = expected["half"]
    assert ask(server, many, body, "tfs-model-name=half") == {"predictions": newer}
    assert ask(server, many, body, "tfs-model-name=half,tfs-model-version=1") == {"predictions": older}
    assert ask(server, many, {"inputs": [1, 2, 5]}, "tfs-model-name=half") == {"outputs": newer}
    assert ask(server, many, "1.0\n2\n5.0", "tfs-model-name=half", "text/csv") == {"predictions": newer}
    assert ask(server, many, [1.0], "tfs-model-name=half", accept="application/jsonlines")
    assert refusal(server, many, body, "tfs-model-name=half,tfs-model-version=9") == (
        404,
        "Servable not found for request: Specific(half, 9)",
    )
    assert refusal(server, many, body, "tfs-model-name=third")[0] == 404


def test_H06_several_inputs_outputs_and_types(
    server: RunningServer, many: str, expected: dict[str, Any]
) -> None:
    sums = expected["sums"]
    rows = [{"sum": sums["sum"][number], "twice": sums["twice"][number]} for number in range(2)]
    answer = ask(server, many, {"instances": ROWS}, "tfs-model-name=mixed")
    assert answer["predictions"] == [{**row, "sum": pytest.approx(row["sum"])} for row in rows]
    columns = {name: [row[name] for row in ROWS] for name in ("a", "n")}
    answer = ask(server, many, {"inputs": columns}, "tfs-model-name=mixed")
    assert answer["outputs"] == {"sum": pytest.approx(sums["sum"]), "twice": sums["twice"]}

    texts = {"signature_name": "texts", "instances": ["abc", {"b64": "eHl6"}]}
    assert ask(server, many, texts, "tfs-model-name=mixed")["predictions"] == [
        {"raw_bytes": {"b64": "YWJj"}, "up": "ABC"},
        {"raw_bytes": {"b64": "eHl6"}, "up": "XYZ"},
    ]
    flags = {"signature_name": "flags", "instances": [True, False]}
    assert ask(server, many, flags, "tfs-model-name=mixed") == {"predictions": [False, True]}
    logs = ask(server, many, {"signature_name": "logs", "inputs": [2, 0.5]}, "tfs-model-name=mixed")
    assert logs["outputs"] == pytest.approx(expected["logs"])
    odd = {"signature_name": "logs", "inputs": [0, -1, float("inf")]}
    assert str(ask(server, many, odd, "tfs-model-name=mixed")) == "{'outputs': [-inf, nan, inf]}"


def test_H06_examples_are_classified_and_regressed(server: RunningServer, many: str) -> None:
    """`x` doubled, plus `w`, which is 1 unless an example or the context says otherwise."""
    body = {"context": {"w": 3}, "examples": [{"x": 1.0}, {"x": [2.5]}]}
    assert ask(server, many, body, "tfs-method=classify") == {
        "results": [[["up", 5.0], ["down", -5.0]], [["up", 8.0], ["down", -8.0]]]
    }
    body = {"signature_name": "value", "examples": [{"x": 1.0}, {"x": 2.5, "w": 10}]}
    assert ask(server, many, body, "tfs-method=regress") == {"results": [3.0, 15.0]}
    status, words = refusal(server, many, body, "tfs-method=classify")
    assert (status, "Was: tensorflow/serving/regress" in words) == (400, True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"instances": [', "JSON Parse error"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": ["a"]}, 'JSON Value: "a" Type: String is not of expected type: float'),
        ({"instances": [1.0, True]}, "JSON Value: true Type: True is not of expected type: float"),
        ({"instances": [16777217]}, "Cannot convert JSON value: 16777217 to float without loss of precision"),
        ({"instances": [1, [2]]}, "Failed to process element: 1 of 'instances' list"),
        ({"instances": [1], "inputs": [1]}, "expecting only one of 'inputs' or 'instances'"),
        ({"inputs": {"z": [1]}}, "Missing named input: x in 'inputs' object."),
        ({"signature_name": "other", "inputs": [1]}, 'Serving signature name: "other" not found'),
    ],
)
def test_H06_what_does_not_fit_is_400_in_servings_words(
    server: RunningServer, many: str, body: Any, words: str
) -> None:
    status, found = refusal(server, many, body, "tfs-model-name=half")
    assert (status, words in found) == (400, True), found


def test_H06_calls_that_share_a_run_are_answered_as_alone(made: Path) -> None:
    found = json.loads((made / "batches.json").read_text())
    assert found["together"] == found["alone"]
    assert [status for status, _ in found["alone"]] == [200] * 11 + [400, 400]
    assert found["alone_runs"] == 11
    assert found["together_runs"] < 6


def test_H06_handlers_stand_around_the_models(
    server: RunningServer, made: Path, expected: dict[str, Any]
) -> None:
    """The folder `lib` has all packages, so that a requirements.txt nobody could install does not matter."""
    more = {
        "code/inference.py": HANDLERS.encode(),
        "code/lib/vendored.py": b"FACTOR = 10\n",
        "code/requirements.txt": b"there-is-no-such-package-at-all==1\n",
    }
    environment = {"SAGEMAKER_GUNICORN_WORKERS": "2", "SAGEMAKER_TFS_ENABLE_BATCHING": "true"}
    create(server, "handled", models(made, "export/half", **more), Image=IMAGE, Environment=environment)
    wait_for_status(server, "handled", "InService")
    assert ask(server, "handled", "1,2", kind="text/csv") == {"scaled": [8.0, 13.0], "length": 3}
    assert ask(server, "handled", {"values": ["rest"]})["scaled"] == [38.0]
    older = ask(server, "handled", {"values": [1]}, "tfs-model-name=half,tfs-model-version=1")
    assert older["scaled"] == [7.0]
    assert (
        "gRPC is not served here; post to context.rest_uri"
        in refusal(server, "handled", {"values": ["grpc"]})[1]
    )
    status, words = refusal(server, "handled", {"values": ["x"]})
    assert (status, "is not of expected type: float" in words) == (500, True)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda number: ask(server, "handled", {"values": [number]})["scaled"], range(24))
    assert list(answers) == [[number * 5.0 + 3.0] for number in range(24)]


def test_M02_scripts_and_models_share_an_endpoint_of_many(server: RunningServer, made: Path) -> None:
    """The models of a script are in a process of their own, inside of the instance's sandbox."""
    more = {"code/inference.py": HANDLERS.encode(), "code/lib/vendored.py": b"FACTOR = 10\n"}
    upload(server, "tfmany/plain.tar.gz", models(made, "export/half"))
    prefix = upload(server, "tfmany/handled.tar.gz", models(made, "export/half", **more)).rpartition("/")[0]
    create(server, "tfmany", b"", Image=IMAGE, Mode="MultiModel", ModelDataUrl=f"{prefix}/")
    wait_for_status(server, "tfmany", "InService")
    invoke = server.client("sagemaker-runtime").invoke_endpoint
    for model, body, answer in (
        ("handled", {"values": [1]}, {"scaled": [8.0], "length": 15}),
        ("plain", {"instances": [1]}, {"predictions": [3.5]}),
        ("handled", {"values": [2]}, {"scaled": [13.0], "length": 15}),
    ):
        found = invoke(
            EndpointName="tfmany",
            TargetModel=f"{model}.tar.gz",
            Body=json.dumps(body),
            ContentType="application/json",
        )
        assert json.loads(found["Body"].read()) == answer


def test_H06_a_script_of_another_container_says_what_to_write(server: RunningServer, made: Path) -> None:
    script = b"def model_fn(model_dir): return None\n"
    create(server, "strange", models(made, "export/half", **{"code/inference.py": script}), Image=IMAGE)
    reason = wait_for_status(server, "strange", "Failed")["FailureReason"]
    assert "neither, but model_fn, which TensorFlow's container does not call" in reason
    assert "define input_handler(data, context) and output_handler(response, context)" in reason
