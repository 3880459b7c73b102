"""Made the folders beside it: `python make.py FOLDER` in an environment with that version of XGBoost and scikit-learn.

The files are kept because those versions cannot be installed beside today's Python.
"""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import xgboost

out = Path(sys.argv[1])
out.mkdir(exist_ok=True)
features = np.array([[((r * 7 + c * 13) % 31) / 31 for c in range(4)] for r in range(200)], dtype="float32")
values = features[:, 0] * 3 + features[:, 1] * features[:, 2]
rows = xgboost.DMatrix(features[:6])
parameters = {"objective": "reg:squarederror", "max_depth": 3, "nthread": 1}
booster = xgboost.train(parameters, xgboost.DMatrix(features, label=values), num_boost_round=5)
classifier = xgboost.XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1, learning_rate=0.3)
classifier.fit(features, (values > 1).astype(int))
(out / "booster.pkl").write_bytes(pickle.dumps(booster, 3))
(out / "classifier.pkl").write_bytes(pickle.dumps(classifier, 3))
booster.save_model(str(out / "booster.bin"))
told = {
    "version": xgboost.__version__,
    "rows": features[:6].tolist(),
    "booster": [float(each) for each in booster.predict(rows)],
    "classifier": [float(each) for each in classifier.get_booster().predict(rows)],
}
(out / "expected.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
