"""Every public function and class says what it is, what it takes and returns, and shows an example that runs.

The examples are run with the tests: pytest collects the docstrings of the package (`--doctest-modules`).
"""

import doctest
import inspect

import pytest

import toymodel as tm

NAMES = [f"{prefix}{name}" for prefix, space in (("", tm), ("theory.", tm.theory)) for name in space.__all__]
OF_FILES = ("toymodel.records", "toymodel.sweeps")  # they compute nothing that has a source


def named(name):
    found = tm
    for part in name.split("."):
        found = getattr(found, part)
    return found


CALLABLES = [name for name in NAMES if callable(named(name))]


def test_there_are_names_to_look_at():
    assert len(CALLABLES) > 80 and {"descend", "Clamp", "theory.lifetime"} <= set(CALLABLES)


@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_name_is_documented(name):
    it = named(name)
    text = inspect.getdoc(it) or ""
    module = inspect.unwrap(it).__module__
    lines = {line.split(":")[0].split(",")[0] for line in text.splitlines() if line and not line.startswith(" ")}
    wanted = set()
    if inspect.signature(it).parameters:
        wanted.add("Arguments")
    wanted.add("Raises" if inspect.isclass(it) else "Returns")
    if not (module.startswith(OF_FILES) or inspect.isclass(it)):
        wanted.add("Source")
    assert wanted <= lines, f"{name} lacks {wanted - lines}"
    assert doctest.DocTestParser().get_examples(text), f"{name} has no example"
    summary = text.split("\n\n")[0]
    assert summary.rstrip().endswith((".", ":")) or "=" in summary, summary


@pytest.mark.parametrize("name", CALLABLES)
def test_every_argument_is_named_in_the_docstring(name):
    it = named(name)
    text = inspect.getdoc(it) or ""
    if name == "Sweep":
        return  # those of `sweep`
    parameters = [p for p in inspect.signature(it).parameters if p not in ("options",)]
    missing = [p for p in parameters if p not in text]
    assert not missing, f"{name} says nothing of {missing}"


def test_examples_are_collected_with_the_tests(pytestconfig):
    assert pytestconfig.getoption("doctestmodules") and "toymodel" in pytestconfig.getini("testpaths")
