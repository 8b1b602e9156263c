"""Figures: what they are made from, what an edit makes stale, the same bytes twice, colours, the rules of a script."""

import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import toymodel as tm
from toymodel import files, plotting, provenance
from toymodel.plotting import COLOURS

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "figures").glob("*.py"))
KINDS = ("pdf", "svg", "png", "md")

OF_THE_MODEL = """
import toymodel as tm
from toymodel import plotting

fig, ax = plotting.new(1, 1, 2, 2)
ax.plot(plotting.uses("data.csv").read_text().split(","), label="a")
ax.legend()
plotting.finish(__file__, fig, f"A line of\\n   {tm.coopetition().parameters['alpha']:g}.")
"""
OF_NOTHING = """
from toymodel import plotting

fig, ax = plotting.new(1, 1, 2, 2)
plotting.finish(__file__, fig, "Nothing.")
"""


def draw(project: Path, name: str, **environment: str) -> None:
    subprocess.run(
        [sys.executable, f"figures/{name}.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), **environment},
        check=True,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with two small figures, both drawn, and an environment that passes for installed."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "toymodel", project / "toymodel", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, project)
    (project / "figures").mkdir()
    (project / ".venv").mkdir()
    for path, text in (
        ("figures/one.py", OF_THE_MODEL),
        ("figures/other.py", OF_NOTHING),
        ("data.csv", "1,2,3"),
        (".venv/ready", ""),
    ):
        (project / path).write_text(text)
    for name in ("one", "other"):
        draw(project, name)
    return project


@pytest.fixture
def edited(project):
    """Writes a file of the project anew; what was there is back after the test."""
    before = {}

    def edit(name: str, change) -> None:
        path = project / name
        before.setdefault(path, path.read_text())
        path.write_text(change(before[path]))

    yield edit
    for path, text in before.items():
        path.write_text(text)


def stale(project: Path) -> set[str]:
    """The figures that `make figures` would draw."""
    return {name for name in ("one", "other") if provenance.is_stale(project / f"figures/out/{name}.md", project)}


def made_from(project: Path, name: str) -> list[str]:
    found = provenance.STAMP.search((project / f"figures/out/{name}.md").read_text())
    assert found and found["made"] == f"{name}.md, {name}.pdf, {name}.svg, {name}.png"
    return found["sources"].split(", ")


@pytest.mark.slow
def test_sources_are_what_a_script_imports_and_uses(project):
    of_one, of_other = made_from(project, "one"), made_from(project, "other")
    assert {"figures/one.py", "toymodel/model.py", "toymodel/toymodel.mplstyle", "data.csv"} <= set(of_one)
    assert "toymodel/reduction.py" not in of_one  # importing the package imports nothing that is not used
    assert "toymodel/model.py" not in of_other and "data.csv" not in of_other


@pytest.mark.slow
def test_nothing_is_stale_when_drawn(project):
    assert stale(project) == set()


@pytest.mark.parametrize(
    "source, redrawn",
    [
        ("toymodel/model.py", {"one"}),
        ("data.csv", {"one"}),
        ("figures/one.py", {"one"}),
        ("figures/other.py", {"other"}),
        ("toymodel/toymodel.mplstyle", {"one", "other"}),
        ("toymodel/plotting.py", {"one", "other"}),
        ("toymodel/reduction.py", set()),
        ("toymodel/files.py", set()),
    ],
)
def test_an_edit_redraws_exactly_what_it_made_stale(project, edited, source, redrawn):
    edited(source, lambda text: text + "\nX = 1\n")
    assert stale(project) == redrawn


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# A remark.\n" + text + "\n# Another one.\n",
        lambda text: text.replace('"""', '"""Another sentence. ', 1),
        lambda text: text.replace('    """', '    r"""Another sentence. ', 1),
        lambda text: text.replace("\n\n\n", "\n\n\n\n"),
    ],
    ids=["comment", "docstring of the module", "docstring of a class", "empty line"],
)
def test_comments_and_docstrings_make_nothing_stale(project, edited, change):
    for name in ("toymodel/model.py", "toymodel/plotting.py"):
        edited(name, change)
        assert (project / name).read_text() != (ROOT / name).read_text()
    assert stale(project) == set()


@pytest.mark.parametrize("name", ["data.csv", "figures/out/one.pdf", "figures/out/one.svg", "figures/out/one.md"])
@pytest.mark.slow
def test_what_is_deleted_is_stale(project, name):
    shutil.move(project / name, project / "moved")
    try:
        assert stale(project) == {"one"}
    finally:
        shutil.move(project / "moved", project / name)


@pytest.mark.slow
def test_make_draws_what_is_stale_and_says_how_many(project, edited):
    def make(*targets: str) -> list[str]:
        command = ["make", "--no-print-directory", *targets, f"RUN={sys.executable}"]
        environment = {**os.environ, "PYTHONPATH": str(project), "MAKEFLAGS": ""}
        return subprocess.run(
            command, cwd=project, env=environment, check=True, capture_output=True, text=True
        ).stdout.splitlines()

    where = "2 figures are in figures/out"
    assert make("figures") == ["0 of 2 figures are stale", where]
    (project / "figures/out/one.png").unlink()
    assert make("figures") == ["1 of 2 figures are stale", "drawing one", where]
    edited("figures/other.py", lambda text: text.replace("Nothing.", "Something."))
    assert make("figures/out/one.png", "figures/out/other.png") == ["drawing other"]
    assert "Something." in (project / "figures/out/other.md").read_text()
    assert make("figures") == ["0 of 2 figures are stale", where]


