"""What requests hold and answers look like, as the Hugging Face toolkit has it.

JSON is `{"inputs": …, "parameters": {…}}`; CSV has a header, `inputs` or `question,context`; pictures and sound come as
they are. An answer is what the pipeline returns, as JSON, CSV or npy. Whatever goes wrong is status 400 with the
toolkit's body.
"""

import base64
import csv
import datetime
import importlib
import io
import json
from typing import Any

from clary.runtimes import encoding
from clary.runtimes.contract import InvocationResponse
from clary.runtimes.encoding import CSV, JSON, NPY, UnsupportedFormat, plain

IMAGES = frozenset(f"image/{kind}" for kind in ("jpeg", "png", "tiff", "bmp", "gif", "webp", "x-image"))
SOUNDS = frozenset(
    f"audio/{kind}"
    for kind in ("x-flac", "flac", "mpeg", "mp3", "wave", "wav", "x-wav", "ogg", "x-audio", "webm")
)
_HEADINGS = ("question", "context", "inputs")


class Sound(bytes):
    """A recording as it came: it is decoded where the rate is known that the model wants."""


def refusal(error: Exception) -> InvocationResponse:
    """The toolkit's answer to everything that does not work out."""
    words = str(error) or type(error).__name__
    body = json.dumps({"code": 400, "type": "InternalServerException", "message": words}, indent=2)
    return InvocationResponse(400, JSON, f"{body}\n".encode())


def decode(data: str | bytes, content_type: str) -> Any:
    """Raises `UnsupportedFormat`, and `ValueError` or what a decoder raises for what cannot be read."""
    kind = plain(content_type)
    if kind == JSON:
        return json.loads(data)
    if kind == CSV:
        return _from_csv(data if isinstance(data, str) else data.decode())
    if kind in IMAGES:
        image = importlib.import_module("PIL.Image").open(io.BytesIO(_bytes(data)))
        return {"inputs": image.convert("RGB")}
    if kind in SOUNDS:
        return {"inputs": Sound(_bytes(data))}
    if kind == NPY:
        return encoding.decode(data, NPY)
    raise UnsupportedFormat(content_type)


def encode(prediction: Any, accept: str) -> str | bytes:
    """Raises `UnsupportedFormat`, and `ValueError` or `TypeError` for what that form cannot hold."""
    kind = plain(accept)
    if kind == JSON:
        return json.dumps(
            prediction, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_jsonable
        )
    if kind == CSV:
        return _to_csv(prediction)
    if kind == NPY:
        return encoding.encode(prediction, NPY)
    raise UnsupportedFormat(accept)


def _from_csv(text: str) -> dict[str, Any]:
    first = text.splitlines()[0].lower() if text.strip() else ""
    if not any(heading in first for heading in _HEADINGS):
        raise ValueError(
            "You need to provide the correct CSV with Header columns to use it with the inference toolkit default "
            f"handler: a first line of inputs, or question,context; it is {first[:80]!r}"
        )
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        raise ValueError("the CSV has a header and no rows")
    return {"inputs": [row["inputs"] for row in rows] if "inputs" in rows[0] else rows}


def _to_csv(prediction: Any) -> str:
    rows = prediction if isinstance(prediction, list) else [prediction]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            "this answer has no columns, so that it cannot be written as CSV: accept application/json"
        )
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _jsonable(value: Any) -> Any:
    if hasattr(value, "tolist"):  # arrays, tensors, and the numbers in them
        return value.tolist()
    if isinstance(value, datetime.datetime):
        return str(value)
    if hasattr(value, "save"):  # a picture
        stream = io.BytesIO()
        value.save(stream, format="PNG")
        return base64.b64encode(stream.getvalue()).decode()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)
