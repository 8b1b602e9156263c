"""A new case of a kind is one class or one function: what it takes to add one, done here from outside."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr

import toymodel as tm
from toymodel import measures
from toymodel.simulation import kernel
from toymodel.simulation.interventions import Intervention


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale(Intervention):
    """The gradient of a term reaches its vectors times a factor."""

    term: str = field(kw_only=False)
    factor: Any = field(kw_only=False)

    def gates(self, model: tm.Model) -> Mapping[tuple[str, str], Any]:
        return {(self.term, x): self.factor for x in model.terms[self.term]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Push(Intervention):
    """Something is added to the gradient of a vector, along its target and along its residual."""

    vector: str = field(kw_only=False)
    along: float = 0.0
    across: float = 0.0

    def pushes(self, model: tm.Model) -> Mapping[str, tuple[Any, Any]]:
        return {self.vector: (self.along, self.across)}


@pytest.fixture(scope="module")
def model():
    return tm.coopetition(dims=(3, 4, 5, 6))


@pytest.fixture(scope="module")
def vectors(model):
    return tm.random_vectors(model, range(3), scale=0.5)


ACTS = [
    [Scale("ciwl", 0.3), Scale("cost", 2.0, at=2.0)],
    [Push("d", along=0.02, across=-0.01, until=3.0)],
    [Scale("icl", 0.5), tm.Block("ciwl", "b"), Push("b", along=-0.01)],
]


@pytest.mark.slow
@pytest.mark.parametrize("acts", ACTS, ids=["scaled", "pushed", "together"])
def test_an_intervention_on_gradients_is_one_class(model, vectors, acts):
    """Written once, it acts on the coordinates, on all entries, on the flow of each method, and as text."""
    start = tm.from_vectors(model, vectors)
    few = tm.descend(model, start, 60, lr=0.1, interventions=acts)
    every = tm.descend_vectors(model, vectors, 60, lr=0.1, interventions=acts)
    for name in ("loss_icl", "loss_ciwl", "cost", "overlap", "residual"):
        np.testing.assert_allclose(few[name], every[name], rtol=1e-9, atol=1e-12)
    assert not np.allclose(few.loss, tm.descend(model, start, 60, lr=0.1).loss, rtol=1e-3)
    text = "; ".join(map(str, acts))
    xr.testing.assert_identical(few, tm.descend(model, start, 60, lr=0.1, interventions=text))


def test_a_factor_of_one_changes_nothing_and_one_of_zero_blocks(model, vectors):
    start = tm.from_vectors(model, vectors)
    plain = tm.descend(model, start, 80)
    factor = xr.DataArray([0.0, 1.0], dims="factor", coords={"factor": [0.0, 1.0]})
    scaled = tm.descend(model, start, 80, interventions=[Scale("ciwl", factor)])
    blocked = tm.descend(model, start, 80, interventions=[tm.Block("ciwl")])
    np.testing.assert_allclose(scaled.loss.sel(factor=1), plain.loss, rtol=1e-12)
    np.testing.assert_array_equal(scaled.loss.sel(factor=0), blocked.loss)


def test_a_measure_is_one_file(model, vectors, monkeypatch):
    """How long a mechanism is learned, all stretches counted: its state, its line in `follow`, its entry in
    `finished`; the kernel of descent, records and sweeps follow."""
    source = _with_time_learned()
    with monkeypatch.context() as changed:
        for name, value in source.items():
            changed.setattr(measures, name, value)
        kernel._text.cache_clear()
        start = tm.from_vectors(model, vectors)
        runs = tm.descend(model, start, 3_000)
        seen = tm.descend(model, start, 3_000, observe=tm.Measures())
    kernel._text.cache_clear()
    for m in model.mechanisms:
        expected = (runs[f"loss_{m}"] < 0.5 * runs[f"unlearned_{m}"]).sum("time")
        np.testing.assert_array_equal(seen["time_learned"].sel(mechanism=m), expected)


def _with_time_learned() -> dict[str, Any]:
    """`toymodel.measures` with one more measure, as an edit of that file would make it."""
    begin, finished = {**measures.BEGIN, "count": 0.0}, measures.finished

    def with_count(known, inside, last, unit=1.0):
        return {**finished(known, inside, last, unit), "time_learned": known["count"]}

    return {
        "BEGIN": begin,
        "OF_MECHANISM": (*measures.OF_MECHANISM, "time_learned"),
        "finished": with_count,
        "follow": follow,
    }


def follow(n, loss, inside, emergence, lowest, lowest_at, end, bump, bump_at, last, count):
    said = loss == loss
    learned = loss < inside
    lower = loss < lowest
    rise = loss - lowest
    emergence = n if learned & (emergence >= NEVER) else emergence
    waits = emergence >= NEVER
    gone = said & (not learned) & (not waits) & (end >= NEVER)
    higher = waits & (rise > bump)
    end = NEVER if lower else (n if gone else end)
    lowest_at = n if lower else lowest_at
    lowest = loss if lower else lowest
    bump = rise if higher else bump
    bump_at = n if higher else bump_at
    last = loss if said else last
    count = count + 1.0 if learned else count
    return emergence, lowest, lowest_at, end, bump, bump_at, last, count
