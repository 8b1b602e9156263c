"""Progress measures of the parts of induction, on full and on ICL-only data, and what each strategy looks at.

Drawn from the curves in networks/, which `make networks` trains.
"""

from shared.networks import at, best_previous

from toymodel import plotting
from toymodel.network.curves import band, crossing, curves, curves_there, landmarks, last, seeds_of, spread

CUT = {
    ("icl", "previous"): ("icl", "icl, not to the exemplar before"),
    ("flip", "previous"): ("loss", "flip, the same"),
}
CUT |= {("ciwl", "previous"): ("ciwl", "ciwl, the same"), ("ciwl", "own"): ("other", "ciwl, not to themselves")}
MEASURES = {"copy": "shared", "match": "light", "previous": "icl"}


def measures(of):
    """Copy, match and previous-token attention by seed and step."""
    return {"copy": of["copy"], "match": of.match, "previous": best_previous(of)}


def main() -> None:
    full = curves("transformer_full")
    data = curves_there("transformer_icl_only").get("transformer_icl_only")
    unit = float(landmarks(full).emergence.median())
    fig, (one, other, cut) = plotting.new(1, 3, 7.4, 2.7)
    largest = {name: float(values.max()) for name, values in measures(full).items()}
    for ax, of, title in ((one, full, "full data"), (other, data, "ICL-only data")):
        for name, values in measures(of).items():
            band(ax, values / largest[name], of.step / unit, MEASURES[name], label=name)
        band(ax, at(of, "icl"), of.step / unit, "loss", label="icl", ls="--")
        ax.set(title=title, xlabel="time / emergence of ICL", ylabel="size / largest on full data", ylim=(-0.05, 1.6))
    for (evaluator, to), (colour, label) in CUT.items():
        band(cut, full.accuracy_cut.sel(of_cut=evaluator, cut=to), full.step / unit, colour, label=label)
    cut.axhline(0.5, color="0.7", lw=0.7, zorder=0)
    cut.set(title="attention of labels cut", xlabel="time / emergence of ICL", ylabel="accuracy", ylim=(0, 1.03))
    for ax in (one, other):
        ax.legend(fontsize=5.5)
    cut.legend(fontsize=5.5, loc="upper right", bbox_to_anchor=(1, 0.8), handlelength=1)
    plotting.panel_letters((one, other, cut))
    marks, parts, alone = landmarks(full), measures(full), measures(data)
    half = {name: crossing(v, 0.5 * v.max("step")) / marks.emergence for name, v in parts.items()}
    order = "; ".join(f"{name} {spread(when)}" for name, when in half.items())
    without = {key: last(full.accuracy_cut.sel(of_cut=key[0], cut=key[1], drop=True)) for key in CUT}
    plain = {name: last(at(full, name)) for name in ("icl", "ciwl")}
    assert (parts["match"].max("step") > 0.1).all() and (without["icl", "previous"] < 0.6).all()
    caption = f"""Parts of induction in the transformer, {seeds_of(full)}. (a) Full data: copy (by how many
    deviations attention to a label raises its own logit above those of other labels), match (how much more the
    query attends to the right label where in layer 1 all attention of label tokens is on the exemplar before them),
    attention to the previous token in the best head; each over its largest. Half of it is reached at, over the
    emergence of ICL: {order}. (b) ICL-only data: largest match {spread(alone["match"].max("step"))}, against
    {spread(parts["match"].max("step"))} on full data; largest attention to the previous token
    {spread(alone["previous"].max("step"))}, against {spread(parts["previous"].max("step"))}; copy
    {spread(alone["copy"].max("step"))}, against {spread(parts["copy"].max("step"))}. (c) Accuracy where label
    tokens may not look at the exemplar before them, or not at themselves, in layer 1. At the end of training: icl
    {spread(without["icl", "previous"])} without the exemplar before (with it {spread(plain["icl"])}); ciwl
    {spread(without["ciwl", "previous"])} without it and {spread(without["ciwl", "own"])} without themselves (with
    both {spread(plain["ciwl"])})."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
