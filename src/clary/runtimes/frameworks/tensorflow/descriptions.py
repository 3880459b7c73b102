"""What Serving's REST API tells of a model: the state of its versions, and its signatures."""

from collections.abc import Mapping, Sequence

from clary.runtimes.frameworks.tensorflow.dtypes import TYPE_NAMES
from clary.runtimes.frameworks.tensorflow.protobufs import SignatureDef, TensorInfo
from clary.runtimes.frameworks.tensorflow.tensors import dump


def status(versions: Sequence[int]) -> bytes:
    available = [
        {"version": str(each), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for each in versions
    ]
    return dump({"model_version_status": available})


def metadata(name: str, version: int, signatures: Mapping[str, SignatureDef]) -> bytes:
    described = {
        key: {
            "inputs": {alias: _tensor(info) for alias, info in signature.inputs.items()},
            "outputs": {alias: _tensor(info) for alias, info in signature.outputs.items()},
            "method_name": signature.method,
            "defaults": {},
        }
        for key, signature in signatures.items()
    }
    model = {"name": name, "signature_name": "", "version": str(version)}
    return dump({"model_spec": model, "metadata": {"signature_def": {"signature_def": described}}})


def _tensor(info: TensorInfo) -> dict[str, object]:
    shape = [{"size": str(size), "name": ""} for size in info.shape or ()]
    return {
        "dtype": f"DT_{TYPE_NAMES.get(info.dtype, 'invalid').upper()}",
        "tensor_shape": {"dim": shape, "unknown_rank": info.shape is None},
        "name": info.name,
    }
