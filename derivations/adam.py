"""Sign descent and Adam: the course of the overlaps in closed form, and what steps of one size undo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sympy as sp
import xarray as xr
from page import Page
from scipy.optimize import brentq

from toymodel import plotting
from toymodel.measures import LEARNED
from toymodel.presets import coopetition
from toymodel.reduction import reduced_loss, symbols

C = sp.Symbol("c", positive=True)  # entries of the target smaller than c, in its standard deviation, have arrived
Z = sp.Symbol("z", positive=True)
DENSITY = sp.sqrt(2 / sp.pi) * sp.exp(-(Z**2) / 2)  # of the size of a normal entry
MET = sp.erf(C / sp.sqrt(2))
SIZE = sp.erf(C / sp.sqrt(2)) - 2 * C * sp.exp(-(C**2) / 2) / sp.sqrt(2 * sp.pi) + C**2 * sp.erfc(C / sp.sqrt(2))
AIM = (MET / SIZE) ** sp.Rational(2, 3)  # q: where an entry is drawn to, in units of its target
TIME = C * AIM  # step size x steps, in standard deviations of the target's entries
OVERLAP = AIM * MET  # of every vector, in units of its target's norm
MEASURED = ("icl", "ciwl", "icl_first", "emerge")
DATA = Path(__file__).parent.parent / "figures" / "data" / "theory_adam.nc"


def emergence() -> float:
    """The time at which a mechanism of three vectors is learned: its loss is below half of the unlearned one."""
    needed = (1 - np.sqrt(LEARNED)) ** (1 / 3)
    overlap, time = (sp.lambdify(C, sp.N(e), "scipy") for e in (OVERLAP, TIME))
    return float(time(brentq(lambda c: overlap(c) - needed, 0.01, 20)))


def build() -> Page:
    page = Page(
        __file__,
        "Sign descent and Adam",
        [
            "Targets with normal entries, many of them; every vector has its own.",
            "The start is small against the targets.",
            "No cost: $\\alpha=0$. The last section measures what it changes.",
            "An entry that has arrived at what it is drawn to stays there.",
        ],
    )
    page.section("Statement")
    page.text(
        r"""Under sign descent every entry of every vector moves by the step size $\eta$, whatever its gradient. From a
        small start the overlap of each vector with its target then follows one curve without parameters,
        $|u|/|x^*|=f(\eta t)$, with time in units of the target's standard deviation. It does not depend on the
        start, on the number of entries, on the weights or on $\mu$. ICL and CIWL are learned at the same time, and
        chance decides which one is first. A target of d that is twice as large makes ICL first. Adam is the same with
        a step that is at most a few times larger."""
    )
    page.section("What an entry is drawn to")
    page.text(
        r"""The gradient of a mechanism with respect to $a$ is, from the reduced loss, a multiple of
        $|b|^2|c|^2\,a-(b\cdot b^*)(c\cdot c^*)\,a^*$:"""
    )
    form = coopetition().form
    planes, weights, parameters = symbols(form)
    loss = sp.sympify(reduced_loss(form, planes, weights, parameters))
    loss = loss.subs({parameters["alpha"]: 0})
    u, v, target = planes["a"][:3]
    only = sp.diff(loss, u).subs({planes["d"][0]: 0, planes["d"][1]: 0})
    ratio = sp.Integer(1)
    for x in "bc":
        ux, vx, tx = planes[x][:3]
        ratio *= ux * tx / (ux**2 + vx**2)
    page.check(
        "the slope in $u_a$ vanishes at $u_a=|a^*|\\,q$, $q=\\rho_b\\rho_c$, $\\rho_x=x\\cdot x^*/|x|^2$",
        only.subs(u, ratio * target) + 1,
        sp.Integer(1),
    )
    page.check("and that in $v_a$ at $v_a=0$", sp.diff(loss, v).subs(v, 0) + 1, sp.Integer(1))
    page.text(
        r"""So the entry $i$ of $a$ is drawn to $q\,a^*_i$. The same holds for $d$, and for $b$ and $c$ in both
        mechanisms. All vectors start alike and stay alike: $q=\rho^2$, and an entry is $\min(\eta t,\,q|z|)$ in size,
        where $z$ is its target in standard deviations. At first $q$ is large and no entry has arrived."""
    )
    page.section("The course")
    page.text(r"With $c=\eta t/q$, the entries with $|z|<c$ have arrived. The two means that $\rho$ needs are closed:")
    first = sp.integrate(Z**2 * DENSITY, (Z, 0, C)) + C * sp.integrate(Z * DENSITY, (Z, C, sp.oo))
    second = sp.integrate(Z**2 * DENSITY, (Z, 0, C)) + C**2 * sp.integrate(DENSITY, (Z, C, sp.oo))
    page.equation(r"E\,|z|\min(c,|z|)", MET)
    page.check("this mean", first, MET)
    page.equation(
        r"M(c)=E\min(c,|z|)^2", sp.Symbol(r"\mathrm{erf}(c/\sqrt2)-2c\,\varphi(c)+c^2\,\mathrm{erfc}(c/\sqrt2)")
    )
    page.check("and this one", second, SIZE)
    page.text(r"$\rho=E[zx]/E[x^2]$ with $x=q\min(c,|z|)$ and $q=\rho^2$ give the course with $c$ as its parameter:")
    page.equation(
        r"q",
        r"\Big(\frac{\mathrm{erf}(c/\sqrt2)}{M(c)}\Big)^{2/3},\quad \eta t=cq,"
        r"\quad \frac{u}{|x^*|}=q\,\mathrm{erf}(c/\sqrt2)",
    )
    rho = AIM * MET / (AIM**2 * SIZE)
    page.check("it is self-consistent", rho**2, AIM)
    page.limit("at first $u/|x^*| = \\sqrt{2/\\pi}\\,\\eta t$", OVERLAP / TIME, C, sp.sqrt(2 / sp.pi))
    time, aligned = emergence(), (1 - np.sqrt(LEARNED)) ** (1 / 3)
    page.text(
        f"""A mechanism of three vectors is learned when $(u/|x^*|)^3=1-1/\\sqrt2$, at $\\eta t={time:.3f}$ standard
        deviations of the target. Where all entries of the targets are equal in size and the start lies along them, no
        integral is needed: $u/|x^*|=\\eta t$ exactly until the target is reached, sign descent closes on one number a
        vector, and the time is {aligned:.3f}. In any other case it does not close on $u$ and $v$: the
        direction of what is learned turns from the signs of the target to the target."""
    )
    page.section("The population, followed")
    page.text(
        """Assumption 4 is not exact: the place that small entries are drawn to falls faster than they can follow. A
        population of 2,000 entries at the quantiles of a normal, stepped with its own q, says what that does."""
    )
    followed = population()
    page.claim(f"the population needs {followed:.3f}, within 1 % of {time:.3f}", abs(followed / time - 1) < 0.01)
    page.section("Simulations")
    with xr.open_dataset(page.uses(DATA), engine="h5netcdf") as opened:
        found = opened.load()
    page.text(
        rf"""All 220 entries of the published model, {found.seeds} starts, medians of $\eta t$. Starts of scale 1 are
        the paper's. "ICL first" is the share of those runs in which ICL comes by $\eta t=4$ (1.5 from small starts).
        `tm.descend_vectors(optimiser=...)`, `benchmarks/theory_adam.py`."""
    )
    page.lines(table(found))

    def of(**chosen: float | str) -> xr.Dataset:
        keep = np.logical_and.reduce([found[name].values == value for name, value in chosen.items()])
        return found.isel(case=np.flatnonzero(keep))

    small = of(rule="sign", scale=0.01, alpha_of=0)
    times = [float(small[m][0]) for m in ("icl", "ciwl")]
    page.claim(
        f"from small starts without a cost the two mechanisms need {times[0]:.3f} and {times[1]:.3f}, within "
        f"5 % of {time:.3f}",
        all(abs(each / time - 1) < 0.05 for each in times),
    )
    larger = of(larger=2.0).icl_first.values
    page.claim(
        f"with a target of d twice as large ICL is first in {larger.min():.0%} of runs or more in which it comes",
        bool(larger.min() > 0.9),
    )
    chance = of(scale=1.0, larger=1.0).icl_first.values
    page.claim(
        f"from the paper's starts ICL is first in {chance.min():.0%} to {chance.max():.0%} of runs, and by gradient "
        f"descent in {found.first_by_gradient:.0%} of those that learn it",
        bool(chance.max() < 0.8 < found.first_by_gradient),
    )
    adam = of(rule="adam", scale=0.01)
    each = ", ".join(f"{t:.2f} at {lr:g}" for t, lr in zip(adam.icl.values, adam.rate.values, strict=True))
    page.claim(
        f"Adam needs {each}: from the rate at which learning takes a thousand steps on, the smaller the rate, the "
        f"nearer to the {time:.2f} of sign descent",
        bool((np.diff(adam.icl.values[2:]) > 0).all() and adam.icl.values.max() < time),
    )
    page.text(
        r"""Adam divides by the root of the mean square of the last $1/(1-\beta_2)=1000$ gradients. Where learning takes
        fewer steps, it divides by smaller, older gradients, and its step is larger than $\eta$: by $\sqrt{2k+1}$ for a
        gradient that grows as $t^k$. Where learning takes many more steps, it is sign descent."""
    )
    page.section("The plateau on data that only ICL can solve")
    alone = found.plateau
    page.text(
        """In the paper's networks ICL-only data have a long plateau, at small rates. In the toy the law above has no
        room for one, for the time does not depend on the other mechanism. With noise in the gradient Adam's step is
        small where the gradient is below the noise, so that growth counts again. The table holds the time of ICL with
        the gradient of CIWL blocked, over that with both, for dims (10, 10, 10, 40) and standard normal starts, by rate
        (rows) and noise (columns):"""
    )
    page.lines(plateau_table(alone))
    page.claim(
        f"without noise this ratio is {alone.sel(noise=0).min():.2f} to {alone.sel(noise=0).max():.2f}; with noise it "
        f"grows as the rate falls, to {alone.isel(noise=-1, lr=-1):.2f}",
        bool(alone.max() < 2) and bool(alone.isel(noise=-1, lr=-1) > alone.isel(noise=-1, lr=0)),
    )
    page.text(
        """So the direction of the paper's law is there with noise, and its size is not: the toy under Adam does not
        explain a plateau of more than 20 emergences. A model in which ICL needs the parts that CIWL builds does
        ([the shared encoder](cooperation.md)), and so does a network ([attention](attention.md))."""
    )
    page.figure(
        draw(found),
        "The overlap of every vector with its target under sign descent from a small start: closed form, and "
        "all entries of the published model without a cost (lines: vectors of 4 starts).",
    )
    page.section("What is new and what is textbook")
    page.text(
        """That Adam without noise is close to sign descent is textbook. The closed course, and that neither the start
        nor the numbers of entries matter, are new here. So the order of the strategies in the published model is a
        property of gradient descent: the 160 entries of d, which make CIWL slow, do nothing under Adam."""
    )
    return page


def population(entries: int = 4_001, eta: float = 1e-3) -> float:
    """The time at which a population that is stepped with its own q has learned."""
    z = sp.lambdify(C, sp.sqrt(2) * sp.erfinv(C), "scipy")((np.arange(entries // 2) + 0.5) / (entries // 2))
    x, time = np.full_like(z, eta), eta
    while ((x * z).mean() / (z * z).mean()) ** 3 < 1 - np.sqrt(LEARNED):
        aim = ((x * z).sum() / (x * x).sum()) ** 2
        x, time = x + eta * np.sign(z * aim - x), time + eta
    return time


def table(found: xr.Dataset) -> str:
    head = (
        "| rule | rate | scale of the start | alpha | target of d | entries of d | ICL | CIWL | ICL first | ICL comes |"
    )
    lines = [head, "|---" * 10 + "|"]
    for i in range(found.sizes["case"]):
        one = {
            name: found[name].values[i]
            for name in ("rule", "rate", "scale", "alpha_of", "larger", "entries", *MEASURED)
        }
        setting = f"| {one['rule']} | {one['rate']:g} | {one['scale']:g} | {one['alpha_of']:g} | {one['larger']:g} x |"
        setting += f" {one['entries']} |"
        lines.append(f"{setting} {one['icl']:.3f} | {one['ciwl']:.3f} | {one['icl_first']:.0%} | {one['emerge']:.0%} |")
    return "\n".join(lines)


def plateau_table(found: xr.DataArray) -> str:
    head = "| rate | " + " | ".join(f"noise {n:g}" for n in found.noise.values) + " |"
    rows = [f"| {lr:g} | " + " | ".join(f"{r:.2f}" for r in found.sel(lr=lr).values) + " |" for lr in found.lr.values]
    return "\n".join([head, "|---" * (1 + found.sizes["noise"]) + "|", *rows])


def draw(found: xr.Dataset):
    figure, ax = plotting.new(1, 1, 4.2, 2.6)
    for k, x in enumerate("abcd"):
        for i in range(found.sizes["seed"]):
            course = found.course.values[:, i, k]
            ax.plot(found.time, course, color=plotting.VECTORS[x], lw=0.7, label=x if i == 0 else None)
    cs = np.geomspace(1e-3, 6, 400)
    time, overlap = (sp.lambdify(C, sp.N(e), "scipy")(cs) for e in (TIME, OVERLAP))
    ax.plot(time, overlap, color=plotting.COLOURS["loss"], ls="--", label="closed form")
    ax.set(xlabel="step size x steps", ylabel="overlap / norm of the target", xlim=(0, 1.5), ylim=(0, None))
    ax.legend()
    return figure


if __name__ == "__main__":
    build().write()
