"""The derivations hold, their pages are up to date, and wrong algebra does not pass."""

import re
from pathlib import Path

import pytest
import reduction as derivation
import sympy as sp
from page import ROOT, assert_equal, fingerprint

import toymodel.reduction

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
def test_every_picture_of_a_page_is_there(script):
    for name in re.findall(r"!\[.*?\]\((.*?)\)", script.with_suffix(".md").read_text()):
        assert (script.parent / name).exists(), name


def test_the_index_orders_all_pages():
    listed = re.findall(r"\((\w+)\.md\)", Path(ROOT, "derivations", "README.md").read_text())
    assert sorted(listed) == [path.stem for path in SCRIPTS]


def test_equal_expressions_pass_and_others_do_not():
    x, y = sp.symbols("x y")
    assert_equal((x + y) ** 2, x**2 + 2 * x * y + y**2)
    assert_equal(sp.sin(x) ** 2 + sp.cos(x) ** 2, sp.Integer(1))
    with pytest.raises(AssertionError, match="differ"):
        assert_equal((x + y) ** 2, x**2 + 2 * x * y + y**2 * (1 + sp.Rational(1, 10**28)))


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
