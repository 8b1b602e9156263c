"""What is run: every experiment as data, by name.

An experiment says which network sees which sequences for how many steps and from how many seeds. It may start from
what another one had at a certain step (`start`, with or without the optimiser's memory), and it may hold weights at
those of another one (`held`), parts at zero (`ablated`), or forbid label tokens to look at some tokens (`forbidden`):
so every experiment of the paper on cooperation and competition is one line here.

    full              all strategies solve the task: emergence and transience of ICL
    matched           the query is the very exemplar that stands in context
    icl_only          labels drawn anew in each sequence, so that only ICL solves the task
    ciwl_only         exemplars of other classes in context, so that only CIWL solves the task
    icl_given_N       ICL-only data, second half held at that of ciwl_only at step N (_end: of full)
    full_from_N       full data, started from ciwl_only at step N (_memory: with the moments of Adam)
    full_given_layerN full data, layer N held at that of the end of full
    icl_blocked       full data, label tokens do not look at the exemplar before them
    ciwl_blocked      full data: label tokens do not look at themselves (in the disentangled network: their codes M are
                      held at zero)
    heads_ablated     full data, without the heads 1, 4 and 7 of layer 1
    sinusoidal, rotary, one_layer, mlp          full data, the network as named
    noise_X, classes_K, exemplars_N, full_rate_R  full data with another within-class variation, number of classes, of
                      exemplars a class, or rate (icl_only_rate_R: ICL-only data)

Names of experiments with the small network begin with `disentangled_`, those of the others with `transformer_`.
"""

from dataclasses import dataclass, replace
from typing import Any

from toymodel.network.data import Classes, GaussianClasses, Sequences
from toymodel.network.tap import FORBIDDEN
from toymodel.network.training import Rule

SECOND_HALF = {
    "disentangled": ("weights.W", "weights.g"),
    "transformer": ("weights.layer2.*", "weights.final.*", "weights.read_out*"),
}


@dataclass(frozen=True)
class Weights:
    """Weights that match `at` as another experiment had them at a step, seed by seed."""

    source: str
    step: int
    at: tuple[str, ...] = ("weights.*",)
    memory: bool = False  # of the optimiser, too


