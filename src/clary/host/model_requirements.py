"""What an MLflow model wants installed: its own files name the packages, in the versions it was made with.

`requirements.txt` says it; without one the `dependencies` of python_env.yaml, or the pip section of conda.yaml. MLflow
writes them, people edit them, and anybody may have packed them: a line goes through the same sieve as a script's
requirements (`user_code`). The two YAML files are read as the plain lists that MLflow writes; nothing else is in them.

The base environment has a newer mlflow-skinny, which is the same files as mlflow with fewer dependencies. Where the
model pins mlflow, both are pinned, so that no file of two versions lies beside another.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from clary.host import user_code
from clary.host.failures import Refused

REQUIREMENTS, PYTHON_ENV, CONDA = "requirements.txt", "python_env.yaml", "conda.yaml"
BESIDE = ("pandas", "numpy")
"""mlflow-skinny loads Python functions with them and does not ask for them."""

_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?P<version>[^;]*)")
_ITEM = re.compile(r"(?P<indent> *)- +(?P<text>.+)$")
_NOT_OF_A_MODEL = frozenset({"pip", "wheel", "python"})


def read(model: Path) -> tuple[str, str]:
    """What to install on top, as lines that are safe to hand to uv, empty for nothing; and what may be the matter if it
    cannot be installed. Raises `Refused`.
    """
    lines = list(_lines(model))
    if not lines:
        return "", ""
    lines += _build_dependencies(model)
    return "".join(f"{line}\n" for line in [*lines, *_added(lines)]), _hint(model)


def _lines(model: Path) -> Iterator[str]:
    if (model / REQUIREMENTS).is_file():
        yield from user_code.checked_lines(model, REQUIREMENTS, [f"-r {REQUIREMENTS}"])
    elif (model / PYTHON_ENV).is_file():
        yield from user_code.checked_lines(model, PYTHON_ENV, _list(model, PYTHON_ENV, "dependencies"))
    elif (model / CONDA).is_file():
        yield from user_code.checked_lines(model, CONDA, _pip_of_conda(model))


def _build_dependencies(model: Path) -> list[str]:
    """Old releases import setuptools, which new Pythons come without."""
    if not (model / PYTHON_ENV).is_file():
        return []
    found = user_code.checked_lines(model, PYTHON_ENV, _list(model, PYTHON_ENV, "build_dependencies"))
    return [line for line in found if _name(line) not in _NOT_OF_A_MODEL]


def _added(lines: list[str]) -> list[str]:
    named = {_name(line): line for line in lines if not line.startswith("-")}
    added = [name for name in BESIDE if name not in named]
    if "mlflow-skinny" not in named:
        pinned = _NAME.match(named["mlflow"]) if "mlflow" in named else None
        version = pinned["version"].strip() if pinned else ""
        added.append(f"mlflow-skinny{'' if version.startswith('@') else version}")
    return added


def _name(line: str) -> str:
    found = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", found["name"]).lower() if found else ""


def _hint(model: Path) -> str:
    made_with = _python_of(model)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not made_with or made_with == here:
        return ""
    return f"The model was logged with Python {made_with}, this is {here}: log it again, or loosen its pins"


def _python_of(model: Path) -> str:
    if not (model / PYTHON_ENV).is_file():
        return ""
    found = re.search(r"^python:\s*['\"]?(\d+\.\d+)", user_code.text_of(model, PYTHON_ENV), re.MULTILINE)
    return found[1] if found else ""


def _list(model: Path, name: str, section: str) -> list[str]:
    """The items of a list at the top of a YAML file."""
    items: list[str] = []
    inside = False
    for line in user_code.text_of(model, name).splitlines():
        if re.match(r"[\w-]+:", line):
            inside = line.partition(":")[0] == section
        elif inside and (found := _ITEM.match(line)):
            items.append(_unquoted(found["text"]))
    return items


def _pip_of_conda(model: Path) -> list[str]:
    """Raises `Refused` for packages that only conda has."""
    items: list[str] = []
    others: list[str] = []
    section, pip = "", -1  # how far the line of `pip:` is indented, inside of its list
    for line in user_code.text_of(model, CONDA).splitlines():
        if re.match(r"[\w-]+:", line):
            section, pip = line.partition(":")[0], -1
        elif section != "dependencies" or (found := _ITEM.match(line)) is None:
            continue
        elif found["text"].strip() == "pip:":
            pip = len(found["indent"])
        elif 0 <= pip < len(found["indent"]):
            items.append(_unquoted(found["text"]))
        else:
            pip = -1
            others.append(_unquoted(found["text"]))
    names = [name for name in map(_name, others) if name not in _NOT_OF_A_MODEL]
    if names:
        raise Refused(
            "EnvironmentFailed",
            f"conda.yaml cannot be installed: {', '.join(names)} would need conda, which is not used here. Give what "
            "the model needs as a requirements.txt in its directory (log the model with pip_requirements)",
        )
    return items


def _unquoted(text: str) -> str:
    return text.strip().strip("'\"")
