"""`BaseHandler`: loads the archive's model, and answers in three steps that a handler may replace."""

import importlib
import logging
from pathlib import Path
from typing import Any

import torch

from ..utils.util import list_classes_from_module, load_label_mapping

log = logging.getLogger(__name__)


class BaseHandler:
    """`initialize` once, `handle` for each batch: `preprocess`, `inference`, `postprocess`."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.map_location = "cpu"
        self.initialized = False
        self.context: Any = None
        self.manifest: Any = None
        self.model_pt_path: str | None = None
        self.model_yaml_config: Any = {}
        self.explain = False
        self.target = 0

    def initialize(self, context: Any) -> None:
        """Of `modelFile` the one class with the weights of `serializedFile`, or that file as it is."""
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = context.model_yaml_config
        self.device = torch.device("cpu")
        directory = Path(context.system_properties["model_dir"])
        model = self.manifest["model"]
        if serialized := model.get("serializedFile"):
            self.model_pt_path = str(directory / serialized)
        if model_file := model.get("modelFile"):
            self.model = self._load_pickled_model(str(directory), model_file, self.model_pt_path)
        elif self.model_pt_path is None:
            raise RuntimeError(
                "the archive has neither a modelFile nor a serializedFile: there is nothing to load"
            )
        else:
            self.model = self._load_file(self.model_pt_path)
        if "pt2" in self.model_yaml_config:
            log.warning("torch.compile is not applied: pt2 of the archive's configFile has no effect")
        self.mapping = load_label_mapping(str(directory / "index_to_name.json"))
        self.initialized = True

    def preprocess(self, data: Any) -> Any:
        """One row a request, where bodies are lists of numbers."""
        rows = [row.get("data", row.get("body")) if isinstance(row, dict) else row for row in data]
        return torch.as_tensor(rows, device=self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    def postprocess(self, data: Any) -> Any:
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        self.context = context
        if context.get_request_header(0, "describe") == "True":
            return [self.describe_handle()]
        prepared = self.preprocess(data)
        if context.get_request_header(0, "explain") == "True":
            self.explain = True
            return self.explain_handle(prepared, data)
        return self.postprocess(self.inference(prepared))

    def explain_handle(self, data_preprocess: Any, raw_data: Any) -> Any:
        """`get_insights` is the handler's own."""
        row = raw_data[0] if isinstance(raw_data[0], dict) else {}
        insights = getattr(self, "get_insights", None)
        if insights is None:
            raise NotImplementedError("the handler has no get_insights, which explanations need")
        return insights(data_preprocess, row.get("data") or row.get("body"), row.get("target") or 0)

    def describe_handle(self) -> Any:
        return None

    def get_device(self) -> Any:
        return self.device

    def _load_file(self, path: str) -> Any:
        if path.endswith(".onnx"):
            return self._load_onnx(path)
        if path.endswith(".pt2"):
            return torch.export.load(path).module()
        if path.endswith(".so"):
            raise RuntimeError(f"{Path(path).name}: compiled models are not served; save it as .pt2")
        return self._load_torchscript_model(path)

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        model = torch.jit.load(model_pt_path, map_location=self.device)
        model.eval()
        return model

    def _load_onnx(self, path: str) -> Any:
        return importlib.import_module("onnxruntime").InferenceSession(
            path, providers=["CPUExecutionProvider"]
        )

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        if not (Path(model_dir) / model_file).is_file():
            raise RuntimeError(f"the archive has no {model_file}, which its manifest names as modelFile")
        module = importlib.import_module(model_file.removesuffix(".py").replace("/", "."))
        classes = list_classes_from_module(module)
        if len(classes) != 1:
            names = ", ".join(each.__name__ for each in classes) or "none"
            raise ValueError(f"{model_file} must define exactly one class, the model; it has {names}")
        model: Any = classes[0]()
        if model_pt_path:
            model.load_state_dict(torch.load(model_pt_path, map_location=self.device, weights_only=True))
        model.eval()
        return model
