"""What the parts of the networks do while ICL comes and goes, beside the vectors of the model.

Drawn from the curves in networks/, which `make networks` trains.
"""

import toymodel as tm
from toymodel import plotting
from toymodel.network.curves import band, curves

PARTS = {"a": "icl", "b": "shared", "c": "none", "d": "ciwl"}


def main() -> None:
    model = tm.coopetition(alpha=0.1, mu_icl=0.1)
    toy = tm.descend(model, tm.paper_start(model, seeds=7), 16_000, every=5)
    small, large = curves("disentangled_full"), curves("transformer_full")
    norm = small.weight_norm
    parts = {
        "a": small.previous_token.squeeze("head_previous_token", drop=True),
        "b": norm.sel(weight="weights.W", drop=True),
        "c": norm.sel(weight="weights.g", drop=True),
        "d": norm.sel(weight="weights.M", drop=True),
    }
    parts["d"] = parts["d"] - parts["d"].isel(step=0)  # random at the start
    scaled = {x: part / part.max("step") for x, part in parts.items()}
    induction, lookup = large.induction.max("head_induction"), large.lookup.max("head_lookup")
    early, late = large.induction.max("step"), large.lookup.isel(step=-1, drop=True)
    early, late = (of.rename({str(of.dims[-1]): "head"}) for of in (early, late))
    serve = [(of > of.max("head") / 2).sum("head") for of in (early, late)]
    assert (scaled["a"].max("step") > 1.5 * scaled["a"].isel(step=-1)).all()
    assert float(scaled["d"].mean("seed").sel(step=1500)) < 0.1 < 0.6 < float(scaled["b"].mean("seed").sel(step=1500))
    assert (induction.max("step") > 1.5 * induction.isel(step=-1)).all()
    assert (serve[1] == late.sizes["head"]).all() and (serve[0] >= 4).all()

    fig, ((a, b), (c, d)) = plotting.new(2, 2, 6.4, 4.6)
    for x, colour in PARTS.items():
        share = toy.overlap.sel(vector=x) / toy.target_norm.sel(vector=x)
        a.plot(toy.time / 1000, share, color=plotting.COLOURS[colour], label=x)
    names = {"a": "attention to previous (a)", "b": "|W| (b)", "c": "g (c)", "d": "change of |M| (d)"}
    for x, colour in PARTS.items():
        band(b, scaled[x], small.step / 1000, colour, label=names[x])
    band(c, induction, large.step / 1000, "icl", label="induction")
    band(c, lookup, large.step / 1000, "ciwl", label="lookup")
    for seed, marker in zip(early.seed, "osd^v", strict=True):
        d.plot(early.sel(seed=seed), late.sel(seed=seed), marker, ms=3, color="k", alpha=0.6, label=f"seed {int(seed)}")
    a.set(title="minimal model, seed 7", ylabel="overlap / target norm", xlabel="steps (thousands)")
    b.set(title="disentangled network", ylabel="size / largest size", xlabel="steps (thousands)")
    c.set(
        title="transformer, layer 2", ylabel="strength of the best head", xlabel="steps (thousands)", ylim=(-0.02, 0.6)
    )
    d.set(title="transformer, heads of layer 2", xlabel="highest induction", ylabel="lookup at the end", xlim=(0, 0.6))
    d.set(ylim=(0, 0.6))
    for axes in (a, b, c, d):
        axes.legend(fontsize=6)
    plotting.panel_letters((a, b, c, d))
    end = {x: float(scaled[x].isel(step=-1).mean()) for x in scaled}
    caption = f"""Parts of the networks beside the vectors of the model. (a) Model: a rises with b and c and falls
    as d is learned. (b) Disentangled network (20 seeds): attention to the previous token (a) rises and falls to
    {end["a"]:.2f} of its highest; W and the copy strength g (b, c) go on growing, since CIWL needs them too; the
    label codes M (d) move last. (c, d) Transformer (5 seeds): how much more a head of layer 2 attends to the
    right label than to the other, on icl sequences (induction) and on ciwl sequences (lookup). Induction falls as
    lookup rises, and it is the same heads that change over: at the end all {late.sizes["head"]} of them, in every
    seed, reach half of the strongest lookup, among them the {int(serve[0].min())} to {int(serve[0].max())} that
    carried induction; how strong a head's induction was says little about its lookup (d)."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
