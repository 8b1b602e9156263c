"""What the parts of the networks do while ICL comes and goes, beside the vectors of the model.

Drawn from the curves in networks/, which `make networks` trains.
"""

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import band, curves, landmarks, spread

NAMES = {"a": "attention to previous (a)", "b": "|W| (b)", "c": "g (c)", "d": "change of |M| (d)"}


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    toy = tm.descend(model, tm.paper_start(model, seeds=7), 16_000, every=5)
    small, large = curves("disentangled_full"), curves("transformer_full")
    parts = {"a": small.previous_token.squeeze("head_previous_token", drop=True)}
    for x, weight in (("b", "W"), ("c", "g"), ("d", "M")):
        parts[x] = small.weight_norm.sel(weight=f"weights.{weight}", drop=True)
    parts["d"] = parts["d"] - parts["d"].isel(step=0)  # random at the start
    scaled = {x: part / part.max("step") for x, part in parts.items()}
    previous, average = (getattr(large.previous_token, of)("head_previous_token") for of in ("max", "mean"))
    induction, lookup = large.induction.max("head_induction"), large.lookup.max("head_lookup")
    early, late = large.induction.max("step"), large.lookup.isel(step=-1, drop=True)
    early, late = (of.rename({str(of.dims[-1]): "head"}) for of in (early, late))
    serve = [(of > of.max("head") / 2).sum("head") for of in (early, late)]
    there = large.step > landmarks(large).emergence
    kept = previous.isel(step=-1) / previous.where(there).max("step")
    layers = {
        i: (large.weight_norm.where(large.weight.str.contains(f"layer{i}")) ** 2).sum("weight") ** 0.5 for i in "12"
    }
    grown = {i: norm / norm.isel(step=0) for i, norm in layers.items()}
    assert (scaled["a"].max("step") > 1.5 * scaled["a"].isel(step=-1)).all()
    assert float(scaled["d"].mean("seed").sel(step=1500)) < 0.1 < 0.6 < float(scaled["b"].mean("seed").sel(step=1500))
    assert (induction.max("step") > 1.5 * induction.isel(step=-1)).all() and (kept > 0.6).all()
    assert (serve[1] == late.sizes["head"]).all() and (serve[0] >= 4).all()

    fig, ((a, b, c), (d, e, f)) = plotting.new(2, 3, 7.4, 4.6)
    for x, name in NAMES.items():
        share = toy.overlap.sel(vector=x) / toy.target_norm.sel(vector=x)
        a.plot(toy.time / 1000, share, color=plotting.VECTORS[x], label=x)
        band(b, scaled[x], small.step / 1000, plotting.VECTORS[x], label=name)
    band(c, previous, large.step / 1000, "icl", label="best head")
    band(c, average, large.step / 1000, "light", label="mean of 8 heads")
    band(d, induction, large.step / 1000, "icl", label="induction")
    band(d, lookup, large.step / 1000, "ciwl", label="lookup")
    for seed, marker in zip(early.seed, "osd^v", strict=True):
        e.plot(early.sel(seed=seed), late.sel(seed=seed), marker, ms=3, color="k", alpha=0.6, label=f"seed {int(seed)}")
    for i, colour in (("1", "other"), ("2", "shared")):
        band(f, grown[i], large.step / 1000, colour, label=f"layer {i}")
    a.set(title="minimal model, seed 7", ylabel="overlap / target norm")
    b.set(title="disentangled network", ylabel="size / largest size")
    c.set(title="transformer, layer 1", ylabel="attention to previous token", ylim=(0, 1))
    d.set(title="transformer, layer 2", ylabel="strength of the best head", ylim=(-0.02, 0.6))
    e.set(title="transformer, heads of layer 2", ylabel="lookup at the end", xlim=(0, 0.6), ylim=(0, 0.6))
    f.set(title="transformer, weights", ylabel="norm / norm at the start")
    for axes in (a, b, c, d, e, f):
        axes.set_xlabel("highest induction" if axes is e else "steps (thousands)")
        axes.legend(fontsize=6)
    plotting.panel_letters((a, b, c, d, e, f))
    end = {x: float(scaled[x].isel(step=-1).mean()) for x in scaled}
    caption = f"""Parts of the networks beside the vectors of the model. (a) Model: a rises with b and c and falls
    as d is learned. (b) Disentangled network (20 seeds): attention to the previous token (a) rises and falls to
    {end["a"]:.2f} of its highest; W and the copy strength g (b, c) go on growing, since CIWL needs them too; the
    label codes M (d) move last. (c) Transformer (5 seeds), layer 1: attention of label tokens to the exemplar before
    them. It does not rise and fall with ICL: the best head keeps {spread(kept)} of what it had while ICL was there.
    (d, e) Layer 2: how much more a head attends to the right label than to the other, on icl sequences (induction)
    and on ciwl sequences (lookup). Induction falls as lookup rises, and it is the same heads that change over: at
    the end all {late.sizes["head"]} of them, in every seed, reach half of the strongest lookup, among them the
    {int(serve[0].min())} to {int(serve[0].max())} that carried induction; how strong a head's induction was says
    little about its lookup (e). (f) Norm of all weights of a layer: both go on growing. So this transformer does not
    lose ICL in the attention of its first layer, as the paper's does, but in what its second layer reads."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
