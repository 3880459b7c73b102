"""The generated types are those of the installed models."""

import pytest

from clary.wire import generate
from clary.wire.models import ServiceModels


def test_the_generated_shapes_are_up_to_date() -> None:
    assert generate.main(["--check"]) == 0


def test_a_stale_file_fails_the_check(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "SHAPES", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "sagemaker.py is out of date" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_every_name_in_the_list_is_an_operation() -> None:
    models = ServiceModels(
        {(service, name) for service, names in generate.OPERATIONS.items() for name in names}
    )
    for service, names in generate.OPERATIONS.items():
        assert list(names) == sorted(names)
        assert all(models.service(service).has_operation(name) for name in names)


def test_a_member_named_like_a_keyword_is_generated() -> None:
    text = generate.render(
        ServiceModels({("logs", "CreateExportTask")}).service("logs"), ["CreateExportTask"]
    )
    assert 'CreateExportTaskRequest = TypedDict("CreateExportTaskRequest", {' in text
    compile(text, "logs.py", "exec")


def test_what_is_generated_is_what_the_services_answer() -> None:
    main = pytest.importorskip("clary.main", reason="the composition root is not there")
    # The admin API has no model, and the runtime's operations are the gateway's, which takes no types of this kind.
    without_types = ("clary", "sagemaker-runtime")
    listed = {(service, name) for service, names in generate.OPERATIONS.items() for name in names}
    modelled = {(service, name) for service, name in main.operation_names() if service not in without_types}
    assert modelled == listed
