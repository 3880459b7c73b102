"""Run by the Python of the LightGBM environment: models of every kind, and what LightGBM's own package predicts.

python lightgbm_models.py FOLDER     a folder for each model below it, and `expected.json`
"""

import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

lightgbm: Any = importlib.import_module("lightgbm")
joblib: Any = importlib.import_module("joblib")
ROWS = 40
random = np.random.default_rng(1)
features = random.random((400, 5)).round(4)
features[random.random(features.shape) < 0.05] = np.nan
features[:, 4] = random.integers(0, 4, 400)
values = 3 + 10 * np.nan_to_num(features[:, 0]) - 4 * np.nan_to_num(features[:, 3]) + (features[:, 4] == 2)
LABELS = np.array(["high", "low", "mid"])[np.digitize(values, [4, 8])]
SMALL = {"n_estimators": 6, "num_leaves": 8, "verbose": -1, "n_jobs": 1}


def main(folder: Path) -> None:
    asked = features[:ROWS]
    regressor = _train("regression", values)
    forest = _train("regression", values, boosting="rf", bagging_fraction=0.7, bagging_freq=1)
    binary = _train("binary", values > 6)
    several = _train("multiclass", np.digitize(values, [4, 8]), num_class=3)
    classifier = lightgbm.LGBMClassifier(**SMALL).fit(features, LABELS)
    stopped = lightgbm.LGBMRegressor(**{**SMALL, "n_estimators": 50}).fit(
        features[:200], random.random(200), eval_X=features[200:], eval_y=random.random(200),
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    )  # fmt: skip
    expected = {}
    for name, file, model in (
        ("regression", "model.txt", regressor),
        ("forest", "anything.lgb", forest),
        ("binary", "lightgbm-model", binary),
        ("multiclass", "model.txt", several),
        ("pickled", "model.pkl", several),
        ("classifier", "model.joblib", classifier),
        ("stopped", "model.pkl", stopped),
    ):
        booster = getattr(model, "booster_", model)
        (folder / name).mkdir()
        _write(folder / name / file, model)
        expected[name] = booster.predict(asked, num_threads=1).tolist()
    labels = classifier.predict(asked).tolist()
    told = {
        "rows": asked.tolist(),
        "scores": expected,
        "labels": labels,
        "stopped_at": stopped.best_iteration_,
    }
    (folder / "expected.json").write_text(json.dumps(told))


def _train(objective: str, target: Any, **more: Any) -> Any:
    told = {"objective": objective, "num_leaves": 8, "verbose": -1, "num_threads": 1, **more}
    return lightgbm.train(told, lightgbm.Dataset(features, target, categorical_feature=[4]), 12)


def _write(path: Path, model: Any) -> None:
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(model))
    elif path.suffix == ".joblib":
        joblib.dump(model, path, compress=3)
    else:
        model.save_model(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
