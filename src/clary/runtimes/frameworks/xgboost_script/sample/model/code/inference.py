"""A script as people write it: only what the defaults do not do."""

from pathlib import Path

import xgboost


def model_fn(model_dir: str) -> xgboost.Booster:
    return xgboost.Booster(model_file=Path(model_dir) / "model.ubj")
