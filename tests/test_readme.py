"""What the README shows runs as written."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[2][:40])
def test_example_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(block, {})


def test_the_first_example_prints_the_iteration_counts_of_the_paper(capsys):
    exec(BLOCKS[0], {})
    printed = [int(number) for number in re.findall(r"\b\d{4,5}(?=\.)", capsys.readouterr().out)]
    assert printed[:5] == [8834, 14482, 6138, 9306, 5104]
