"""Makes tests/golden/huggingface: tiny models with random weights, and what transformers' own pipelines say of them.

Run by the Python of the Hugging Face environment, once; the older environment for what only that one answers:

    python tests/huggingface_models.py tests/golden/huggingface sentiment vit
    OLDER_PYTHON tests/huggingface_models.py tests/golden/huggingface answers
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "this",
    "is",
    "a",
    "good",
    "bad",
    "film",
    "who",
    "was",
    "it",
]
WORDS += [
    "what",
    "the",
    "and",
    "not",
    "very",
    "i",
    "love",
    "hate",
    "you",
    "in",
    "london",
    "paris",
    "city",
    "lives",
]
WORDS += ["anna", "bob"]
SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
TEXT = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 32}
REQUESTS: dict[str, Any] = {
    "sentiment": ["this is a very good film", "i hate paris"],
    "answers": {"question": "who lives in paris", "context": "anna lives in london and bob lives in paris"},
}


def main(folder: Path, *names: str) -> None:
    torch.manual_seed(3)
    for name in names:
        _MAKERS[name](folder / name)
    kept = folder / "expected.json"
    told = json.loads(kept.read_text()) if kept.exists() else {}
    told |= {name: _expected(folder / name) for name in names}
    kept.write_text(json.dumps(told, indent=1, default=float, sort_keys=True) + "\n")


def _sentiment(folder: Path) -> None:
    labels = {"NEGATIVE": 0, "POSITIVE": 1}
    config = transformers.BertConfig(
        **TEXT, label2id=labels, id2label={n: name for name, n in labels.items()}
    )
    _spread(transformers.BertForSequenceClassification(config)).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _answers(folder: Path) -> None:
    _spread(transformers.BertForQuestionAnswering(transformers.BertConfig(**TEXT))).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _vit(folder: Path) -> None:
    labels = {"cat": 0, "dog": 1}
    config = transformers.ViTConfig(
        **SIZES, image_size=8, patch_size=4, label2id=labels, id2label={n: name for name, n in labels.items()}
    )
    _spread(transformers.ViTForImageClassification(config)).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((12, 12)).save(picture, "PNG")
    (folder.parent / "picture.png").write_bytes(picture.getvalue())


def _spread(model: Any) -> Any:
    """Weights large enough that inputs make a difference."""
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(10) if each.ndim > 1 else None
    return model.eval()


def _tokenizer() -> Any:
    inner = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    marks = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=32, **marks)


def _expected(folder: Path) -> Any:
    task = {
        "sentiment": "text-classification",
        "answers": "question-answering",
        "vit": "image-classification",
    }
    pipeline = transformers.pipeline(task[folder.name], model=str(folder))
    if folder.name == "vit":
        return pipeline(Image.open(folder.parent / "picture.png").convert("RGB"))
    return pipeline(REQUESTS[folder.name])


_MAKERS = {"sentiment": _sentiment, "answers": _answers, "vit": _vit}

if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
