"""The toolkit's handlers for PyTorch: what a script falls back to, and what a model without one is answered with."""

from typing import Any

import numpy as np
import torch

from clary.runtimes import encoding


def input_fn(data: str | bytes, content_type: str) -> Any:
    """JSON and CSV become float32, as the toolkit has it; npy keeps its type."""
    array = encoding.decode(data, content_type)
    if not isinstance(array, np.ndarray):
        return array  # npz is a sparse matrix: its script knows
    tensor = torch.from_numpy(array)
    return tensor.float() if encoding.plain(content_type) in encoding.TEXT else tensor


def predict_fn(data: Any, model: Any) -> Any:
    with torch.no_grad():
        return evaluating(model)(data)


def evaluating(model: Any) -> Any:
    """As it is used, not trained. An exported program has no such state, and says so by raising."""
    if isinstance(model, torch.nn.Module) and model.training:
        try:
            model.eval()
        except NotImplementedError:
            return model
    return model


def output_fn(prediction: Any, accept: str) -> tuple[str | bytes, str]:
    """In the first form that `accept` names and that can be written."""
    if isinstance(prediction, torch.Tensor):
        prediction = prediction.detach().cpu().tolist()
    kind = chosen_kind(accept)
    return encoding.encode(prediction, kind), kind


def chosen_kind(accept: str) -> str:
    """Raises `encoding.UnsupportedFormat` where none of them is known."""
    for kind in map(encoding.plain, accept.split(",")):
        if encoding.is_written(kind):
            return kind
    raise encoding.UnsupportedFormat(accept)
