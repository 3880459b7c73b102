"""Pickled boosters: read without XGBoost's Python package, refused in words where the library is too new."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import xgboost

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.xgboost import pickles

KEPT = Path(__file__).parents[2] / "golden" / "xgboost"


def predicted(model: bytes, rows: list[list[float]]) -> list[float]:
    booster = xgboost.Booster(model_file=bytearray(model))
    return [float(each) for each in booster.predict(xgboost.DMatrix(np.array(rows, dtype="float32")))]


@pytest.mark.filterwarnings("ignore::UserWarning")  # the tests' own package listens to the library
@pytest.mark.parametrize("kind", ["booster", "classifier"])
def test_H06_a_pickle_of_1_7_predicts_what_it_did(kind: str) -> None:
    told = json.loads((KEPT / "1.7" / "expected.json").read_text())
    model = pickles.booster_in("model", (KEPT / "1.7" / f"{kind}.pkl").read_bytes())
    assert predicted(model, told["rows"]) == told[kind]


@pytest.mark.parametrize("version", ["0.90", "1.0", "1.2", "1.3", "1.5"])
def test_H06_a_pickle_that_came_to_the_wrong_library_is_refused_by_name(version: str) -> None:
    with pytest.raises(LoadError) as refused:
        pickles.booster_in("model", (KEPT / version / "booster.pkl").read_bytes())
    assert f"XGBoost {xgboost.__version__} gets no Booster" in str(refused.value)
    assert "booster.save_model('model.ubj')" in str(refused.value)


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps(3),
        pickle.dumps(xgboost.XGBClassifier()),  # never trained
        pickle.dumps(xgboost.callback.EarlyStopping(rounds=1)),  # XGBoost's, and no model
        pickle.dumps(bytearray(b"{L and so on")),
        b"\x80\x04cxgboost.core\nBooster\n",
        b"\x80",
    ],
)
def test_what_holds_no_booster_is_refused_in_one_line(pickled: bytes) -> None:
    with pytest.raises(LoadError) as refused:
        pickles.booster_in("model", pickled)
    assert str(refused.value).startswith("model is a pickle from which XGBoost ")
    assert "\n" not in str(refused.value)
