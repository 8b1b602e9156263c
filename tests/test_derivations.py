"""The derivations hold, their pages are up to date, and wrong algebra does not pass."""

import importlib
import re
from pathlib import Path

import pytest
import reduction as derivation
import sympy as sp
from page import ROOT, Page, assert_equal, assert_limit, random_points

import toymodel.reduction
from toymodel import provenance

SCRIPTS = sorted(path for path in Path(ROOT, "derivations").glob("*.py") if path.stem != "page")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_page_is_not_older_than_its_sources(script):
    """Each page carries the fingerprint of its script, of the modules that it imported and of its data."""
    assert not provenance.is_stale(script.with_suffix(".md"), ROOT), f"{script.stem}.md is stale: run make derivations"


def test_a_page_is_made_from_all_that_it_imports_and_reads(tmp_path, monkeypatch):
    """Also a module that it imports through another one; a comment in it makes the page stale no more than here."""
    folder = tmp_path / "derivations"
    folder.mkdir()
    (tmp_path / "table.csv").write_text("1")
    (folder / "inner_module.py").write_text("X = 1\n")
    (folder / "outer_module.py").write_text("import inner_module\n")
    script = folder / "small.py"
    script.write_text("import outer_module\n")
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("outer_module")
    page = Page(str(script), "Small", ["None."])
    monkeypatch.setattr("page.ROOT", tmp_path)
    page.uses(tmp_path / "table.csv")
    path = page.write()
    found = provenance.STAMP.search(path.read_text())
    assert found
    wanted = ["derivations/inner_module.py", "derivations/outer_module.py", "derivations/small.py", "table.csv"]
    assert [name for name in found["sources"].split(", ") if not name.startswith("..")] == wanted
    assert not provenance.is_stale(path, tmp_path)
    (folder / "inner_module.py").write_text("X = 1  # one\n")
    assert not provenance.is_stale(path, tmp_path)
    (folder / "inner_module.py").write_text("X = 2\n")
    assert provenance.is_stale(path, tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_picture_of_a_page_is_there(script):
    for name in re.findall(r"!\[.*?\]\((.*?)\)", script.with_suffix(".md").read_text()):
        assert (script.parent / name).exists(), name


def test_the_index_orders_all_pages():
    listed = re.findall(r"\((\w+)\.md\)", Path(ROOT, "derivations", "README.md").read_text())
    assert sorted(listed) == sorted([*(path.stem for path in SCRIPTS), "notation"])


def test_equal_expressions_pass_and_others_do_not():
    x, y = sp.symbols("x y")
    assert_equal((x + y) ** 2, x**2 + 2 * x * y + y**2)
    assert_equal(sp.sin(x) ** 2 + sp.cos(x) ** 2, sp.Integer(1))
    with pytest.raises(AssertionError, match="differ"):
        assert_equal((x + y) ** 2, x**2 + 2 * x * y + y**2 * (1 + sp.Rational(1, 10**28)))


def test_points_have_the_signs_that_symbols_may_have():
    x, y = sp.Symbol("x", real=True), sp.Symbol("y", positive=True)
    assert_equal(abs(y), y)
    with pytest.raises(AssertionError, match="differ"):
        assert_equal(abs(x), x)
    drawn = list(random_points({x, y}, 20))
    assert {point[x] > 0 for point in drawn} == {True, False} and all(point[y] > 0 for point in drawn)


def test_limits_pass_and_others_do_not():
    x, k = sp.symbols("x k", positive=True)
    assert_limit(sp.sin(k * x) / x, x, k)
    assert_limit(sp.sqrt(x + k), x, sp.sqrt(k))
    for wrong in (k**2, k * (1 + sp.Rational(1, 10**12))):
        with pytest.raises(AssertionError, match="differ"):
            assert_limit(sp.sin(k * x) / x, x, wrong)


@pytest.mark.slow
def test_the_reduction_holds():
    assert derivation.build().checks > 10


@pytest.mark.slow
@pytest.mark.parametrize("factor", [sp.Rational(1, 2), sp.Rational(10**12 + 1, 10**12)])
def test_a_perturbed_loss_does_not_reduce(monkeypatch, factor):
    """A wrong coefficient in the reduced loss, however small, is found."""
    right = toymodel.reduction.mechanism_loss

    def wrong(planes, weight):
        return right([planes[0]._replace(v=planes[0].v * factor), *planes[1:]], weight)

    monkeypatch.setattr(toymodel.reduction, "mechanism_loss", wrong)
    monkeypatch.setattr(derivation, "mechanism_loss", wrong)
    with pytest.raises(AssertionError, match="differ"):
        derivation.build()
