"""Which pipeline a model is for: what `HF_TASK` says, or what the architecture in its config.json is known for.

The architectures are those the AWS toolkit knows, and some more. Where several endings fit, the longest counts.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.runtimes.contract import LoadError

TEXT_TO_TEXT = ("text2text-generation", "summarization", "translation")
_NAMED = (
    ("ForQuestionAnswering", "question-answering"),
    ("TapasForQuestionAnswering", "table-question-answering"),
    ("ForTokenClassification", "token-classification"),
    ("ForSequenceClassification", "text-classification"),
    ("ForMultipleChoice", "multiple-choice"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("GPT2LMHeadModel", "text-generation"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("T5WithLMHeadModel", "text2text-generation"),
    ("MTModel", "text2text-generation"),
    ("EncoderDecoderModel", "text2text-generation"),
    ("ForImageClassification", "image-classification"),
    ("ForObjectDetection", "object-detection"),
    ("ForSemanticSegmentation", "image-segmentation"),
    ("ForDepthEstimation", "depth-estimation"),
    ("ForAudioClassification", "audio-classification"),
    ("Wav2Vec2ForSequenceClassification", "audio-classification"),
    ("HubertForSequenceClassification", "audio-classification"),
    ("WavLMForSequenceClassification", "audio-classification"),
    ("ForCTC", "automatic-speech-recognition"),
    ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
    ("SpeechEncoderDecoderModel", "automatic-speech-recognition"),
)


def task_of(folder: Path, environment: Mapping[str, str]) -> str:
    """Raises `LoadError` for a model that does not say it."""
    if named := environment.get("HF_TASK", ""):
        return named
    architecture = _architecture(folder)
    fitting = [(len(ending), task) for ending, task in _NAMED if architecture.endswith(ending)]
    if not fitting:
        raise LoadError(
            f"config.json has the architecture {architecture or 'of nothing'}, which says no task: set HF_TASK in the "
            "model's Environment, for example to feature-extraction or text-classification"
        )
    return max(fitting)[1]


def read_json(path: Path) -> dict[str, Any]:
    """Raises `LoadError`."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LoadError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise LoadError(f"{path.name} cannot be read: it holds no JSON object")
    return values


def _architecture(folder: Path) -> str:
    named = read_json(folder / "config.json").get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""
