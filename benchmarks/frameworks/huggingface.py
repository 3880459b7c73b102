"""A classifier of texts, 2 layers of 64, sentences of 12 words, JSON."""

import importlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENT_TYPE = "application/json"
WORDS = [f"word{number}" for number in range(500)]
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make(folder: Path) -> None:
    transformers: Any = importlib.import_module("transformers")
    tokenizers: Any = importlib.import_module("tokenizers")
    known = {word: number for number, word in enumerate(MARKS + WORDS)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(known),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    transformers.BertForSequenceClassification(config).eval().save_pretrained(folder)


def body(rows: int, number: int) -> bytes:
    chosen = random.Random(number)
    texts = [" ".join(chosen.choices(WORDS, k=12)) for _ in range(rows)]
    return json.dumps({"inputs": texts}).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    transformers: Any = importlib.import_module("transformers")
    pipeline = transformers.pipeline("text-classification", model=str(folder))

    def predict(data: bytes) -> bytes:
        return json.dumps(pipeline(json.loads(data)["inputs"])).encode()

    return predict