@dataclass(frozen=True)
class Experiment:
    """One network, one kind of data, one training."""

    name: str
    network: str
    classes: Classes
    rule: Rule
    steps: int
    every: int  # steps between evaluations
    seeds: int = 5
    keep: tuple[int, ...] = ()  # steps whose weights others start from
    start: Weights | None = None
    held: Weights | None = None
    ablated: tuple[str, ...] = ()  # patterns of what is held at zero; "layer1.heads:0,3" for some heads
    forbidden: tuple[str, ...] = ()  # what label tokens may not look at in layer 1: "previous", "own"
    options: tuple[tuple[str, float | str], ...] = ()  # of the network

    def __post_init__(self) -> None:
        if self.network not in SECOND_HALF:
            raise ValueError(f"network must be one of {sorted(SECOND_HALF)}, got {self.network!r}")
        if self.every < 1 or self.steps < 1 or self.steps % self.every:
            raise ValueError(f"steps must be a multiple of every, got {self.steps} and {self.every}")
        if wrong := [to for to in self.forbidden if to not in FORBIDDEN]:
            raise ValueError(f"forbidden must be some of {sorted(FORBIDDEN)}, got {wrong}")
        if wrong := [step for step in self.keep if step % self.every or not 0 <= step <= self.steps]:
            raise ValueError(f"keep must be multiples of every = {self.every} up to steps = {self.steps}, got {wrong}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        if self.name in (w.source for w in self.sources()):
            raise ValueError(f"source must be another experiment, got {self.name!r} for itself")

    def sources(self) -> tuple[Weights, ...]:
        """What it needs of other experiments."""
        return tuple(w for w in (self.start, self.held) if w is not None)

    def ablations(self) -> list[tuple[str, tuple[int, ...] | None]]:
        """The patterns of what is held at zero, each with its heads (None: all)."""
        split = [at.partition(":") for at in self.ablated]
        return [(at, tuple(map(int, heads.split(","))) if heads else None) for at, _, heads in split]

    def on(self, name: str, kind: str = "full", matched: bool = False, **changes: Any) -> "Experiment":
        """The same with other sequences, and whatever else changes."""
        rule = replace(self.rule, sequences=replace(self.rule.sequences, kind=kind, matched=matched))
        changes = {"keep": (), "rule": rule} | changes
        return replace(self, name=f"{self.network}_{name}", **changes)


def of_full(
    full: Experiment, times: tuple[int, ...], steps: dict[str, int], seeds: int, given_every: int
) -> list[Experiment]:
    """The experiments around one network on full data; `times` are those of ciwl_only that others start from, and
    icl_given_end, which may be quick, is evaluated each `given_every` steps."""
    network = full.network
    half = SECOND_HALF[network]
    ciwl = full.on("ciwl_only", "ciwl", steps=max(times), keep=times, seeds=seeds)
    end = Weights(full.name, full.steps, half)
    return [
        full,
        full.on("matched", matched=True, seeds=5, steps=steps["matched"]),
        full.on("icl_given_end", "icl", steps=steps["given"], every=given_every, seeds=5, held=end),
        full.on("icl_only", "icl", steps=steps["icl_only"], seeds=5),
        ciwl,
        *(
            full.on(f"icl_given_{t}", "icl", steps=steps["window"], seeds=seeds, held=Weights(ciwl.name, t, half))
            for t in times
        ),
        *(
            full.on(f"full_from_{t}", steps=steps["from"], seeds=seeds, start=Weights(ciwl.name, t))
            for t in times
        ),
    ]  # fmt: skip


DISENTANGLED = Experiment(
    name="disentangled_full",
    network="disentangled",
    classes=GaussianClasses(classes=3000, features=32, noise=1.2, norm=1.0),
    rule=Rule(  # no bias for a position
        Sequences(), optimiser="sgd", rate=0.1, factors=(("weights.t", 0.0),), evaluation_batch=256
    ),
    steps=8000,
    every=100,
    seeds=20,
    keep=tuple(range(0, 8001, 400)),
)
BARRIER = replace(  # the barrier that ICL has to pass is higher and CIWL slower: here it matters what ICL is given
    DISENTANGLED,
    name="disentangled_barrier",
    rule=replace(DISENTANGLED.rule, factors=(("weights.t", 0.0), ("weights.M", 0.04))),
    steps=12_000,
    seeds=5,
    options=(("barrier", 4.0),),
    keep=(12_000,),
)
TRANSFORMER = Experiment(
    name="transformer_full",
    network="transformer",
    classes=GaussianClasses(classes=12_800, exemplars=20, features=64, noise=0.72, mean=1.5, spectrum=1.0),
    rule=Rule(Sequences(), rate=1e-4, batch=32, evaluation_batch=256),
    steps=80_000,
    every=1000,
    keep=tuple(range(0, 80_001, 4000)),
)
# steps of CIWL-only runs, of which others take the second half (for ICL-only data) or all (to go on from); in units of
# the emergence of ICL, about 10,500 steps, they lie where the paper's do
WINDOW = (12_000, 24_000, 36_000, 64_000)
SWITCH = (8000, 12_000, 20_000)
RATES = (4e-4, 2e-4, 5e-5)  # beside that of TRANSFORMER
THREE: dict[str, Any] = {"steps": 56_000, "seeds": 3}


def of_transformer() -> list[Experiment]:
    """The experiments around the paper's network, the most important first."""
    full, half = TRANSFORMER, SECOND_HALF["transformer"]
    end, rule = Weights(full.name, full.steps, half), full.rule
    ciwl = full.on("ciwl_only", "ciwl", steps=max(WINDOW), keep=tuple(sorted({*WINDOW, *SWITCH})), seeds=3)

    window: dict[str, Any] = {**THREE, "steps": 32_000}
    shorter: dict[str, Any] = {**THREE, "steps": 36_000}  # where ICL has emerged by then, or does not

    def options(**named: float | str) -> dict[str, Any]:
        return {"options": tuple(named.items()), **shorter}

    def classes(**changes: Any) -> dict[str, Any]:
        return {"classes": replace(full.classes, **changes), **shorter}

    def rated(name: str, rate: float, kind: str, steps: int) -> Experiment:
        slower = round(steps * rule.rate / rate / 1000) * 1000
        at = full.on(f"{name}_{rate:g}", kind, steps=slower, every=round(500 * rule.rate / rate), seeds=3)
        return replace(at, rule=replace(at.rule, rate=rate))

    return [
        full,
        full.on("icl_only", "icl", steps=64_000),
        full.on("icl_given_end", "icl", steps=24_000, every=500, held=end),
        full.on("matched", matched=True, steps=24_000, seeds=3),
        full.on("icl_blocked", forbidden=("previous",), **shorter),
        full.on("ciwl_blocked", forbidden=("own",), **shorter),
        full.on("one_layer", **options(layers=1)),
        full.on("sinusoidal", **options(positions="sinusoidal")),
        full.on("rotary", **options(positions="rotary")),
        full.on("classes_1600", **classes(classes=1600)),
        full.on("exemplars_5", **classes(exemplars=5)),
        full.on("mlp", **(options(mlp=4) | THREE)),
        ciwl,
        *(full.on(f"icl_given_{t}", "icl", held=Weights(ciwl.name, t, half), **window) for t in WINDOW),
        *(full.on(f"full_from_{t}", start=Weights(ciwl.name, t), **THREE) for t in SWITCH),
        *(full.on(f"full_from_{t}_memory", start=Weights(ciwl.name, t, memory=True), **THREE) for t in SWITCH[1:2]),
        *(rated("full_rate", rate, "full", 24_000) for rate in RATES),
        *(rated("icl_only_rate", rate, "icl", 64_000) for rate in RATES),
        *(full.on(f"noise_{noise}", **(classes(noise=noise) | THREE)) for noise in (0.7, 0.75)),
        full.on("heads_ablated", ablated=("layer1.heads:1,4,7",), **shorter),
        full.on("full_given_layer1_end", held=Weights(full.name, full.steps, ("weights.layer1.*",)), **THREE),
        full.on("full_given_layer2_end", held=Weights(full.name, full.steps, ("weights.layer2.*",)), **THREE),
    ]  # fmt: skip


def all_experiments() -> dict[str, Experiment]:
    """Every experiment by its name, each after those that it needs."""
    small = of_full(
        DISENTANGLED,
        (100, 200, 400, 800, 1600, 8000),
        dict(matched=8000, given=1000, icl_only=4000, window=4000, **{"from": 6000}),
        seeds=3,
        given_every=10,
    )
    small += [
        BARRIER,
        BARRIER.on("barrier_icl_only", "icl"),
        BARRIER.on("barrier_icl_given_end", "icl", held=Weights(BARRIER.name, 12_000, SECOND_HALF["disentangled"])),
    ]
    blocked: dict[str, Any] = {"ablated": ("weights.M",), "steps": 4000, "seeds": 5}
    small += [DISENTANGLED.on("ciwl_blocked", **blocked), BARRIER.on("barrier_ciwl_blocked", **blocked)]
    for noise in (0.8, 1.0, 1.1, 1.3, 1.4, 1.6):
        classes = replace(DISENTANGLED.classes, noise=noise)
        small.append(DISENTANGLED.on(f"noise_{noise}", classes=classes, seeds=3))
    for number in (1000, 1500, 2000, 4500, 6000):
        classes = replace(DISENTANGLED.classes, classes=number)
        small.append(DISENTANGLED.on(f"classes_{number}", classes=classes, seeds=3))
    return {experiment.name: experiment for experiment in small + of_transformer()}
