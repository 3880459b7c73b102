"""The documentation says everything there is, and points at nothing that is not there.

The reference pages are generated; `make check` compares them with the code. Here it is the other way round: whatever
commands, settings and operations the code has must appear in the pages as they are kept.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.cli import COMMANDS
from clary.main import operation_names
from clary.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PACKAGE = ROOT / "src" / "clary"
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_reference(name: str) -> None:
    assert f"## clary {name}\n" in (REFERENCE / "commands.md").read_text()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_every_setting_is_in_the_reference_and_says_what_it_is(name: str) -> None:
    row = re.search(rf"^\| `{name}` \|[^|]*\|(.*)\|$", (REFERENCE / "settings.md").read_text(), re.MULTILINE)
    assert row is not None, f"{name} needs a comment on its line in settings.py, then `make docs`"
    assert row[1].strip()


def test_every_operation_is_in_the_reference() -> None:
    table = (REFERENCE / "coverage.md").read_text().split("\n## ")[0]
    rows = {row.split("|")[1].strip(): row for row in table.splitlines() if row.startswith("|")}
    missing = [
        f"{service}.{operation}"
        for service, operation in operation_names()
        if service != "clary" and f"`{operation}`" not in rows.get(service, "")
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = [target for target in _relative_links(page) if not _leads_somewhere(page, target)]
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in _relative_links(index)}
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page != index and page.parent.name != "adr"]
    assert [str(page.relative_to(ROOT)) for page in pages if page not in linked] == []


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(page.name[:4]) for page in (ROOT / "docs" / "adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_module_opens_with_its_reason() -> None:
    silent = [str(path.relative_to(ROOT)) for path in _written_modules() if not _docstring(path)]
    assert silent == []


def _relative_links(page: Path) -> list[str]:
    text = FENCED.sub("", page.read_text())
    return [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def _leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    found = page.parent / path if path else page
    return found.exists() and (not anchor or anchor in _anchors(found))


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them: headings in lower case with hyphens, and anchors that are written out."""
    text = FENCED.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([^"]+)">', text))


def _written_modules() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        is_generated = path.parent == PACKAGE / "wire" / "shapes"
        is_empty = path.name == "__init__.py" and not path.read_text().strip()
        if not (is_generated or is_empty):
            yield path


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""
