"""Tasks, places and payloads of the Hugging Face runtime: what needs no transformers."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clary.catalog import Catalog
from clary.runtimes.contract import LoadError
from clary.runtimes.encoding import UnsupportedFormat
from clary.runtimes.frameworks.huggingface import payloads, pipelines
from clary.runtimes.frameworks.huggingface.sources import locate
from clary.runtimes.frameworks.huggingface.tasks import task_of

OLDER = Catalog.load().named("huggingface")


def config(folder: Path, **values: object) -> Path:
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("DistilBertForSequenceClassification", "text-classification"),
        ("BertForTokenClassification", "token-classification"),
        ("RobertaForQuestionAnswering", "question-answering"),
        ("TapasForQuestionAnswering", "table-question-answering"),
        ("BertForMaskedLM", "fill-mask"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("MarianMTModel", "text2text-generation"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("ViTForImageClassification", "image-classification"),
        ("Wav2Vec2ForSequenceClassification", "audio-classification"),
    ],
)
def test_H06_the_architecture_says_the_task(tmp_path: Path, architecture: str, task: str) -> None:
    assert task_of(config(tmp_path, architectures=[architecture]), {}) == task


def test_H06_the_environment_s_word_goes_first(tmp_path: Path) -> None:
    assert task_of(config(tmp_path, architectures=["BertModel"]), {"HF_TASK": "fill-mask"}) == "fill-mask"


@pytest.mark.parametrize("values", [{"architectures": ["BertModel"]}, {"architectures": []}, {}])
def test_H06_a_model_without_a_task_says_how_to_name_it(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(LoadError, match="set HF_TASK"):
        task_of(config(tmp_path, **values), {})


@pytest.mark.parametrize(
    ("architecture", "is_older"),
    [
        ("DistilBertForQuestionAnswering", True),
        ("T5ForConditionalGeneration", True),
        ("MBartForConditionalGeneration", True),
        ("MarianMTModel", True),
        ("BertForSequenceClassification", False),
        ("WhisperForConditionalGeneration", False),
        ("Qwen2VLForConditionalGeneration", False),
    ],
)
def test_H06_what_version_5_left_out_has_the_older_environment(architecture: str, is_older: bool) -> None:
    assert OLDER is not None
    assert OLDER.older is not None
    content = json.dumps({"model_type": "x", "architectures": [architecture]}, indent=2).encode()
    assert OLDER.older.is_needed_for(content) == is_older


@pytest.mark.parametrize(
    ("task", "is_older"),
    [("translation_en_to_fr", True), ("summarization", True), ("text-generation", False), ("", False)],
)
def test_H06_a_task_that_version_5_left_out_has_the_older_environment(task: str, is_older: bool) -> None:
    assert OLDER is not None
    assert OLDER.older is not None
    assert OLDER.older.is_asked_for({"HF_TASK": task, "OTHER": "summarization"}) == is_older


def test_H06_the_model_is_in_the_archive_or_in_a_folder_of_it(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    config(inside)
    assert locate(tmp_path, {"HF_MODEL_ID": "inside"}) == inside
    assert locate(tmp_path, {"HF_MODEL_ID": str(inside)}) == inside
    with pytest.raises(LoadError, match=r"the model archive has no config\.json beside inside"):
        locate(tmp_path, {})
    assert locate(config(tmp_path), {}) == tmp_path


@pytest.mark.parametrize("name", ["/etc", "../other", "./none"])
def test_H06_a_folder_outside_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadError, match="no such folder in the model archive"):
        locate(tmp_path, {"HF_MODEL_ID": name})


class RepositoryNotFoundError(Exception):
    """Named as the hub's own."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError("404 Client Error."), "needs HF_TOKEN"),
        (OSError("no route"), "EnableNetworkIsolation"),
    ],
)
def test_H06_a_model_that_the_hub_does_not_give_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuse(*arguments: object, **more: object) -> list[str]:
        raise error

    hub = SimpleNamespace(HfApi=lambda token: SimpleNamespace(list_repo_files=refuse))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(LoadError, match=words):
        locate(tmp_path, {"HF_MODEL_ID": "nobody/nothing"})


