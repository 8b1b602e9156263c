"""The commands `toymodel sweep` and `toymodel plot`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from toymodel.model import Model
    from toymodel.sweeps.declare import Sweep


PRESETS = ("coopetition", "induction", "long_pathway", "shared_encoder")  # of toymodel/presets.py


def sweep(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML file that declares the sweep; options win over it.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(help="What to vary: 'alpha=log(1e-3, 1, 64)', 'lr=[0.5, 1]'; repeat for several."),
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Folder for the result; an unfinished one is continued.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "--preset", help=f"Model: {', '.join(PRESETS)}; or a JSON file that Model.to_json wrote."
        ),
    ] = None,
    dims: Annotated[str | None, typer.Option(help="Numbers of entries of its vectors, such as 20,20,20,160.")] = None,
    loss: Annotated[
        str | None, typer.Option(help='Another loss of the same terms, such as "icl + ciwl + beta * cost".')
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", "--seed", help="Seeds of the start: 7, 0:4 (0, 1, 2, 3), or 1,5,9.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each run [default: 16000].")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A value for all runs, NAME=VALUE; repeat for several.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Start: paper, random or aligned [default: paper].")] = None,
    lr: Annotated[float | None, typer.Option(help="Step size [default: 1].")] = None,
    integrator: Annotated[
        str | None, typer.Option(help="descent, or flow until steps x lr [default: descent].")
    ] = None,
    intervene: Annotated[
        list[str] | None,
        typer.Option(help="An intervention, 'Clamp(\"d\", overlap=0, residual=0)'; repeat for several."),
    ] = None,
    design: Annotated[
        str | None, typer.Option(help="Random points in the ranges instead of all: \"samples(1024, 'sobol')\".")
    ] = None,
    stop_below: Annotated[float | None, typer.Option(help="End a run when its loss is below this.")] = None,
    every: Annotated[int | None, typer.Option(help="Also keep the losses each so many steps.")] = None,
    rtol: Annotated[float | None, typer.Option(help="Tolerance of a flow [default: 1e-6].")] = None,
    chunk: Annotated[int | None, typer.Option(help="Runs that are computed and written together.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler whose workers compute.")] = None,
) -> None:
    """Run a sweep and write its measures, chunk by chunk, to a store. The same command continues after a stop.

    Example: toymodel sweep --over "alpha=log(1e-3, 1, 64)" --over "mu_icl=log(1e-3, 1, 64)" --seeds 0:4 --store a.zarr
    """
    swept, fixed = dict(map(_named, over or [])), {n: _number("set", n, v) for n, v in map(_named, set_ or [])}
    needed = {} if loss is None else {**dict.fromkeys(swept, 1.0), **fixed}
    if file is not None and model is None and (dims is not None or loss is not None):
        raise ValueError(f"--dims and --loss change the model that --model gives; that of {file} is changed in it")
    other = any(option is not None for option in (model, dims, loss))
    chosen = model_named(model or "coopetition", dims, loss, needed) if other else None
    given = dict(
        model=chosen, over=swept, seeds=seeds, steps=steps, start=start, lr=lr, integrator=integrator,
        interventions=intervene, fixed=fixed, design=design, stop_below=stop_below, every=every, rtol=rtol, chunk=chunk,
    )  # fmt: skip
    declared, written = declared_by(file, given)
    target = store if store is not None else written
    if target is None:
        raise ValueError("give a folder for the result: --store NAME.zarr (or `store` in the file)")
    from toymodel.sweeps.execute import execute

    result = execute(declared, target, client=scheduler)
    typer.echo(f"{target} is complete: {dict(result.sizes)}")


def declared_by(file: Path | None, given: dict[str, Any]) -> tuple[Sweep, str | None]:
    """The sweep of a TOML file with the options that are given (not None, not empty) in place of its entries."""
    from toymodel.checks import mapping
    from toymodel.sweeps.declare import Sweep, read_toml

    parts, store = ({"model": model_named("coopetition"), "over": {}}, None) if file is None else read_toml(file)
    for name, value in given.items():
        if name in ("over", "fixed"):
            parts[name] = {**mapping(name, parts.get(name)), **value}
        elif value is not None and value != []:
            parts[name] = value
    return Sweep(**parts), store


def plot(
    store: Annotated[Path, typer.Argument(help="A store that `toymodel sweep` wrote.")],
    x: Annotated[str, typer.Option(help="Dimension on the horizontal axis.")],
    out: Annotated[Path, typer.Option(help="File for the plot: .png, .pdf or .svg.")],
    y: Annotated[str | None, typer.Option(help="Dimension on the vertical axis (phase, heat).")] = None,
    kind: Annotated[
        str, typer.Option(help="phase, heat, slice (median and quartiles) or seeds (every run).")
    ] = "phase",
    measure: Annotated[str, typer.Option(help="emergence, lifetime, minimum, bump, ... (not for phase).")] = "lifetime",
    mechanism: Annotated[str, typer.Option(help="Whose measure.")] = "icl",
    at: Annotated[
        list[str] | None, typer.Option(help="Where to cut another dimension, NAME=VALUE (the nearest value there is).")
    ] = None,
    theory: Annotated[bool, typer.Option("--theory", help="Also draw what theory says in the plane.")] = False,
    title: Annotated[str | None, typer.Option(help="Title [default: the values of --at].")] = None,
    cmap: Annotated[str | None, typer.Option(help="Colour map of matplotlib, for heat.")] = None,
    vmin: Annotated[float | None, typer.Option(help="Value of the first colour, for heat.")] = None,
    vmax: Annotated[float | None, typer.Option(help="Value of the last colour, for heat.")] = None,
    xlim: Annotated[tuple[float, float] | None, typer.Option(help="Ends of the horizontal axis.")] = None,
    ylim: Annotated[tuple[float, float] | None, typer.Option(help="Ends of the vertical axis.")] = None,
    figsize: Annotated[tuple[float, float], typer.Option(help="Width and height in inches.")] = (4.5, 3.5),
) -> None:
    """Plot the measures of a sweep: phase diagrams, slices, distributions over seeds.

    Only seeds are pooled, by their median; a lifetime that has not ended at the end of its run counts as longer than
    all that have. With --y, a slice has one line for each value of it.

    Example: toymodel plot a.zarr --x alpha --y mu_icl --kind heat --measure lifetime --out lifetime.png
    """
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"out must end in .png, .pdf or .svg, got {out.name!r}")
    from toymodel.sweeps import plots
    from toymodel.sweeps.store import open_sweep

    where = {name: _number("at", name, value) for name, value in map(_named, at or [])}
    given = dict(title=title, cmap=cmap, vmin=vmin, vmax=vmax, xlim=xlim, ylim=ylim)
    style = {name: value for name, value in given.items() if value is not None}
    runs = open_sweep(store)
    typer.echo(f"wrote {plots.plot(runs, out, x, y, kind, measure, mechanism, where, theory, figsize, **style)}")


def model_named(
    name: str, dims: str | None = None, loss: str | None = None, given: Mapping[str, float] | None = None
) -> Model:
    """The model of a preset or of a JSON file, with these dimensions, loss and parameters.

    given: values of parameters; with another loss, those that it does not use are left out.
    """
    of_file = name.endswith(".json")
    if name not in PRESETS and not of_file:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {name!r}")
    if dims is not None and not re.fullmatch(r"\d+(,\d+)*", dims):
        raise ValueError(f"--dims must be whole numbers, such as 20,20,20,160, got {dims!r}")
    if dims is not None and of_file:
        raise ValueError("--dims is for presets; those of a model in a JSON file stand in it")
    from toymodel import presets
    from toymodel.expression import read
    from toymodel.model import Model

    own: dict[str, Any] = {} if dims is None else {"dims": [int(n) for n in dims.split(",")]}
    model = Model.from_json(Path(name).read_text()) if of_file else getattr(presets, name)(**own)
    known = {**model.parameters, **(given or {})}
    if loss is None:
        return model.with_parameters(**known)
    names = set(read(loss).names) - set(model.terms)
    if missing := sorted(names - set(known)):
        raise ValueError(f"the loss has the parameter {missing[0]!r}: give it a value with --set {missing[0]}=VALUE")
    parameters = {p: value for p, value in known.items() if p in names}
    return Model.from_expression(loss, model.mechanisms, model.dims, costs=model.costs, parameters=parameters)


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"expected NAME=VALUE, got {text!r}")
    return name.strip(), value.strip()


def _number(option: str, name: str, text: str) -> float:
    try:
        return float(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError):
        raise ValueError(f"--{option} {name} needs a number, got {text!r}") from None
