"""What the parts of the networks do while ICL comes and goes, beside the vectors of the model.

Drawn from the curves in networks/, which `make networks` trains; crosses are numbers of the paper (networks/paper/).
"""

from shared.networks import at, best_previous

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import band, curves, landmarks, last, seeds_of, spread, uses_paper
from toymodel.network.paper import paper_number

NAMES = {"a": "attention to previous (a)", "b": "|W| (b)", "c": "g (c)", "d": "change of |M| (d)"}
PREVIOUS = {3.7: "at 3.7 M", 8.5: "at 8.5 M", 20.0: "at 20 M"}  # million sequences


def main() -> None:
    uses_paper()
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    toy = tm.descend(model, tm.paper_start(model, seeds=7), 16_000, every=5)
    small, large = curves("disentangled_full"), curves("transformer_full")
    parts = {"a": small.previous_token.squeeze("head_previous_token", drop=True)}
    for x, weight in (("b", "W"), ("c", "g"), ("d", "M")):
        parts[x] = small.weight_norm.sel(weight=f"weights.{weight}", drop=True)
    parts["d"] = parts["d"] - parts["d"].isel(step=0)  # random at the start
    scaled = {x: part / part.max("step") for x, part in parts.items()}
    marks, previous = landmarks(large), best_previous(large)
    time = large.step / float(marks.emergence.median())
    induction, lookup = large.induction.mean("head_induction"), large.lookup.mean("head_lookup")

    fig, axes = plotting.new(2, 2, 6.4, 4.6)
    (a, b), (c, d) = axes
    for x, name in NAMES.items():
        share = toy.overlap.sel(vector=x) / toy.target_norm.sel(vector=x)
        a.plot(toy.time / 1000, share, color=plotting.VECTORS[x], label=x)
        band(b, scaled[x], small.step / 1000, plotting.VECTORS[x], label=name)
    band(c, previous, time, "icl", label="best head, to the exemplar before")
    band(c, large.own_token.max("head_own_token"), time, "light", label="another, to themselves")
    for millions, when in PREVIOUS.items():
        size = paper_number(f"previous-token attention of the best head {when}")
        c.plot(millions / paper_number("flip up through 0.5"), size, "kx", ms=5)
    band(d, induction, time, "icl", label="induction (icl sequences)")
    band(d, lookup, time, "ciwl", label="lookup (ciwl sequences)")
    a.set(title="minimal model, seed 7", xlabel="steps (thousands)", ylabel="overlap / target norm")
    b.set(title="disentangled network", xlabel="steps (thousands)", ylabel="size / largest size")
    c.set(title="transformer, layer 1", xlabel="time / emergence of ICL", ylabel="attention", ylim=(0, 1.4))
    d.set(title="transformer, layer 2", xlabel="time / emergence of ICL", ylabel="preference, mean of heads")
    for ax in axes.flat:
        ax.legend(fontsize=6, loc="upper left" if ax is c else "best")
    plotting.panel_letters(axes.flat)
    kept = last(previous) / previous.max("step")
    falls = last(induction) / induction.max("step")
    assert (scaled["a"].max("step") > 1.5 * scaled["a"].isel(step=-1)).all()
    assert float(scaled["d"].mean("seed").sel(step=1500)) < 0.1 < 0.6 < float(scaled["b"].mean("seed").sel(step=1500))
    assert (induction.max("step") > 0.05).all() and (last(lookup) > 0.05).all()
    caption = f"""Parts of the networks beside the vectors of the model. (a) Model: a rises with b and c and falls
    as d is learned. (b) Disentangled network (20 seeds): attention to the previous token (a) rises and falls; W and
    the copy strength g (b, c) go on growing; the label codes M (d) move last. (c) Transformer ({seeds_of(large)}):
    attention of label tokens to the exemplar before them in the head where it is highest, from a sixteenth of the
    training on (at the start attention is spread over few tokens); it keeps {spread(kept)} of its highest to the
    end, where flip is {spread(last(at(large, "flip")))}. Crosses: the paper's best head, which rises and falls with
    icl, to 0.4 of its highest. (d) How much more the query looks at the right label than at the other: induction
    keeps {spread(falls)} of its highest, lookup is at its end {spread(last(lookup))}."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
