"""Which model, version and method a request is for: by the path of Serving's REST API or by custom attributes."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from clary.runtimes.frameworks.tensorflow.faults import InvalidArgument

PREDICT = "predict"
_ATTRIBUTE = re.compile(r"(tfs-[a-z-]+)=([^,=]+)(?:,|$)")
_NAME = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(rf"{_NAME}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_LOOK = re.compile(rf"{_NAME}(?P<metadata>/metadata)?", re.IGNORECASE)


class Target(NamedTuple):
    name: str
    version: int | None  # the newest
    label: str
    method: str  # of a call; `status` and `metadata` for what is only looked at


def attributes_of(header: str) -> dict[str, str]:
    """The `tfs-…` attributes of an `X-Amzn-SageMaker-Custom-Attributes` header."""
    return dict(_ATTRIBUTE.findall(header))


def path_of(attributes: dict[str, str], default_model: str) -> str:
    """The path that the attributes stand for."""
    version = attributes.get("tfs-model-version", "")
    place = f"/versions/{version}" if version else ""
    method = attributes.get("tfs-method", PREDICT)
    return f"/v1/models/{attributes.get('tfs-model-name', default_model)}{place}:{method}"


def target_of(http_method: str, path: str) -> Target:
    """Raises `InvalidArgument`."""
    matched = {"POST": _CALL, "GET": _LOOK}.get(http_method, _LOOK).fullmatch(path)
    if matched is None or http_method not in ("GET", "POST"):
        raise InvalidArgument(f"Malformed request: {http_method} {path}")
    parts = matched.groupdict()
    method = parts["method"].lower() if "method" in parts else "metadata" if parts["metadata"] else "status"
    version = int(parts["version"]) if parts["version"] else None
    return Target(unquote(parts["name"]), version, unquote(parts["label"] or ""), method)
