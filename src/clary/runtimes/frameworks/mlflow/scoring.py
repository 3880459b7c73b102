"""MLflow's scoring protocol, as its own server speaks it from version 2 on.

JSON has one of dataframe_split, dataframe_records, instances and inputs, and `params` beside it, or it is a call of a
language model (messages, prompt, input) whose answer is not wrapped. CSV has a header. The answer is
`{"predictions": …}`. What a request gets wrong, the signature included, and what the model raises is status 400 in
MLflow's words; another content type is 415.

MLflow's own functions parse the data, so a model sees what it sees there, whichever version its environment has.
"""

import importlib
import inspect
import io
import json
import logging
import traceback
from typing import Any, NamedTuple

from clary.runtimes.contract import InvocationRequest, InvocationResponse, LoadError
from clary.runtimes.encoding import CSV, JSON

PARQUET = "application/vnd.apache.parquet"
_FORMS = frozenset({"dataframe_split", "dataframe_records", "instances", "inputs"})
_OF_LANGUAGE_MODELS = frozenset({"messages", "prompt", "input"})
_NEEDED = ("parse_tf_serving_input", "dataframe_from_parsed_json", "NumpyEncoder", "_get_jsonable_obj")

log = logging.getLogger(__name__)


class _Parsed(NamedTuple):
    data: Any
    params: dict[str, Any] | None
    is_wrapped: bool


class _Unsupported(Exception):
    """Status 415."""


class Scorer:
    """A loaded Python function. See `clary.runtimes.handler.Answers`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._schema = model.metadata.get_input_schema()
        self._tools = importlib.import_module("mlflow.utils.proto_json_utils")
        if missing := [name for name in _NEEDED if not hasattr(self._tools, name)]:
            raise LoadError(f"this version of MLflow lacks {', '.join(missing)}: raise it to 2 or later")
        exceptions = importlib.import_module("mlflow.exceptions")
        self._mlflow_error: Any = exceptions.MlflowException
        self._bad_request = importlib.import_module("mlflow.protos.databricks_pb2").BAD_REQUEST
        self._takes_params = "params" in inspect.signature(model.predict).parameters

    def answer(self, request: InvocationRequest) -> InvocationResponse:
        try:
            parsed = self._parse(request)
            return InvocationResponse(200, JSON, self._encode(self._predict(parsed), parsed.is_wrapped))
        except _Unsupported as error:
            return InvocationResponse(415, "text/plain; charset=utf-8", str(error).encode())
        except self._mlflow_error as error:
            return self._refusal(error)
        except Exception as error:  # an answer that JSON cannot hold
            log.exception("invocation failed")
            return InvocationResponse(
                500, "text/plain; charset=utf-8", f"{type(error).__name__}: {error}".encode()
            )

    def _parse(self, request: InvocationRequest) -> _Parsed:
        kind = _kind(request.head.content_type or JSON)
        body = bytes(request.body)
        if kind == JSON:
            return self._parse_json(body)
        pandas = importlib.import_module("pandas")
        try:
            if kind == PARQUET:
                return _Parsed(pandas.read_parquet(io.BytesIO(body)), None, True)
            types = (
                dict(zip(self._schema.input_names(), self._schema.pandas_types(), strict=False))
                if self._schema
                else None
            )
            return _Parsed(pandas.read_csv(io.StringIO(body.decode()), dtype=types), None, True)
        except Exception as error:
            name = "Parquet" if kind == PARQUET else "CSV-formatted"
            raise self._bad(
                "Failed to parse input as a Pandas DataFrame. Ensure that the input is a valid "
                f"{name} Pandas DataFrame. Error: '{error}'"
            ) from error

    def _parse_json(self, body: bytes) -> _Parsed:
        try:
            given = json.loads(body)
        except ValueError as error:
            raise self._bad(
                f"Invalid input. Ensure that input is a valid JSON formatted string. Error: '{error!r}'"
            ) from error
        if not isinstance(given, dict):
            raise self._bad(
                f"Invalid input. {_wanted()}. Received {'a list' if isinstance(given, list) else type(given)}."
            )
        if _OF_LANGUAGE_MODELS & given.keys():
            known = self._known_params()
            params = {name: value for name, value in given.items() if name in known}
            return _Parsed({name: given[name] for name in given if name not in known}, params, False)
        data = {name: value for name, value in given.items() if name in _FORMS}
        return _Parsed(self._data(data, given), given.get("params"), True)

    def _data(self, data: dict[str, Any], given: dict[str, Any]) -> Any:
        metadata = self._model.metadata
        if getattr(metadata, "_is_signature_from_type_hint", bool)():
            if "inputs" not in data:
                raise self._bad(
                    "Request payload must be a dictionary with 'inputs' key when the model contains a valid type hint. "
                    f"Found keys in payload: {list(data)}."
                )
            return data["inputs"]
        if len(data) != 1:
            raise self._bad(
                f"Invalid input. {_wanted()}. Received dictionary with input fields: {list(given)}"
            )
        [(form, values)] = data.items()
        if form in ("instances", "inputs"):
            return self._tools.parse_tf_serving_input(data, schema=self._schema)
        orient = form.removeprefix("dataframe_")
        return self._tools.dataframe_from_parsed_json(values, pandas_orient=orient, schema=self._schema)

    def _known_params(self) -> set[str]:
        look = getattr(self._model.metadata, "get_params_schema", lambda: None)
        schema = look()
        return {param.name for param in schema.params} if schema else set()

    def _predict(self, parsed: _Parsed) -> Any:
        try:
            if self._takes_params:
                return self._model.predict(parsed.data, params=parsed.params)
            return self._model.predict(parsed.data)
        except self._mlflow_error as error:
            error.message = f"Failed to predict data '{parsed.data}'. \nError: {error.message}"
            raise
        except Exception as error:
            log.exception("invocation failed")
            raise self._bad(
                "Encountered an unexpected error while evaluating the model. Verify that the serialized input "
                "Dataframe is compatible with the model for inference.",
                stack_trace=traceback.format_exc(),
            ) from error

    def _encode(self, predicted: Any, is_wrapped: bool) -> bytes:
        plain = self._tools._get_jsonable_obj(predicted, pandas_orient="records")
        return json.dumps(
            {"predictions": plain} if is_wrapped else plain, cls=self._tools.NumpyEncoder
        ).encode()

    def _bad(self, words: str, **more: str) -> Exception:
        error: Exception = self._mlflow_error(words, error_code=self._bad_request, **more)
        return error

    def _refusal(self, error: Any) -> InvocationResponse:
        return InvocationResponse(error.get_http_status_code(), JSON, error.serialize_as_json().encode())


def _kind(content_type: str) -> str:
    """Raises `_Unsupported`."""
    kind, *rest = (part.strip() for part in content_type.split(";"))
    parameters = {
        name.strip().lower(): value.strip() for name, _, value in (part.partition("=") for part in rest)
    }
    if parameters.pop("charset", "utf-8").lower() != "utf-8":
        raise _Unsupported("The scoring server only supports UTF-8")
    if parameters:
        raise _Unsupported(f"Unrecognized content type parameters: {', '.join(sorted(parameters))}.")
    if kind not in (JSON, CSV, PARQUET):
        raise _Unsupported(
            f"This predictor only supports the following content types: Types: {[CSV, JSON, PARQUET]}. Got '{kind}'."
        )
    return kind


def _wanted() -> str:
    return f"The input must be a JSON dictionary with exactly one of the input fields {', '.join(sorted(_FORMS))}"
