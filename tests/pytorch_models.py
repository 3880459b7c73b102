"""Run by the Python of the PyTorch environment: makes the models of tests, and says what they predict.

python pytorch_models.py FOLDER     writes the models there, and `expected.json`
"""

import json
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

HANDLER = """
import torch
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException

class Rows(BaseHandler):
    def preprocess(self, data):
        rows = [row["body"] for row in data]
        if any(len(row) != 7 for row in rows):
            raise PredictionException("seven numbers a row", 422)
        return torch.tensor(rows)

    def postprocess(self, data):
        self.context.metrics.add_counter("Rows", len(data))
        return [{"score": value, "together": len(data)} for [value] in data.tolist()]
"""
NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(7, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

    def forward(self, x):
        return self.layers(x)
"""


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(1)
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    model = scope["Net"]().eval()
    rows = torch.rand(6, 7)
    warnings.simplefilter("ignore")
    torch.jit.save(torch.jit.trace(model, rows), str(folder / "model.pt"))
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (rows,), dynamic_shapes=({0: batch},)), folder / "model.pt2")
    torch.save(model.state_dict(), folder / "weights.pth")
    (folder / "network.py").write_text(NETWORK)
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": "rows",
            "serializedFile": "weights.pth",
            "modelFile": "network.py",
            "handler": "rows.py",
            "configFile": "model-config.yaml",
            "modelVersion": "1.0",
        },
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(folder / "rows.mar", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("rows.py", HANDLER)
        archive.writestr("network.py", NETWORK)
        archive.writestr(
            "model-config.yaml", "batchSize: 8\nmaxBatchDelay: 20\nminWorkers: 1\nmaxWorkers: 1\n"
        )
        archive.write(folder / "weights.pth", "weights.pth")
    with torch.no_grad():
        return {"rows": rows.tolist(), "answers": model(rows).tolist(), "torch": torch.__version__}


if __name__ == "__main__":
    _folder = Path(sys.argv[1])
    (_folder / "expected.json").write_text(json.dumps(make(_folder)))