def test_H06_a_model_of_the_hub_is_fetched_into_the_instance_s_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **more: Any) -> str:
        asked.update(more, name=name)
        return str(config(tmp_path))

    files = ["config.json", "model.safetensors", "pytorch_model.bin"]
    hub = SimpleNamespace(
        HfApi=lambda token: SimpleNamespace(list_repo_files=lambda name, revision: files),
        snapshot_download=snapshot,
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    environment = {"HF_MODEL_ID": "a/b", "HF_MODEL_REVISION": "v1", "HF_API_TOKEN": "t", "HF_HOME": "/cache"}
    assert locate(tmp_path / "none", environment) == tmp_path
    assert (asked["name"], asked["revision"], asked["token"]) == ("a/b", "v1", "t")
    assert asked["cache_dir"] == Path("/cache/hub")
    assert "*.bin" in asked["ignore_patterns"]  # the same weights as safetensors


def test_H06_csv_has_a_header(tmp_path: Path) -> None:
    assert payloads.decode("inputs\none\ntwo\n", "text/csv") == {"inputs": ["one", "two"]}
    rows = payloads.decode(b"question,context\nwho,anna\n", "text/csv; charset=utf-8")
    assert rows == {"inputs": [{"question": "who", "context": "anna"}]}
    for wrong in ("1,2\n3,4\n", "", "inputs\n"):
        with pytest.raises(ValueError, match="CSV"):
            payloads.decode(wrong, "text/csv")


def test_H06_pictures_are_read_as_pictures() -> None:
    stream = io.BytesIO()
    Image.new("L", (3, 2)).save(stream, "PNG")
    picture = payloads.decode(stream.getvalue(), "image/png")["inputs"]
    assert (picture.mode, picture.size) == ("RGB", (3, 2))
    with pytest.raises(UnsupportedFormat):
        payloads.decode(b"", "video/mp4")


def test_H06_recordings_become_one_channel_at_the_model_s_rate() -> None:
    from scipy.io import wavfile

    tone = np.sin(np.arange(8000) / 8000 * 2 * np.pi * 100)
    stream = io.BytesIO()
    wavfile.write(stream, 8000, (np.stack([tone, tone], axis=1) * 32767).astype("int16"))
    heard: list[Any] = []

    class Listening:
        task = "automatic-speech-recognition"
        feature_extractor = SimpleNamespace(sampling_rate=16000)

        def __call__(self, inputs: Any) -> str:
            heard.append(inputs)
            return "text"

    listening = Listening()
    assert pipelines.predict(payloads.decode(stream.getvalue(), "audio/wav"), listening) == "text"
    assert heard[0]["sampling_rate"] == 16000
    expected = np.sin(np.arange(16000) / 16000 * 2 * np.pi * 100)
    assert np.abs(heard[0]["raw"] - expected)[100:-100].max() < 0.01
    pipelines.predict(payloads.decode(b"OggS...", "audio/ogg"), listening)
    assert heard[1] == b"OggS..."


def test_H06_inputs_and_parameters_are_told_apart() -> None:
    def say(inputs: Any, **parameters: Any) -> Any:
        return inputs, parameters

    assert pipelines.predict({"inputs": "a", "parameters": {"k": 1}}, say) == ("a", {"k": 1})
    assert pipelines.predict({"question": "q", "parameters": None}, say) == ({"question": "q"}, {})
    for wrong in (["a"], "a", {"inputs": "a", "parameters": [1]}):
        with pytest.raises(TypeError):
            pipelines.predict(wrong, say)


def test_H06_answers_are_written_as_the_toolkit_writes_them() -> None:
    answer = [{"label": "gut", "score": np.float32(0.5), "text": "ä"}]
    assert payloads.encode(answer, "application/json") == '[{"label":"gut","score":0.5,"text":"ä"}]'
    assert payloads.encode([{"a": 1}, {"a": 2}], "text/csv") == "a\r\n1\r\n2\r\n"
    picture = json.loads(payloads.encode({"mask": Image.new("L", (1, 1))}, "application/json"))
    assert picture["mask"].startswith("iVBORw0KGgo")
    with pytest.raises(ValueError, match="accept application/json"):
        payloads.encode([[1.0]], "text/csv")
    with pytest.raises(UnsupportedFormat):
        payloads.encode([], "text/html")
    with pytest.raises(ValueError, match="JSON compliant"):
        payloads.encode([float("nan")], "application/json")


def test_H06_whatever_goes_wrong_has_the_toolkit_s_body() -> None:
    refusal = payloads.refusal(ValueError("not so"))
    assert refusal.status == 400
    expected = '{\n  "code": 400,\n  "type": "InternalServerException",\n  "message": "not so"\n}\n'
    assert refusal.body.decode() == expected


@pytest.mark.parametrize(
    ("repository", "instead"),
    [
        ("huggingface-pytorch-tgi-inference", "HF_TASK=text-generation"),
        ("huggingface-tensorflow-inference", "use huggingface-pytorch-inference"),
        ("djl-inference", "inference.py"),
        ("huggingface-pytorch-inference-neuronx", "no Neuron devices"),
    ],
)
def test_H06_images_of_other_servers_are_refused_with_what_to_use(repository: str, instead: str) -> None:
    catalog, image = Catalog.load(), f"763104351884.dkr.ecr.us-east-1.amazonaws.com/{repository}:1"
    assert catalog.resolve(image) is None
    assert instead in catalog.refusal(image)
    assert not catalog.refusal("763104351884.dkr.ecr.us-east-1.amazonaws.com/mine:1")
