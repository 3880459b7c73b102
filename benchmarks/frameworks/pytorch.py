"""TorchScript of a small MLP: 30 float32 inputs, two hidden layers of 64, JSON lists in and out."""

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

CONTENT_TYPE = "application/json"
FEATURES = 30


def make(folder: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 1),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(model.eval()), str(folder / "model.pt"))


def body(rows: int, number: int) -> bytes:
    numbers = random.Random(number)
    return json.dumps([[round(numbers.random(), 4) for _ in range(FEATURES)] for _ in range(rows)]).encode()


def predictor(folder: Path) -> Callable[[bytes], bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.load(str(folder / "model.pt")).eval()

    def predict(body: bytes) -> bytes:
        with torch.no_grad():
            answer = model(torch.tensor(json.loads(body), dtype=torch.float32))
        return json.dumps(answer.tolist()).encode()

    return predict
