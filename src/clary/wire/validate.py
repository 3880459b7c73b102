"""The constraints of an operation's input, refused in AWS's words.

Required, enum, length, range and pattern; all violations of a request are told at once. S3 is not validated by its
model, neither here nor at AWS: only what it cannot do without is asked for. What a service's own rules say (a name is
taken, a model is missing) is its handlers' affair.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape

from clary.domain.faults import Fault
from clary.wire.patterns import fits

_CODES = {
    "cloudwatch": "ValidationError",
    "ecr": "InvalidParameterException",
    "iam": "ValidationError",
    "logs": "InvalidParameterException",
    "sagemaker-runtime": "ValidationError",
    "sts": "ValidationError",
}

# Beyond these a value is shortened, and further violations are only counted.
_MAX_QUOTED = 256
_MAX_TOLD = 20


def validate(operation: OperationModel, params: Mapping[str, Any]) -> None:
    """Raises the Fault that names everything wrong with `params`; returns when nothing is."""
    shape = operation.input_shape
    if shape is None:
        return
    service = operation.service_model.service_name
    if service == "s3":
        _validate_s3(shape, params)
        return
    found = violations(shape, params)
    if found:
        noun = "error" if len(found) == 1 else "errors"
        message = f"{len(found)} validation {noun} detected: {'; '.join(found[:_MAX_TOLD])}"
        raise Fault(_CODES.get(service, "ValidationException"), message)


def violations(shape: StructureShape, params: Mapping[str, Any]) -> list[str]:
    """Every constraint of the model that `params` breaks, in AWS's words."""
    return list(_structure(shape, params, ""))


def _validate_s3(shape: StructureShape, params: Mapping[str, Any]) -> None:
    payload = shape.serialization.get("payload")
    for name in shape.required_members:
        if name in params:
            continue
        if name == payload:
            raise Fault("MissingRequestBodyError", "Request Body is empty")
        raise Fault(
            "InvalidArgument", f"The request lacks {shape.members[name].serialization.get('name', name)}"
        )
    if (
        payload is not None
        and payload in params
        and not _is_complete(shape.members[payload], params[payload])
    ):
        raise Fault(
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
        )


def _is_complete(shape: Shape, value: Any) -> bool:
    """Whether every structure in a body has its required members."""
    if isinstance(shape, StructureShape):
        return all(name in value for name in shape.required_members) and all(
            _is_complete(shape.members[name], item) for name, item in value.items()
        )
    if isinstance(shape, ListShape):
        return all(_is_complete(shape.member, item) for item in value)
    return True


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if shape.serialization.get("streaming") or shape.serialization.get("eventstream"):
        # Nobody knows its length before it was read.
        return
    for constraint in _own_failures(shape, value):
        yield _violation(shape, value, path, constraint)
    if isinstance(shape, StructureShape):
        yield from _structure(shape, value, path)
    elif isinstance(shape, ListShape) and not _is_too_long(shape, value):
        yield from _list(shape, value, path)
    elif isinstance(shape, MapShape) and not _is_too_long(shape, value):
        yield from _map(shape, value, path)


