"""What the parts of the networks do while ICL comes and goes, beside the vectors of the model.

Drawn from the curves in networks/, which `make networks` trains; crosses are numbers of the paper (networks/paper/).
"""

from shared.networks import at

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import band, crossing, curves, landmarks, spread, uses_paper
from toymodel.network.paper import BATCH, paper_number

NAMES = {"a": "attention to previous (a)", "b": "|W| (b)", "c": "g (c)", "d": "change of |M| (d)"}
PREVIOUS = {3.7: "at 3.7 M", 8.5: "at 8.5 M", 20.0: "at 20 M"}  # million sequences
CUT = {
    ("icl", "previous"): ("icl", "icl, not to the exemplar before"),
    ("flip", "previous"): ("loss", "flip, the same"),
}
CUT |= {("ciwl", "previous"): ("ciwl", "ciwl, the same"), ("ciwl", "own"): ("other", "ciwl, not to themselves")}


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
    marks, steps = landmarks(large), large.step / float(landmarks(large).emergence.median())
    learned = large.isel(step=slice(3, None))  # at the start label tokens look at few tokens, so at all of them a lot
    best = learned.previous_token.max("step").argmax("head_previous_token")
    previous = large.previous_token.isel(head_previous_token=best)
    own = large.own_token.max("head_own_token")
    copy = (large["copy"] - large["copy"].isel(step=0)) / (large["copy"].max("step") - large["copy"].isel(step=0))
    fig, ((a, b, c), (d, e, f)) = plotting.new(2, 3, 7.4, 4.6)
    for x, name in NAMES.items():
        share = toy.overlap.sel(vector=x) / toy.target_norm.sel(vector=x)
        a.plot(toy.time / 1000, share, color=plotting.VECTORS[x], label=x)
        band(b, scaled[x], small.step / 1000, plotting.VECTORS[x], label=name)
    band(c, previous, steps, "icl", label="best head, to previous")
    band(c, own, steps, "light", label="another, to themselves")
    for millions, when in PREVIOUS.items():
        size = paper_number(f"previous-token attention of the best head {when}")
        c.plot(millions / paper_number("flip up through 0.5"), size, "kx", ms=5)
    band(d, large.induction.mean("head_induction"), steps, "icl", label="induction")
    band(d, large.lookup.mean("head_lookup"), steps, "ciwl", label="lookup")
    for measure, colour, label in (
        (copy, "shared", "copy"),
        (large.match, "light", "match"),
        (previous, "icl", "previous"),
    ):
        band(e, measure / measure.isel(step=slice(3, None)).max("step"), steps, colour, label=label)
    for (evaluator, cut), (colour, label) in CUT.items():
        band(f, large.accuracy_cut.sel(of_cut=evaluator, cut=cut), steps, colour, label=label)
    for ax, title in ((a, "minimal model, seed 7"), (b, "disentangled network"), (c, "layer 1: attention")):
        ax.set(title=title, xlabel="steps (thousands)")
    for ax, title in (
        (d, "layer 2: preference, mean head"),
        (e, "share of the largest"),
        (f, "accuracy without attention"),
    ):
        ax.set(title=title, xlabel="time / emergence of ICL")
    c.set(xlabel="time / emergence of ICL", ylim=(0, 1))
    for ax in (a, b, c, d, e, f):
        ax.legend(fontsize=5.5)
    plotting.panel_letters((a, b, c, d, e, f))
    half = {n: crossing(m / m.max("step"), 0.5) / marks.emergence for n, m in (("copy", copy), ("match", large.match))}
    half["previous"] = crossing((previous / previous.max("step")).isel(step=slice(3, None)), 0.5) / marks.emergence
    kept, ends = (
        previous.isel(step=-1) / previous.isel(step=slice(3, None)).max("step"),
        at(large, "flip").isel(step=-1),
    )
    assert (scaled["a"].max("step") > 1.5 * scaled["a"].isel(step=-1)).all() and BATCH == 32
    assert (large.induction.mean("head_induction").max("step") > 0.1).all()
    order = "; ".join(f"{name} {spread(when)}" for name, when in half.items())
    caption = f"""Parts of the networks beside the vectors of the model. (a) Model. (b) Disentangled network. (c to
    f) Transformer, {large.seed.size} seeds (mean, lowest and highest); the start is left out where shares are
    formed. (c) Attention of label tokens in layer 1: the head that looks most at the exemplar before them, which at
    the end keeps {spread(kept)} of its highest, while flip is down to {spread(ends)}; crosses, the paper's best
    head. (d) How much more the query looks at the right label than at the other, on icl sequences (induction) and
    on ciwl sequences (lookup). (e) Progress measures: copy (what attention to a label adds to its own logit), match
    (induction where layer 1 looks one token back), previous-token attention; half of their largest is reached at,
    over the emergence of ICL: {order}. (f) Accuracy where in layer 1 label tokens may not look at the exemplar
    before them, or not at themselves."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
