"""What the README and the documentation show runs as written, notebooks run from top to bottom, and the site builds."""

import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/guides").glob("*.md"))]
BLOCKS = {
    f"{page.stem} {i}": block
    for page in PAGES
    if page.name not in ("gallery.md", "changelog.md")  # made when the site is built
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}


@pytest.mark.parametrize("name", BLOCKS)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[name], {})


def test_the_first_example_prints_the_iteration_counts_of_the_paper(capsys):
    exec(BLOCKS["README 0"], {})
    printed = [int(number) for number in re.findall(r"\b\d{4,5}(?=\.)", capsys.readouterr().out)]
    assert printed[:5] == [8834, 14482, 6138, 9306, 5104]


@pytest.mark.parametrize("path", sorted((ROOT / "docs/notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path):
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "notebooks are kept without outputs"
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": path.parent}}).execute()


def test_the_site_builds_without_a_warning(tmp_path):
    options = ["--fail-on-warning", "--quiet", "-D", "nb_execution_mode=off", "-d", tmp_path / "trees"]
    subprocess.run([sys.executable, "-m", "sphinx", *options, ROOT / "docs", tmp_path / "site"], check=True)
    assert "fold" in (tmp_path / "site/derivations/lifetime.html").read_text()
    assert "toymodel.theory.lifetime" in (tmp_path / "site/reference.html").read_text()
