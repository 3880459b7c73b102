"""Run by a framework's own Python: loads a model and answers requests, one by one and together, as the server does.

python in_framework.py MODULE MODEL_DIR REQUESTS     REQUESTS: JSON, [[body, content type, accept], …]

Prints what happened as JSON: the answers, or why the model does not load.
"""

import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

from clary.runtimes.contract import InvocationHead, InvocationRequest, LoadError


def main(module: str, model_dir: str, requests: str) -> dict[str, Any]:
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(message)s")
    try:
        model = importlib.import_module(module).load(Path(model_dir), {}, 1)
    except LoadError as error:
        return {"refused": str(error)}
    batch = [
        InvocationRequest(InvocationHead(kind, accept, "", ()), body.encode("latin-1"))
        for body, kind, accept in json.loads(requests)
    ]
    alone = [model.predict([request])[0] for request in batch]
    return {
        "alone": [[each.status, each.content_type, each.body.decode("latin-1")] for each in alone],
        "together": [
            [each.status, each.content_type, each.body.decode("latin-1")] for each in model.predict(batch)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
