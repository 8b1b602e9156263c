"""The derivations hold, their pages are up to date, and wrong algebra does not pass."""

import re
from pathlib import Path

import pytest
import reduction as derivation
import sympy as sp
from page import ROOT, assert_equal, assert_limit, fingerprint, random_points, sources

import toymodel.reduction

PACKAGES = ("toymodel", "toymodel.theory")
SCRIPTS = sorted(path for path in Path(ROOT, "derivations").glob("*.py") if path.stem != "page")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_page_is_not_older_than_its_sources(script):
    """Each page carries the hash of its script and of the model's modules; `make derivations` makes it anew."""
    text = script.with_suffix(".md").read_text()
    found = re.search(r"<!-- made from (.*); fingerprint (\w+) -->", text)
    assert found, f"{script.stem}.md has no fingerprint"
    used = found[1].split(", ")
    assert used[0] == f"derivations/{script.name}"
    assert fingerprint(used) == found[2], f"{script.stem}.md is stale: run make derivations"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_page_names_all_that_it_is_made_from(script):
    """The modules that the script imports, the derivations among them, and the data files that it names."""
    found = re.search(r"<!-- made from (.*); fingerprint", script.with_suffix(".md").read_text())
    assert found
    text, used = script.read_text(), found[1].split(", ")
    modules = re.findall(r"^from (toymodel[\w.]*) import (\w+)?", text, re.MULTILINE)
    places = [f"{module}.{name}" if module in PACKAGES else module for module, name in modules]
    wanted = {f"{place.replace('.', '/')}.py" for place in places} - {"toymodel/plotting.py"}
    imported = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)
    wanted |= {f"derivations/{path.name}" for path in script.parent.glob("*.py") if path.stem in imported}
    wanted |= {f"figures/data/{name}" for name in re.findall(r'"(\w+\.nc)"', text)}
    assert "derivations/page.py" in wanted and wanted <= set(used)


def test_sources_are_all_that_computes():
    """This process has imported the package: modules that simulate count, those that draw do not."""
    used = sources(SCRIPTS[0], [Path(ROOT, "figures", "data", "theory_emergence.nc")])
    assert {"derivations/page.py", "derivations/reduction.py", "figures/data/theory_emergence.nc"} <= set(used)
    assert "toymodel/reduction.py" in used and "toymodel/plotting.py" not in used


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


def test_the_reduction_holds():
    assert derivation.build().checks > 10


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
