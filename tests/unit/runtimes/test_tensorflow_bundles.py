"""Which folders of an archive are models, and the words for archives that have none; settings that cannot be used."""

from pathlib import Path

import pytest

from clary.runtimes.contract import LoadError
from clary.runtimes.frameworks.tensorflow.bundles import default_of, find_bundles
from clary.runtimes.frameworks.tensorflow.settings import read_settings, script_environment


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def refusal(folder: Path) -> str:
    with pytest.raises(LoadError) as caught:
        find_bundles(folder)
    return str(caught.value)


def test_H06_models_are_folders_with_numbered_versions(tmp_path: Path) -> None:
    place(
        tmp_path,
        "export/half/00000002/saved_model.pb",
        "export/half/10/saved_model.pb",
        "another/1/saved_model.pb",
        "another/1/assets/2/readme",
        "another/draft/saved_model.pb",
        "code/inference.py",
    )
    found = find_bundles(tmp_path)
    assert [(bundle.name, sorted(bundle.versions)) for bundle in found] == [
        ("another", [1]),
        ("half", [2, 10]),
    ]
    assert found[1].versions[2] == tmp_path / "export/half/00000002"
    assert default_of(found, {}) == "another"
    assert default_of(found, {"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "half"}) == "half"
    with pytest.raises(LoadError, match="the archive's models are another, half"):
        default_of(found, {"SAGEMAKER_TFS_DEFAULT_MODEL_NAME": "third"})


def test_a_version_in_the_root_belongs_to_a_model_called_model(tmp_path: Path) -> None:
    place(tmp_path, "1/saved_model.pb")
    assert [bundle.name for bundle in find_bundles(tmp_path)] == ["model"]


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    place(tmp_path, "a/same/1/saved_model.pb", "b/same/1/saved_model.pb")
    assert "two models of the archive are called same" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "has no <version>/saved_model.pb: write one with"),
        (("weights.bin",), "has no <version>/saved_model.pb, only weights.bin"),
        (("model.keras",), r"model.keras is a file of Keras.*model\.export\('1'\)"),
        (("model.h5",), "model.h5 is a file of Keras"),
        (("saved_model.pb",), "saved_model.pb is in no folder named by a version"),
        (("final/saved_model.pb",), "final/saved_model.pb is in no folder named by a version"),
    ],
)
def test_other_archives_are_refused_with_what_to_do(
    tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    place(tmp_path, *names)
    with pytest.raises(LoadError, match=words):
        find_bundles(tmp_path)


def test_threads_never_exceed_the_vcpus() -> None:
    assert read_settings({"SAGEMAKER_TFS_INTRA_OP_PARALLELISM": "64"}, 1).intra_op_threads == 1
    assert read_settings({}, 1).inter_op_threads == 1


def test_batching_is_off_unless_enabled() -> None:
    assert read_settings({"SAGEMAKER_TFS_MAX_BATCH_SIZE": "32"}, 1).max_batch_size == 0
    enabled = {"SAGEMAKER_TFS_ENABLE_BATCHING": "true"}
    assert read_settings(enabled, 1).max_batch_size == 8
    assert read_settings({**enabled, "SAGEMAKER_TFS_MAX_BATCH_SIZE": "32"}, 1).max_batch_size == 32
    for wrong in ({"SAGEMAKER_TFS_ENABLE_BATCHING": "yes"}, {"SAGEMAKER_TFS_MAX_BATCH_SIZE": "many"}):
        with pytest.raises(LoadError, match=next(iter(wrong))):
            read_settings(wrong, 1)


def test_the_containers_names_for_workers_are_known() -> None:
    given = {"SAGEMAKER_GUNICORN_WORKERS": "3", "SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS": "9"}
    found = script_environment(given)
    assert found["SAGEMAKER_MODEL_SERVER_WORKERS"] == "3"
    assert found["SAGEMAKER_MODEL_SERVER_TIMEOUT"] == "9"
    own = {"SAGEMAKER_GUNICORN_WORKERS": "3", "SAGEMAKER_MODEL_SERVER_WORKERS": "4"}
    assert script_environment(own)["SAGEMAKER_MODEL_SERVER_WORKERS"] == "4"
