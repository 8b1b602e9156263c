"""Measures of runs whose start was itself chosen by a measure."""

import toymodel as tm


def test_a_start_taken_at_the_emergence_of_a_mechanism_can_be_measured():
    """Such a start carries the label of the mechanism along; the measures of its runs are those without it."""
    model = tm.coopetition()
    runs = tm.descend(model, tm.paper_start(model, seeds=[5, 8]), steps=1_000)
    emergence = tm.measure(runs).emergence.sel(mechanism="icl")
    taken = runs[["overlap", "residual", "target_norm"]].sel(time=emergence).drop_vars(["time", "step"])
    assert "mechanism" in taken.coords
    labelled, plain = (tm.measure(tm.descend(model, s, 300)) for s in (taken, taken.drop_vars("mechanism")))
    assert labelled.emergence.sel(mechanism="icl").values.tolist() == [0, 0]  # learned when it was taken
    assert labelled.emergence.equals(plain.emergence)
