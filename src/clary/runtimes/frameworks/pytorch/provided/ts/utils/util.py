"""Classes of a module, labels of classes, and the exception that chooses its own status."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from types import ModuleType
from typing import Any


class PredictionException(Exception):
    """Raised by a handler: the request is answered with this status and these words."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Those the module defines itself."""
    found = [each for each in vars(module).values() if isinstance(each, type)]
    own = [each for each in found if each.__module__ == module.__name__]
    return [each for each in own if parent_class is None or issubclass(each, parent_class)]


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """`index_to_name.json`: names of classes by their number; of a list of names the last one counts."""
    path = Path(mapping_file_path)
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no object of class numbers and names")
    if isinstance(names := found.get("object_type_names"), list):
        return {str(number): str(name) for number, name in enumerate(names)}
    labels = {number: name[-1] if isinstance(name, list) else name for number, name in found.items()}
    if not all(isinstance(name, str) for name in labels.values()):
        raise ValueError(f"{path.name} has names that are no text")
    return labels


def map_class_to_label(
    probs: Sequence[Sequence[Any]],
    mapping: Mapping[str, str] | None = None,
    lbl_classes: Iterable[Sequence[Any]] | None = None,
) -> list[dict[str, Any]]:
    """For each row its values by the classes' names, or by their numbers."""
    classes = repeat(range(len(probs[0]))) if lbl_classes is None else lbl_classes
    return [
        {mapping[str(number)] if mapping else str(number): value for number, value in zip(numbers, row)}
        for numbers, row in zip(classes, probs)
    ]