@pytest.mark.slow
def test_same_input_same_bytes(project):
    """Another hash seed, another time, another language, a backend that cannot be had: the same files."""
    before = {kind: (project / f"figures/out/one.{kind}").read_bytes() for kind in KINDS}
    draw(project, "one", PYTHONHASHSEED="7", SOURCE_DATE_EPOCH="0", LC_ALL="C", MPLBACKEND="module://no_such_window")
    for kind, content in before.items():
        assert (project / f"figures/out/one.{kind}").read_bytes() == content, kind
    assert before["md"].startswith(b"![one](one.png)\n\nA line of 0.1.\n\n<!-- made: one.md, ")


@pytest.mark.slow
def test_a_figure_that_fails_leaves_no_pieces(project):
    (project / "figures/broken.py").write_text(
        OF_NOTHING.replace("plotting.finish", "ax.set_title('$\\\\frac$')\nplotting.finish")
    )
    with pytest.raises(subprocess.CalledProcessError):
        draw(project, "broken")
    (project / "figures/broken.py").unlink()
    left = [path.name for path in (project / "figures/out").iterdir() if path.suffix in (".pdf", ".svg", ".png")]
    assert not [name for name in left if "broken" in name]


@pytest.mark.slow
def test_drawing_leaves_the_backend_to_the_user(project):
    """In a notebook the user's own choice, for plots within the page, still holds after a figure of the project."""
    drawn = "import sys, matplotlib; from toymodel import plotting; plotting.new(); "
    held = "assert matplotlib.rcParams['backend'] == 'pdf' and 'matplotlib.pyplot' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", drawn + held], cwd=project, env={**os.environ, "MPLBACKEND": "pdf"}, check=True
    )


@pytest.mark.parametrize(
    "folder, reason",
    [("missing", "No such file or directory"), ("a file", "Not a directory"), ("full", "No space left")],
)
def test_a_figure_that_cannot_be_written_says_why(tmp_path, monkeypatch, folder, reason):
    """The path asked for, not the temporary name; what was there stays, and nothing half written beside it."""
    (tmp_path / "a file").touch()
    (tmp_path / "full").mkdir()
    path = tmp_path / folder / "run.png"
    figure, _ = plotting.new()
    if folder == "full":
        path.write_bytes(b"before")
        monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match=f"^cannot write {path}: {reason}"):
        plotting.save(figure, path)
    if folder == "full":
        assert path.read_bytes() == b"before" and list(path.parent.iterdir()) == [path]


def full(*_paths: Path) -> None:
    """What a disk without room does."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def short():
    """Runs of three seeds whose time stays below one."""
    model = tm.coopetition()
    return tm.descend(model, tm.paper_start(model, range(3)), 40, lr=0.01)


def test_a_logarithmic_axis_begins_at_the_first_recorded_time(short):
    _, axes = plotting.new()
    plotting.losses(axes, short.isel(seed=0))
    plotting.log_time(axes)
    low, high = axes.get_xlim()
    assert low == short.time[1] and high > short.time[-1]


def test_losses_of_a_batch_say_what_to_select(short):
    _, axes = plotting.new()
    with pytest.raises(
        ValueError, match=re.escape("got a batch along {'seed': 3}; select one, such as runs.isel(seed=0)")
    ):
        plotting.losses(axes, short)
    assert not axes.lines


def test_competition_is_dashed_and_nothing_else(short):
    _, axes = plotting.new()
    plotting.losses(axes, short.isel(seed=0), "loss", "loss_icl", "loss_ciwl", "cost")
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "-", "--"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_keeps_the_rules(script):
    """Under 80 lines, asserts its claim, ends with finish, does nothing when imported."""
    text = script.read_text()
    assert len(text.splitlines()) < 80
    assert re.search(r"^ +assert ", text, re.MULTILINE)
    assert "plotting.finish(__file__, " in text
    assert 'if __name__ == "__main__":\n    main()' in text


# Machado, Oliveira and Fernandes 2009: how colours are seen without one kind of cone, on linear RGB
NORMAL = np.eye(3)
DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTANOPIA = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as it is seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(seen @ linear, 1e-3, 1) / XYZ.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", [NORMAL, DEUTERANOPIA, PROTANOPIA], ids=["normal", "deuteranopia", "protanopia"])
def test_strategies_have_distinct_colours(seen):
    """Ten times the difference that an eye just notices (about 2.3)."""
    for one, other in itertools.combinations(("icl", "ciwl", "iwl", "loss", "cost"), 2):
        assert np.linalg.norm(lab(COLOURS[one], seen) - lab(COLOURS[other], seen)) > 23, (one, other)
