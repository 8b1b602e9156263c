"""The `toymodel` command: run one simulation, make the figures, look into a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import toymodel as tm
from toymodel.network import cli as network
from toymodel.sweeps import cli as sweeps

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.command()(sweeps.sweep)
app.command()(sweeps.plot)
app.command()(network.train)

PRESETS = {"coopetition": tm.coopetition, "induction": tm.induction, "long_pathway": tm.long_pathway}


@app.command()
def run(
    preset: Annotated[
        str, typer.Option(help="Model: coopetition (the paper's), induction or long_pathway.")
    ] = "coopetition",
    loss: Annotated[
        str | None, typer.Option(help='Another loss of the same terms, such as "icl + ciwl + alpha * cost".')
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the loss, NAME=VALUE; repeat for several.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random initial condition (the paper's draws).")] = 7,
    integrator: Annotated[str, typer.Option(help="descent (steps of --lr) or flow (error control).")] = "descent",
    steps: Annotated[int, typer.Option(help="Number of steps of gradient descent.")] = 16_000,
    lr: Annotated[float, typer.Option(help="Step size of gradient descent; time = steps x step size.")] = 1.0,
    time: Annotated[float, typer.Option(help="Duration of gradient flow, in units of time.")] = 16_000.0,
    every: Annotated[int, typer.Option(help="Record each so many steps.")] = 1,
    clamp: Annotated[
        list[str] | None,
        typer.Option(
            help="Hold a vector: VECTOR (at its target), VECTOR=OVERLAP or VECTOR=OVERLAP,RESIDUAL; @TIME after it."
        ),
    ] = None,
    freeze: Annotated[list[str] | None, typer.Option(help="Hold vectors where they are: VECTORS[@TIME].")] = None,
    block: Annotated[
        list[str] | None, typer.Option(help="Cut the gradient of a term from its vectors: TERM[:VECTORS][@TIME].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the record, NAME.nc.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for a plot of the losses: .png, .pdf or .svg.")] = None,
) -> None:
    """Simulate one run and print its measures; write the record (--out) and a plot of the losses (--plot).

    Example: toymodel run --seed 7 --set alpha=0.1 --clamp d=0 --out run.nc --plot run.png
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    if integrator not in ("descent", "flow"):
        raise ValueError(f"integrator must be descent or flow, got {integrator!r}")
    for path in (out, plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"the folder of {path} does not exist")
    if plot is not None and plot.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"plot must end in .png, .pdf or .svg, got {plot.name!r}")
    model = PRESETS[preset]()
    parameters: dict[str, Any] = dict(_number_named(text) for text in set_ or [])
    if loss is not None:
        names = re.findall(r"\w+", loss)
        model = tm.Model.from_expression(
            loss,
            model.mechanisms,
            model.dims,
            costs=model.costs,
            parameters={p: v for p, v in {**model.parameters, **parameters}.items() if p in names},
        )
    acts: Any = [*map(_clamp, clamp or []), *map(_freeze, freeze or []), *map(_block, block or [])]
    if preset == "long_pathway":
        small = tm.LONG_PATHWAY_START
        start = tm.random_start(model, seed, small["scale"], small["target_scale"])
    else:
        start = tm.paper_start(model, seed)
    if integrator == "descent":
        runs = tm.descend(model, start, steps, lr=lr, every=every, interventions=acts, **parameters)
    else:
        runs = tm.flow(model, start, time, interventions=acts, **parameters)
    typer.echo(model)
    typer.echo(tm.measure(runs).to_dataframe().to_string())
    if out is not None:
        typer.echo(f"wrote {tm.save(runs, out)}")
    if plot is not None:
        typer.echo(f"wrote {_plot(runs, plot)}")


@app.command()
def info(file: Annotated[Path, typer.Argument(help="A record, NAME.nc.")]) -> None:
    """Say what a file holds and how it was made."""
    runs = tm.load(file)
    typer.echo(tm.model_of(runs))
    for name, value in runs.attrs.items():
        if name != "model":
            typer.echo(f"{name}: {value}")
    typer.echo(runs)
    typer.echo(tm.measure(runs).to_dataframe().to_string())


@app.command()
def figures(
    names: Annotated[list[str] | None, typer.Argument(help="Names of scripts in figures/, all by default.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="How many figures to make at the same time.")] = 1,
) -> None:
    """Make the figures that an edit made stale (runs make in the repository that holds this installation)."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "Makefile").exists():
        raise ValueError(f"figures are made in a clone of the repository; {root} has no Makefile")
    targets = [f"figures/out/{name}.png" for name in names or []] or ["figures"]
    for name in names or []:
        if not (root / "figures" / f"{name}.py").exists():
            known = sorted(path.stem for path in (root / "figures").glob("*.py"))
            raise ValueError(f"there is no figure {name!r}; there are {', '.join(known)}")
    raise typer.Exit(subprocess.run(["make", f"-j{jobs}", *targets], cwd=root).returncode)


def _number_named(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, _number(f"--set {name}", value)


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what} needs a number, got {text!r}") from None


def _timed(text: str) -> tuple[str, dict[str, Any]]:
    text, _, at = text.partition("@")
    return text, {"at": _number("the time after @", at)} if at else {}


def _clamp(text: str) -> tm.Clamp:
    text, at = _timed(text)
    vectors, _, values = text.partition("=")
    numbers = [_number(f"--clamp {vectors}", value) for value in values.split(",")] if values else []
    if len(numbers) > 2:
        raise ValueError(f"--clamp takes an overlap and a residual at most, got {text!r}")
    return tm.Clamp(vectors, **dict(zip(("overlap", "residual"), numbers, strict=False)), **at)


def _freeze(text: str) -> tm.Freeze:
    vectors, at = _timed(text)
    return tm.Freeze(vectors, **at)


def _block(text: str) -> tm.Block:
    text, at = _timed(text)
    term, _, vectors = text.partition(":")
    return tm.Block(term, vectors, **at)


def _plot(runs: Any, path: Path) -> Path:
    from toymodel import plotting

    figure, axes = plotting.new(width=4.5, height=3.0)
    plotting.losses(axes, runs)
    plotting.log_time(axes)
    axes.legend()
    return plotting.save(figure, path)


def main() -> None:
    """Runs the command; a wrong input ends in one line, not in a traceback."""
    try:
        app()
    except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
        typer.echo(f"toymodel: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("toymodel: interrupted", err=True)
        sys.exit(130)
