"""Models for tests of multi-model instances: `model.json` says what one answers, takes, and does when it is loaded."""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from clary.runtimes.contract import InvocationRequest, InvocationResponse, Limits, LoadError


def load(model_dir: Path, environment: Mapping[str, str], vcpus: int) -> "Told":
    told = json.loads((model_dir / "model.json").read_text())
    print(f"loading {told['answer']}", flush=True)
    match told.get("do"):
        case "refuse":
            raise LoadError("this model is not meant to be loaded")
        case "raise":
            raise ValueError("a mistake of the handler's")
        case "hang":
            threading.Event().wait()
        case "abort":
            os.abort()
    return Told(told["answer"], b"x" * (told.get("mebibytes", 0) << 20))


class Told:
    limits = Limits(1 << 20)

    def __init__(self, answer: str, ballast: bytes) -> None:
        self._answer = answer
        self._ballast = ballast

    def predict(self, batch: Sequence[InvocationRequest]) -> list[InvocationResponse]:
        return [
            InvocationResponse(200, "text/plain", f"{self._answer} {body.decode()}".encode())
            for _, body in batch
        ]
