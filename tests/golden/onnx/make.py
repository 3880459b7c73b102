"""Made the graphs beside it, and what their makers say that they answer: `make.py`, by a Python with onnx, skl2onnx and
scikit-learn (1.23, 1.20 and 1.9). Kept, so that tests need none of them.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
onnx: Any = importlib.import_module("onnx")
helper: Any = importlib.import_module("onnx.helper")
arrays: Any = importlib.import_module("onnx.numpy_helper")
FLOAT, INT64, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE
random = np.random.RandomState(1)
expected: dict[str, Any] = {}


def save(name: str, nodes: Any, inputs: Any, outputs: Any, weights: Any, asked: dict[str, Any]) -> None:
    ends = [[helper.make_tensor_value_info(*each) for each in several] for several in (inputs, outputs)]
    kept = [arrays.from_array(np.asarray(value), key) for key, value in weights.items()]
    graph = helper.make_graph([helper.make_node(*node, **more) for *node, more in nodes], name, *ends, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="")
    model.ir_version = 8
    onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    given = importlib.import_module("onnx.reference").ReferenceEvaluator(model).run(None, asked)
    note(name, asked, {each[0]: np.asarray(value).tolist() for each, value in zip(outputs, given)})


def note(name: str, asked: dict[str, Any], outputs: dict[str, Any]) -> None:
    expected[name] = {"inputs": {key: value.tolist() for key, value in asked.items()}, "outputs": outputs}


def floats(*shape: int) -> Any:
    return random.rand(*shape).astype("float32").round(3)


def main() -> None:
    layers: Any = [
        ("MatMul", ["x", "W"], ["a"], {}),
        ("Add", ["a", "B"], ["b"], {}),
        ("Relu", ["b"], ["y"], {}),
    ]
    rows = [("x", FLOAT, [None, 7])], [("y", FLOAT, [None, 3])]
    save("linear", layers, *rows, {"W": floats(7, 3), "B": -floats(3)}, {"x": floats(4, 7)})
    looked_up = [
        ("Gather", ["E", "kind"], ["e"], {}),
        ("Add", ["e", "x"], ["sum"], {}),
        ("ReduceMax", ["sum"], ["top"], {"axes": [1], "keepdims": 0}),
    ]
    ends = [("kind", INT64, ["n"]), ("x", FLOAT, ["n", 3])], [("sum", FLOAT, ["n", 3]), ("top", FLOAT, ["n"])]
    save(
        "two_inputs", looked_up, *ends, {"E": floats(5, 3)}, {"kind": np.array([0, 3, 4]), "x": floats(3, 3)}
    )
    centred = [("ReduceMean", ["x"], ["m"], {"axes": [0], "keepdims": 1}), ("Sub", ["x", "m"], ["y"], {})]
    pair = [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])]
    save("batch_mean", centred, *pair, {}, {"x": np.array([[1, 2], [3, 8]], "float32")})
    summed = [("ReduceSum", ["x", "axes"], ["y"], {"keepdims": 0})]
    square = [("x", DOUBLE, [2, 2])], [("y", DOUBLE, [2])]
    save("fixed", summed, *square, {"axes": [1]}, {"x": np.array([[1, 2], [3, 8.5]])})
    classifier()
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def classifier() -> None:
    """As skl2onnx writes one: a label, and a map of probabilities for each row."""
    linear: Any = importlib.import_module("sklearn.linear_model")
    rows = floats(60, 4)
    labels = np.array(["low", "mid", "top"])[np.digitize(rows[:, 0] + rows[:, 1], [0.7, 1.2])]
    model = linear.LogisticRegression().fit(rows, labels)
    written = importlib.import_module("skl2onnx").to_onnx(model, rows[:1], target_opset=17)
    (HERE / "classifier.onnx").write_bytes(written.SerializeToString())
    chances = [dict(zip(model.classes_.tolist(), row)) for row in model.predict_proba(rows[:3]).tolist()]
    outputs = {"output_label": model.predict(rows[:3]).tolist(), "output_probability": chances}
    note("classifier", {"X": rows[:3]}, outputs)


if __name__ == "__main__":
    main()