def _structure(shape: StructureShape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    required = set(shape.required_members)
    for name, member in shape.members.items():
        where = f"{prefix}{name[:1].lower()}{name[1:]}"
        if value.get(name) is not None:
            yield from _violations(member, value[name], where)
        elif name in required:
            yield _null(where)


def _list(shape: ListShape, value: Sequence[Any], path: str) -> Iterator[str]:
    if _is_scalar(shape.member):
        yield from _elements(shape, shape.member, value, value, path, "Member")
        return
    for index, item in enumerate(value, 1):
        where = f"{path}.{index}.member"
        if item is None:
            yield _null(where)
        else:
            yield from _violations(shape.member, item, where)


def _map(shape: MapShape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from _elements(shape, shape.key, value, value.keys(), path, "Map keys")
    if _is_scalar(shape.value):
        yield from _elements(shape, shape.value, value, value.values(), path, "Map value")
        return
    for key, item in value.items():
        where = f"{path}.{_shortened(key)}.member"
        if item is None:
            yield _null(where)
        else:
            yield from _violations(shape.value, item, where)


def _elements(
    owner: Shape, element: Shape, whole: Any, values: Any, path: str, subject: str
) -> Iterator[str]:
    """AWS tells of a list or a map of scalars as a whole, with all that its elements must satisfy."""
    for item in values:
        if item is None or next(_own_failures(element, item), None) is not None:
            constraints = ", ".join(_constraints(element)) or "Member must not be null"
            yield _violation(owner, whole, path, f"{subject} must satisfy constraint: [{constraints}]")
            return


def _is_scalar(shape: Shape) -> bool:
    return not isinstance(shape, StructureShape | ListShape | MapShape)


def _own_failures(shape: Shape, value: Any) -> Iterator[str]:
    """Which constraints of the shape itself, not of what it holds, `value` fails."""
    limits = shape.metadata
    size = len(value) if _has_length(shape) else value
    if "max" in limits and _is_measurable(shape) and size > float(limits["max"]):
        yield _maximum(shape)
    if "min" in limits and _is_measurable(shape) and size < float(limits["min"]):
        yield _minimum(shape)
    if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield _enumeration(shape)
    if "pattern" in limits and not _is_too_long(shape, value) and not fits(limits["pattern"], value):
        yield _pattern(shape)


def _is_too_long(shape: Shape, value: Any) -> bool:
    """What is too long is refused for that alone: its items are not looked at, its pattern is not tried."""
    return _has_length(shape) and len(value) > shape.metadata.get("max", len(value))


def _constraints(shape: Shape) -> Iterator[str]:
    """All that the shape asks for, in AWS's order."""
    if "max" in shape.metadata:
        yield _maximum(shape)
    if "min" in shape.metadata:
        yield _minimum(shape)
    if isinstance(shape, StringShape) and shape.enum:
        yield _enumeration(shape)
    if "pattern" in shape.metadata:
        yield _pattern(shape)


def _has_length(shape: Shape) -> bool:
    return shape.type_name in ("string", "blob", "list", "map")


def _is_measurable(shape: Shape) -> bool:
    return _has_length(shape) or shape.type_name in ("integer", "long", "float", "double")


def _maximum(shape: Shape) -> str:
    return f"Member must have {_measure(shape)} less than or equal to {shape.metadata['max']}"


def _minimum(shape: Shape) -> str:
    return f"Member must have {_measure(shape)} greater than or equal to {shape.metadata['min']}"


def _measure(shape: Shape) -> str:
    return "length" if _has_length(shape) else "value"


def _enumeration(shape: StringShape) -> str:
    return f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"


def _pattern(shape: Shape) -> str:
    return f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}"


def _null(path: str) -> str:
    return f"Value null at '{path}' failed to satisfy constraint: Member must not be null"


def _violation(shape: Shape, value: Any, path: str, constraint: str) -> str:
    quoted = "" if _is_sensitive(shape) else f" '{_shortened(_told(value))}'"
    return f"Value{quoted} at '{path}' failed to satisfy constraint: {constraint}"


def _is_sensitive(shape: Shape) -> bool:
    if isinstance(shape, ListShape):
        return _is_sensitive(shape.member)
    if isinstance(shape, MapShape):
        return _is_sensitive(shape.key) or _is_sensitive(shape.value)
    return bool(shape.metadata.get("sensitive"))


def _told(value: Any) -> str:
    """As Java prints it: `[a, b]`, `{key=value}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_told(item)}" for key, item in _few(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_told(item) for item in _few(value)) + "]"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return str(value)


def _few(items: Any) -> Iterator[Any]:
    """No more than a shortened message can show."""
    for count, item in enumerate(items):
        if count == _MAX_QUOTED:
            return
        yield item


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}..."
