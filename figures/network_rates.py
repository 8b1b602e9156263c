"""The learning rate: full data and ICL-only data at four rates, in time = steps x rate.

Drawn from the curves in networks/, which `make networks` trains.
"""

from shared.compared import first, markdown
from shared.networks import at

from toymodel import plotting
from toymodel.network.curves import curves_there, landmarks
from toymodel.network.experiments import RATES, TRANSFORMER

BASE = TRANSFORMER.rule.rate
SHADES = ("0.75", "0.55", "0.3", "0.0")  # from the highest rate to the lowest


def of_rate(kind: str, rate: float) -> str:
    """The name of an experiment at a rate."""
    return f"transformer_{kind}" if rate == BASE else f"transformer_{kind}_rate_{rate:g}"


def main() -> None:
    rates = sorted((*RATES, BASE), reverse=True)
    names = {of_rate(kind, rate): (kind, rate) for kind in ("full", "icl_only") for rate in rates}
    there = {names[name]: of for name, of in curves_there(*names).items()}
    fig, (full, alone, law) = plotting.new(1, 3, 7.4, 2.7)
    rows, never, times = [], {"full": [], "icl_only": []}, []
    for rate, shade in zip(rates, SHADES, strict=True):
        cells = [f"{rate:g}"]
        for ax, kind, evaluator in ((full, "full", "flip"), (alone, "icl_only", "icl")):
            if (kind, rate) not in there:
                cells += ["not trained"] * (3 if kind == "full" else 1)
                continue
            of = there[kind, rate]
            lines = ax.plot(of.step * rate, at(of, evaluator).transpose("step", "seed"), color=shade, lw=0.9)
            lines[0].set_label(f"rate {rate:g}")
            marks, when = landmarks(of), first(at(of, "icl")) * rate
            if kind == "full":
                cells.append(", ".join(f"{x:.2f}" for x in marks.peak.values))
                cells.append(", ".join(f"{x:.1f}" for x in marks.ratio.dropna("seed").values))
                times += when.dropna("seed").values.tolist()
            end = float(of.step[-1] * rate)
            late = int(when.isnull().sum())
            cells.append(", ".join(f"> {end:.2g}" if x != x else f"{x:.2f}" for x in when.values))
            colour = plotting.COLOURS["icl" if kind == "full" else "loss"]
            law.plot([rate] * when.size, when.fillna(end), "o", color=colour, ms=4, mfc="none", zorder=2)
            if late:
                law.plot(rate, end, "^", color=colour, ms=7, zorder=3)
                never[kind].append(f"{late} of {when.size} seeds at {rate:g}")
        rows.append(cells)
    for kind, label in (("icl", "full data"), ("loss", "ICL-only data")):
        law.plot([], [], "o", color=plotting.COLOURS[kind], ms=4, mfc="none", label=label)
    law.plot([], [], "^", color=plotting.COLOURS["loss"], ms=7, label="not by then")
    full.set(title="full data", ylabel="flip", ylim=(0, 1.03), xlim=(0, 8))
    alone.set(title="ICL-only data", ylabel="icl", ylim=(0.4, 1.03), xlim=(0, 6.5))
    for ax in (full, alone):
        ax.set_xlabel("time = steps x rate")
        ax.axhline(0.5, color="0.7", lw=0.7, zorder=0)
    law.set(xscale="log", yscale="log", xlabel="rate", ylabel="time of icl 0.75", xlim=(4e-5, 5e-4), ylim=(0.4, 8))
    law.set_xticks(rates, [f"{rate:g}" for rate in rates])
    law.set_yticks((0.5, 1, 2, 4), ("0.5", "1", "2", "4"))
    law.minorticks_off()
    full.legend(fontsize=6)
    law.legend(fontsize=6, loc="lower right")
    plotting.panel_letters((full, alone, law))
    head = ["rate", "highest flip, by seed", "end / emergence", "time of icl 0.75", "that on ICL-only data"]
    assert max(times) < 2 * min(times)  # of full data: the time does not depend on the rate
    caption = f"""The learning rate, each line a seed. (a) Flip on full data, (b) icl on ICL-only data, over
    time = steps x rate. (c) When icl passes 0.75; a triangle where a seed does not by the end. On
    full data it does at {min(times):.2f} to {max(times):.2f}, at whatever rate: the emergence scales as 1 / rate. It
    does not come on full data in {", ".join(never["full"]) or "no seed"}, on ICL-only data in
    {", ".join(never["icl_only"])}."""
    plotting.finish(__file__, fig, caption, markdown([head, ["---"] * 5, *rows]))


if __name__ == "__main__":
    main()
