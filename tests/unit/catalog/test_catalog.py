"""Manifests: images find their framework, and a manifest with a mistake is refused with its path."""

from pathlib import Path

import pytest

from clary.catalog import Catalog, CatalogError
from clary.links.images import OwnImage, write

GOOD = """
name = "toy"
version = "1"
module = "toy"
repositories = ["toy", "own/toy"]
roles = ["serve"]
environment = "host"
import_time_environment = ["OMP_*", "LD_PRELOAD"]
"""


def catalog(tmp_path: Path, *manifests: str) -> Catalog:
    for number, text in enumerate(manifests):
        (tmp_path / f"framework-{number}").mkdir()
        (tmp_path / f"framework-{number}/manifest.toml").write_text(text)
    return Catalog.load(tmp_path)


def test_the_frameworks_that_come_along_can_be_read() -> None:
    assert Catalog.load().named("xgboost") is not None


@pytest.mark.parametrize(
    "uri",
    [
        "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1",
        "811284229777.dkr.ecr.eu-west-1.amazonaws.com/xgboost:latest",
        "sagemaker-xgboost",
    ],
)
def test_H01_an_image_finds_its_framework_by_repository_alone(uri: str) -> None:
    manifest = Catalog.load().resolve(uri)
    assert manifest is not None
    assert manifest.name == "xgboost"


@pytest.mark.parametrize(
    "uri", ["", "nobody/xgboost:1", "123456789012.dkr.ecr.us-east-1.amazonaws.com/other:1"]
)
def test_an_image_of_nobody_resolves_to_nothing(uri: str) -> None:
    assert Catalog.load().resolve(uri) is None


def test_what_resolves_can_be_listed(tmp_path: Path) -> None:
    assert catalog(tmp_path, GOOD).repositories == ("own/toy", "toy")


def test_variables_that_count_at_import_are_known_by_pattern(tmp_path: Path) -> None:
    manifest = catalog(tmp_path, GOOD).named("toy")
    assert manifest is not None
    assert manifest.is_import_time("OMP_NUM_THREADS")
    assert manifest.is_import_time("LD_PRELOAD")
    assert not manifest.is_import_time("LD_LIBRARY_PATH")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "cannot be read"),
        ('name = "toy"', "lacks module, repositories, roles, version"),
        (GOOD + "colour = 1", "colour"),
        (GOOD.replace('"1"', "1"), "version"),
        (GOOD.replace('["serve"]', '["dance"]'), "dance"),
        (GOOD.replace('["serve"]', "[1]"), "roles"),
        (GOOD.replace('"host"', '"moon"'), "moon"),
        (GOOD.replace('environment = "host"', 'lock = "missing.lock"'), "missing.lock"),
        (GOOD + 'entry = "main"', "module:function"),
        (GOOD + "older = 1", "older"),
        (GOOD + '[older]\nversion = "0"', "lock"),
        (GOOD + '[older]\nversion = "0"\nlock = "missing.lock"', "missing.lock"),
        (GOOD + '[older]\nversion = "0"\nlock = "manifest.toml"\nsigns = ["("]', "[older]"),
        (GOOD + '[older]\nversion = "0"\nlock = "manifest.toml"\ncolour = 1', "colour"),
        (GOOD + "[[instead]]\nof = ['toy']", "names no file"),
        (GOOD + "[[instead]]\nfile = 'a'\ncolour = 1", "colour"),
        (GOOD + "instead = [1]", "names no file"),
    ],
)
def test_a_manifest_with_a_mistake_is_refused_by_path(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CatalogError) as refused:
        catalog(tmp_path, text)
    assert words in str(refused.value)
    assert "manifest.toml" in str(refused.value)


def test_H06_an_older_environment_differs_in_version_and_lock_alone(tmp_path: Path) -> None:
    older = "[older]\nversion = '0'\nlock = 'manifest.toml'\nsigns = ['\\Aold']"
    manifest = catalog(tmp_path, GOOD + older).named("toy")
    assert manifest is not None
    assert manifest.older is not None
    assert manifest.older.is_needed_for(b"old and so on")
    assert not manifest.older.is_needed_for(b"not old")
    chosen = manifest.in_older_environment()
    assert (chosen.name, chosen.module, chosen.version) == ("toy", "toy", "0")
    assert chosen.lock_text() == GOOD + older
    assert chosen.in_older_environment() == chosen


def test_two_frameworks_cannot_share_a_repository(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="own/toy"):
        catalog(tmp_path, GOOD, GOOD.replace('name = "toy"', 'name = "other"').replace('"toy",', ""))


def framework(name: str, more: str = "") -> str:
    return GOOD.replace('"toy"', f'"{name}"').replace("own/toy", f"own/{name}") + more


def test_H07_a_framework_serves_what_it_claims_in_the_images_of_others(tmp_path: Path) -> None:
    claims = '[[instead]]\nfile = "*.graph"\nof = ["toy"]\nunless = ["*.toy"]\n'
    found = catalog(
        tmp_path,
        framework("toy"),
        framework("graphs", claims),
        framework("any", '[[instead]]\nfile = "SAVED"'),
    )
    toy, graphs = found.named("toy"), found.named("graphs")
    assert toy is not None
    assert graphs is not None

    def instead(files: list[str], of: object = toy) -> str | None:
        other = found.instead_of(graphs if of is graphs else toy, files)
        return other.name if other else None

    assert instead(["a.graph", "readme"]) == "graphs"
    assert instead(["a.graph", "model.toy"]) is None
    assert instead(["readme"]) is None
    assert instead(["a.graph", "SAVED"]) == "any", "a plain name says more than a pattern"
    assert instead(["a.graph"], of=graphs) is None
    assert instead(["SAVED"], of=graphs) == "any"


def test_H04_an_image_of_one_s_own_is_there_as_soon_as_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "frameworks").mkdir()
    catalog(tmp_path / "frameworks", framework("toy"))
    own = tmp_path / "images"
    found = Catalog.load(tmp_path / "frameworks", own=own)
    assert found.resolve("churn:1") is None
    write(own, OwnImage("churn", "toy", ("a",), ("a==1", "b==2")))
    manifest = found.resolve("123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:7")
    assert manifest is not None
    assert (manifest.name, manifest.on_top) == ("toy", "a==1\nb==2\n")
    assert "churn" in found.repositories
    write(own, OwnImage("toy", "toy", (), ("never==1",)))
    toy = found.resolve("toy")
    assert toy is not None
    assert toy.on_top == "", "a framework's own name is its own"


def test_an_image_of_one_s_own_that_cannot_be_used_is_none(tmp_path: Path) -> None:
    (tmp_path / "frameworks").mkdir()
    catalog(tmp_path / "frameworks", framework("toy"))
    found = Catalog.load(tmp_path / "frameworks", own=tmp_path)
    (tmp_path / "broken.toml").write_text("on = ")
    (tmp_path / "partly.toml").write_text('on = "toy"')
    write(tmp_path, OwnImage("lost", "gone", (), ()))
    assert [found.resolve(name) for name in ("broken", "partly", "lost", "..", "a/b")] == [None] * 5
