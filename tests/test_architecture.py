"""What the documents say of the tree holds: their paths, the modules that they list, their layers."""

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mutations import MUTATIONS

import toymodel as tm

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = [ARCHITECTURE, ROOT / "CONTRIBUTING.md", ROOT / "derivations" / "README.md"]
NOT_KEPT = ("figures/out/", ".venv", "build/")


def said(document: Path) -> set[str]:
    """The paths that a document names in code or as links: what has a slash, or an ending of ours."""
    text = document.read_text()
    names = re.findall(r"`([^`\s]+)`", text)
    links = [name for name in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in name]
    code = {name for name in names if re.fullmatch(r"[\w.]+/[\w./]*|[\w/]+\.(py|toml|md|lock|pyi)", name)}
    return code | {str((document.parent / link).resolve().relative_to(ROOT)) for link in links}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_is_there(document):
    """NAME stands for a new file: its folder is there."""
    for name in said(document):
        path = ROOT / name
        if name.startswith(NOT_KEPT) or path.exists():
            continue
        assert "NAME" in path.name and path.parent.is_dir(), f"{document.name} names {name}, which is not there"


def test_each_module_has_one_line():
    listed = re.findall(r"^\| `(toymodel/[\w/]+\.py)` \| \S", ARCHITECTURE.read_text(), re.MULTILINE)
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "toymodel").rglob("*.py")]
    assert sorted(listed) == sorted(name for name in modules if not name.endswith("__init__.py"))


def test_the_table_says_what_to_touch_for_each_kind():
    rows = re.findall(r"^\| (?:an?|\.\.\.|something) ([\w ,]+?) \|", ARCHITECTURE.read_text(), re.MULTILINE)
    kinds = {re.split(",| of ", row)[0] for row in rows}
    assert {"loss", "intervention", "measure", "integrator", "network", "figure", "derivation"} <= kinds


def test_the_layers_are_those_that_imports_are_held_to():
    """`lint-imports` holds the imports to the contracts; the page shows the same."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    text = ARCHITECTURE.read_text()
    block = re.search(r"```text\n(toymodel\.cli.*?)```", text, re.DOTALL)
    assert block and block[1].split("\n")[:-1] == layers
    for contract in contracts:
        assert contract["type"] == "layers" or f"- {contract['name']}\n" in text


def test_forges_run_what_the_makefile_says():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "run: .ci/run" in (ROOT / ".github" / "workflows" / "test.yml").read_text()
    targets = set(re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in (ROOT / "CONTRIBUTING.md", ROOT / "README.md", ARCHITECTURE):
        assert set(re.findall(r"(?:`|    )make ([a-z-]+)", document.read_text())) <= targets, document.name


def test_what_texts_call_by_name_is_there():
    """`tm.NAME`, `tm.theory.NAME` and `toymodel.NAME` in pages, scripts and docstrings can be reached."""
    texts = [p for d in ("toymodel", "derivations", "figures", "benchmarks", "docs") for p in (ROOT / d).rglob("*.py")]
    texts += [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/guides").glob("*.md")]
    texts = [path for path in texts if path.name not in ("gallery.md", "changelog.md")]  # made when the site is built
    wrong = []
    for path in texts:
        for name in re.findall(r"`(?:tm|toymodel)\.([A-Za-z_.]+[A-Za-z_])\b(?<!\.X)", path.read_text()):
            place: Any = tm
            for part in name.split("."):
                if hasattr(place, "__path__") and importlib.util.find_spec(f"{place.__name__}.{part}"):
                    place = importlib.import_module(f"{place.__name__}.{part}")
                else:
                    place = getattr(place, part, None)
            wrong += [f"{path.relative_to(ROOT)}: {name}"] if place is None else []
    assert not wrong


def test_the_coefficients_that_a_benchmark_changes_are_there():
    """`benchmarks/mutations.py` changes texts of the code, which have to follow it."""
    for mutation in MUTATIONS:
        assert (ROOT / mutation.file).read_text().count(mutation.old) == 1, mutation
