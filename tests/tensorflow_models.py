"""Makes SavedModels, and writes down what TensorFlow itself predicts with them: run by its environment's Python.

tensorflow_models.py FOLDER     `export/…` and `est/3` are the models; `expected.json`, `batches.json` beside them
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROWS = [{"a": [1.5, 2.0], "n": 3}, {"a": [0.1, 0.2], "n": -4}]


def main(folder: Path) -> None:
    tf: Any = importlib.import_module("tensorflow")
    for version, constant in ((1, 2.0), (2, 3.0)):
        save_half(tf, folder / "export" / "half" / f"{version:04d}", constant)
    save_mixed(tf, folder / "export" / "mixed" / "7")
    save_estimator(tf, folder / "est" / "3")
    (folder / "expected.json").write_text(json.dumps(predictions(tf, folder)))
    (folder / "batches.json").write_text(json.dumps(batches(folder)))


def save_half(tf: Any, folder: Path, constant: float) -> None:
    module = tf.Module()
    module.constant = tf.Variable(constant)
    signature = [tf.TensorSpec([None], tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"y": x * 0.5 + module.constant}, input_signature=signature)
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def save_mixed(tf: Any, folder: Path) -> None:
    """Several inputs and outputs of several types; texts; numbers that are none."""
    module = tf.Module()

    def function(body: Any, **inputs: Any) -> Any:
        specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()]
        return tf.function(body, input_signature=specs)

    module.sums = function(
        lambda a, n: {"sum": tf.reduce_sum(a, 1) + tf.cast(n, tf.float32), "twice": n * 2},
        a=([None, 2], tf.float32),
        n=([None], tf.int64),
    )
    module.texts = function(lambda t: {"up": tf.strings.upper(t), "raw_bytes": t}, t=([None], tf.string))
    module.logs = function(lambda x: {"y": tf.math.log(x)}, x=([None], tf.float32))
    module.flags = function(lambda b: {"not": tf.logical_not(b)}, b=([None], tf.bool))
    names = {"texts": module.texts, "logs": module.logs, "flags": module.flags}
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.sums, **names})


def save_estimator(tf: Any, folder: Path) -> None:
    """Classification and regression of examples, as estimators export them."""
    saved = tf.compat.v1.saved_model
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        serialized = tf.compat.v1.placeholder(tf.string, [None], name="examples")
        shape = {"x": tf.io.FixedLenFeature([1], tf.float32), "w": tf.io.FixedLenFeature([1], tf.int64, [1])}
        features = tf.io.parse_example(serialized, shape)
        values = tf.reshape(features["x"] * 2.0 + tf.cast(features["w"], tf.float32), [-1])
        labels = tf.tile(tf.constant([["up", "down"]]), [tf.shape(values)[0], 1])
        info = saved.build_tensor_info
        inputs = {"inputs": info(serialized)}
        scores = {"classes": info(labels), "scores": info(tf.stack([values, -values], axis=1))}
        builder = saved.Builder(str(folder))
        signatures = {
            "serving_default": saved.build_signature_def(inputs, scores, "tensorflow/serving/classify"),
            "value": saved.build_signature_def(
                inputs, {"outputs": info(values)}, "tensorflow/serving/regress"
            ),
        }
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def predictions(tf: Any, folder: Path) -> dict[str, Any]:
    mixed = tf.saved_model.load(str(folder / "export" / "mixed" / "7"))
    halves = [tf.saved_model.load(str(folder / "export" / "half" / name)) for name in ("0001", "0002")]
    x = tf.constant([1.0, 2.0, 5.0])
    table = {name: np.array([row[name] for row in ROWS]) for name in ("a", "n")}
    sums = mixed.signatures["serving_default"](
        a=tf.constant(table["a"], tf.float32), n=tf.constant(table["n"])
    )
    return {
        "half": [each.signatures["serving_default"](x=x)["y"].numpy().tolist() for each in halves],
        "sums": {name: tensor.numpy().tolist() for name, tensor in sums.items()},
        "logs": mixed.signatures["logs"](x=tf.constant([2.0, 0.5]))["y"].numpy().tolist(),
    }


def batches(folder: Path) -> dict[str, Any]:
    """The same calls one by one and together, and how many runs that took."""
    package = "clary.runtimes.frameworks.tensorflow"
    servables: Any = importlib.import_module(f"{package}.servables")
    settings: Any = importlib.import_module(f"{package}.settings")
    bundles: Any = importlib.import_module(f"{package}.bundles")
    targets: Any = importlib.import_module(f"{package}.targets")
    target = targets.Target("half", None, "", "predict")
    bodies: list[dict[str, Any]] = [{"instances": [number + 0.5] * (number % 3 + 1)} for number in range(10)]
    bodies += [{"inputs": 4.0}, {"inputs": ["wrong"]}, {"signature_name": "none", "inputs": [1]}]
    calls = [servables.Call(target, json.dumps(body).encode()) for body in bodies]
    found: dict[str, Any] = {}
    for name, most in (("alone", 0), ("together", 8)):
        held = servables.Servables(bundles.find_bundles(folder), settings.Settings(1, 1, most))
        servable = held.find(target)
        runs: list[int] = []
        run = servable.run
        servable.run = lambda *given, run=run, runs=runs: (runs.append(1), run(*given))[1]
        found[name] = [[reply.status, json.loads(reply.body)] for reply in held.answer(calls)]
        found[f"{name}_runs"] = len(runs)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
