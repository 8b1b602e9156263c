"""States of a CIWL-only run, given to ICL-only data (is there a window?) and to full data (does pretraining help?).

Drawn from the curves in networks/, which `make networks` trains; crosses are numbers of the paper (networks/paper/).
"""

import numpy as np
from shared.compared import TAKEN, first
from shared.networks import SYSTEMS, at

from toymodel import plotting
from toymodel.network.curves import curves, curves_there, landmarks, uses_paper
from toymodel.network.paper import paper_number

WINDOW, PEAKS = (4, 8, 9.75, 9.8, 15, 20, 31.5, 32, 64), (0, 4, 5, 6, 7)  # million sequences, as the paper took them
NEVER = 30  # where a seed that never learns ICL is drawn


def main() -> None:
    uses_paper()
    unit = paper_number("flip up through 0.5")
    fig, (window, peaks) = plotting.new(1, 2, 6.4, 2.8)
    late = [paper_number("ICL-only data: ICL at", f"second half of CIWL-only at {t:g} M") / unit for t in WINDOW]
    window.plot(np.array(WINDOW) / unit, np.nan_to_num(late, nan=NEVER), "kx", label="paper")
    highest = [paper_number("full data: peak of flip", f"from CIWL-only at {t:g} M") for t in PEAKS]
    peaks.plot(np.array(PEAKS) / unit, highest, "kx", label="paper")
    said = []
    for network, (title, colour) in SYSTEMS.items():
        full, style = curves(f"{network}_full"), dict(color=plotting.COLOURS[colour], ms=3)
        scale = {"icl": float(first(at(full, "icl")).median()), "flip": float(landmarks(full).emergence.median())}
        names = {f"{network}_{kind}_{t}": (kind, t) for kind, taken in TAKEN[network].items() for t in taken}
        try:
            there = curves_there(*names)
        except FileNotFoundError:
            said.append(f"{title}: not trained")
            continue
        opens, falls, after = [], [], []
        for name, of in there.items():
            kind, taken = names[name]
            if kind == "icl_given":
                when = first(at(of, "icl")) / scale["icl"]
                window.plot(np.full(when.size, taken / scale["icl"]), when.fillna(NEVER), "o", **style)
                opens += [taken / scale["icl"]] if bool(when.notnull().all()) else []
            else:
                peak, marks, whole = at(of, "flip").max("step"), landmarks(of), landmarks(full).sel(seed=of.seed)
                life = float(((marks.gone - marks.emergence) / (whole.gone - whole.emergence)).median())
                after += [f"{taken / scale['flip']:.2g}: {float(peak.median()):.2f} "
                          f"({float(whole.peak.median()):.2f}), {life:.1f}".replace(", nan", "")]  # fmt: skip
                peaks.plot(np.full(peak.size, taken / scale["flip"]), peak, "o", **style)
                falls += [taken / scale["flip"]] if bool((peak < 0.5).all()) else []
        window.plot([], [], "o", label=title, **style)
        said.append(
            f"{title}: ICL in all seeds from {', '.join(f'{x:.2g}' for x in opens) or 'none of the'} emergences"
        )
        said[-1] += f", no ICL in any in full training from {', '.join(f'{x:.2g}' for x in falls) or 'none'}; "
        said[-1] += f"by state, its highest flip (never switched), lifetime over that: {'; '.join(after)}"
    window.axhline(NEVER, color="0.7", lw=0.7, zorder=0)
    window.set(yscale="log", ylim=(1e-2, 60), ylabel="ICL at / emergence (top: never)")
    peaks.axhline(0.5, color="0.7", lw=0.7, zorder=0)
    peaks.set(ylim=(0, 1.03), ylabel="highest flip")
    for ax in (window, peaks):
        ax.set(xscale="symlog", xlim=(-0.1, 40), xlabel="CIWL-only until / emergence of ICL on full data")
    window.legend(fontsize=6)
    plotting.panel_letters((window, peaks))
    assert np.isnan(late[-1]) and np.isfinite(late[4]) and said
    caption = f"""States of a CIWL-only run. (a) ICL-only data with the second half held at that of the CIWL-only
    run at a time: when ICL emerges, over its emergence on full data (top: not in the time that was waited). In the
    paper it emerges for states between about 3 and 10 emergences, and for no later ones: the window closes. (b)
    Full data from such states: highest flip. In the paper a start at 1.2 emergences makes ICL stronger
    ({highest[1]:.2f} against {highest[0]:.2f}), and longer
    ({paper_number("full data: lifetime", "from CIWL-only at 4 M"):.1f} against
    {paper_number("full data: lifetime", "from CIWL-only at 0 M"):.1f} million sequences); from 2.5 on there is
    none. {"; ".join(said)}."""
    plotting.finish(__file__, fig, caption)


if __name__ == "__main__":
    main()
