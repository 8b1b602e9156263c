"""The toy model of an induction head (arXiv 2404.07129): three vectors, and what clamping them does to the plateau."""

import toymodel as tm
from toymodel import plotting

SEED, STEPS, SCALE, HEADS = 0, 20_000, 0.1, (5, 10, 15)
DARK, *GREENS = ("#00543D", "#93D5BE", "#5FC5A4", "#30B08A")  # towards the colour of the shared vectors


def main() -> None:
    model = tm.induction()
    start = tm.random_start(model, range(12), scale=SCALE)
    runs = {"none": tm.descend(model, start, STEPS)}
    for k in HEADS:
        headed = tm.random_start(model, range(12), scale=SCALE, heads={"c": k})
        runs[f"{k} entries of c"] = tm.descend(model, headed, STEPS, interventions=[tm.Clamp("c", entries=k)])
    runs["c"] = tm.descend(model, start, STEPS, interventions=[tm.Clamp("c")])
    runs["b and c"] = tm.descend(model, start, STEPS, interventions=[tm.Clamp("bc")])
    colours = (plotting.COLOURS["loss"], *GREENS, plotting.COLOURS["shared"], DARK)

    first = {name: tm.measure(run).emergence.sel(mechanism="icl") for name, run in runs.items()}
    shares = {name: run.loss / run.unlearned_icl for name, run in runs.items()}
    drop = {name: tm.first_below(y, 0.1) / tm.first_below(y, 0.9) for name, y in shares.items()}
    assert (first["b and c"] < first["c"]).all() and (first["c"] < first["none"]).all()
    assert (drop["b and c"] > drop["c"]).all() and (drop["c"] > drop["none"]).all()
    middle = {name: float(t.median()) for name, t in first.items()}
    assert list(middle.values()) == sorted(middle.values(), reverse=True)
    slower = first[f"{HEADS[0]} entries of c"] > first["none"]

    fig, (time, shape, seeds) = plotting.new(1, 3, 7.0, 2.7)
    for row, ((name, y), colour) in enumerate(zip(shares.items(), colours, strict=True)):
        one = y.sel(seed=SEED)
        time.plot(one.time[1:], one[1:], color=colour)
        shape.plot(one.time / float(first[name].sel(seed=SEED)), one, color=colour, label=name)
        t = first[name]
        seeds.plot(t, row + (t.seed - 5.5) / 30, "o", ms=2.4, color=colour)
        seeds.plot([middle[name]] * 2, [row - 0.32, row + 0.32], color=colour, lw=1.6)
    plotting.log_time(time)
    time.set(xlim=(1, STEPS), ylim=(0, 1.05), ylabel="loss / unlearned loss", title=f"seed {SEED}")
    shape.set(
        xlim=(0, 3),
        ylim=(0, 1.05),
        xlabel="time / emergence",
        ylabel="loss / unlearned loss",
        title=f"seed {SEED}, rescaled time",
    )
    seeds.set(xscale="log", xlim=(1, STEPS), yticks=range(len(runs)), yticklabels=runs, ylim=(len(runs) - 0.5, -0.5))
    seeds.set(xlabel=plotting.TIME, title="emergence, all seeds", ylabel="clamped")
    shape.legend(title="clamped", loc="upper right")
    plotting.panel_letters((time, shape, seeds))
    factor = middle["none"] / middle["c"], middle["c"] / middle["b and c"]
    caption = f"""The toy model of an induction head, one mechanism of three vectors (dimensions
    {", ".join(map(str, model.dims.values()))}; initial entries {SCALE:g} times those of the targets; descent with step
    1), with vectors or the first entries of c clamped to the target (colours: see b). (a) Seed {SEED}: the plateau
    shortens with each part that is given. (b) The same with time in units of the emergence: with nothing clamped the
    loss drops suddenly (from 90 % to 10 % of its unlearned value within a factor {float(drop["none"].median()):.2f} of
    time, median over seeds), with c clamped less so ({float(drop["c"].median()):.2f}), and with b and c clamped there
    is no plateau ({float(drop["b and c"].median()):.0f}). (c) Emergence (loss below half of its unlearned value) in
    {start.sizes["seed"]} seeds, and its median: {factor[0]:.0f} times sooner with c clamped, and another
    {factor[1]:.0f} times with b and c. Part of c helps in part; in {int(slower.sum())} of {slower.size} seeds a few
    entries ({HEADS[0]}) even delay the drop."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
