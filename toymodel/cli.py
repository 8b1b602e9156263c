"""The `toymodel` command: run one simulation, make the figures, look into a file.

numpy, xarray, JAX and sympy are imported by the command that needs them, so that `--help` and a typo answer at once: no
module that a command stands in imports them at its top.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import toymodel as tm
from toymodel.explore import cli as explorer
from toymodel.fitting import cli as fitting
from toymodel.network import cli as network
from toymodel.sweeps import cli as sweeps
from toymodel.sweeps.cli import PRESETS, model_named


class Commands(TyperGroup):
    """Says in one line that a command was interrupted, where Typer would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            typer.echo(f"toymodel: {str(stop) or 'interrupted'}", err=True)
            raise typer.Exit(130) from None


# Rich would take [@TIME] in a help text for markup
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run one simulation or a sweep, train networks, make the figures, look into a file.",
)
app.command()(sweeps.sweep)
app.command()(sweeps.plot)
app.command()(network.train)
app.command()(explorer.explore)
app.command()(fitting.fit)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toymodel {metadata.version('toymodel')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run one simulation or a sweep, explore in the browser, train networks, make the figures, look into a file."""


@app.command()
def run(
    preset: Annotated[
        str,
        typer.Option(
            "--model", "--preset", help=f"Model: {', '.join(PRESETS)}; the first is the paper's. Or a JSON file."
        ),
    ] = "coopetition",
    dims: Annotated[
        str | None, typer.Option(help="Numbers of entries of its vectors, such as 20,20,20,160 (a, b, c, d).")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help='Another loss of the same terms, such as "icl + ciwl + alpha * cost".')
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the loss, NAME=VALUE; repeat for several.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", "--seeds", help="Seed of the random initial condition (the paper's draws).")
    ] = 7,
    integrator: Annotated[str, typer.Option(help="descent (steps of --lr) or flow (error control).")] = "descent",
    steps: Annotated[int | None, typer.Option(help="Number of steps of descent [default: 16000].")] = None,
    lr: Annotated[float | None, typer.Option(help="Step size of descent; time = steps x lr [default: 1].")] = None,
    every: Annotated[int | None, typer.Option(help="Descent: record each so many steps [default: 1].")] = None,
    first_below: Annotated[
        float | None, typer.Option(help="Descent: also say when the loss first falls below this.")
    ] = None,
    time: Annotated[float | None, typer.Option(help="Duration of a flow, in units of time [default: 16000].")] = None,
    clamp: Annotated[
        list[str] | None,
        typer.Option(
            help="Hold a vector: VECTOR (at its target), VECTOR=OVERLAP or VECTOR=OVERLAP,RESIDUAL; from a time on: "
            "[@TIME] after it. Repeat for several."
        ),
    ] = None,
    intervene: Annotated[
        list[str] | None,
        typer.Option(
            help='Any intervention: \'Clamp("c", entries=10)\', \'Freeze("bc", at=500)\', \'Block("ciwl", "bc")\', '
            "'Change(until=500, loss=\"ciwl\")'; repeat for several."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the record, NAME.nc.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for a plot of the losses: .png, .pdf or .svg.")] = None,
) -> None:
    """Simulate one run and print its measures; write the record (--out) and a plot of the losses (--plot).

    Example: toymodel run --seed 7 --set alpha=0.1 --clamp d=0 --out run.nc --plot run.png
    """
    _check_file("out", out, (".nc",))
    _check_file("plot", plot, (".png", ".pdf", ".svg"))
    options = _options(integrator, dict(steps=steps, lr=lr, every=every, first_below=first_below), time)
    model = model_named(preset, dims, loss, dict(_number_named(text) for text in set_ or []))
    from toymodel.simulation.interventions import built, interventions_of

    acts = [*map(_clamp, clamp or []), *(built(act) for act in interventions_of(intervene or []))]
    start = _start(preset, model, seed, acts)
    simulate: Any = tm.descend if integrator == "descent" else tm.flow
    runs = simulate(model, start, **options, interventions=acts)
    typer.echo(model)
    typer.echo(tm.measure(runs).to_dataframe().to_string())
    if "stopped" in runs:
        typer.echo(f"loss below {first_below:g} at time {float(runs.stopped):g}")
    if out is not None:
        typer.echo(f"wrote {tm.save(runs, out)}")
    if plot is not None:
        typer.echo(f"wrote {_plot(runs, plot)}")


@app.command()
def info(
    file: Annotated[
        Path, typer.Argument(help="NAME.nc (a record, a start, curves of a network), NAME.zarr or NAME.json.")
    ],
) -> None:
    """Say what a file holds and how it was made: a record, a start, a sweep, curves of a network, a model."""
    if file.suffix == ".json":
        typer.echo(tm.Model.from_json(file.read_text()))
        return
    held = tm.open_sweep(file) if file.suffix == ".zarr" else _curves(file) or tm.load(file)
    if "model" in held.attrs:
        typer.echo(tm.model_of(held))
    for name, value in held.attrs.items():
        if name != "model":
            typer.echo(f"{name}: {value}")
    typer.echo(held)
    if file.suffix == ".zarr" and "phase" in held:
        labels = held["phase"].values.ravel().tolist()
        typer.echo("phases: " + ", ".join(f"{labels.count(name)} {name}" for name in sorted(set(labels))))
    elif "time" in held.dims:
        typer.echo(tm.measure(held).to_dataframe().to_string())


def _curves(file: Path) -> Any:
    """The curves of a network, if the file holds these and no record."""
    import xarray as xr

    if file.suffix == ".nc" and file.exists():
        try:
            held = xr.load_dataset(file, engine="h5netcdf")
        except Exception:  # `tm.load` says what is wrong with it
            return None
        return held if "made_of" in held.attrs else None
    return None


@app.command()
def figures(
    names: Annotated[list[str] | None, typer.Argument(help="Names of scripts in figures/, all by default.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="How many figures to make at the same time.")] = 1,
) -> None:
    """Make the figures that an edit made stale (runs make in the repository that holds this installation)."""
    from toymodel.checks import whole

    whole("jobs", jobs)
    root = Path(__file__).resolve().parent.parent
    if not (root / "Makefile").exists():
        raise ValueError(f"figures are made in a clone of the repository; {root} has no Makefile")
    targets = [f"figures/out/{name}.png" for name in names or []] or ["figures"]
    for name in names or []:
        if not (root / "figures" / f"{name}.py").exists():
            known = sorted(path.stem for path in (root / "figures").glob("*.py"))
            raise ValueError(f"there is no figure {name!r}; there are {', '.join(known)}")
    raise typer.Exit(subprocess.run(["make", f"-j{jobs}", *targets], cwd=root).returncode)


def _check_file(name: str, path: Path | None, endings: tuple[str, ...]) -> None:
    """Raises ValueError, before anything is simulated, where a file could not be written in the end."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.suffix not in endings:
        raise ValueError(f"{name} must end in {' or '.join(endings)}, got {path.name!r}")
    if not folder.is_dir():
        raise ValueError(f"the folder of {path} does not exist")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{name}: cannot write {path}")


def _options(integrator: str, of_descent: dict[str, Any], time: float | None) -> dict[str, Any]:
    """The arguments of the integrator, once none is given that is for the other one."""
    if integrator not in ("descent", "flow"):
        raise ValueError(f"integrator must be descent or flow, got {integrator!r}")
    given = {name: value for name, value in of_descent.items() if value is not None}
    if integrator == "flow":
        if given:
            raise ValueError(f"--{next(iter(given)).replace('_', '-')} is for descent; a flow goes on until --time")
        return {"t": 16_000.0 if time is None else time}
    if time is not None:
        raise ValueError("--time is for --integrator flow; descent makes --steps of the size --lr")
    return {"steps": 16_000, **given}


def _start(preset: str, model: tm.Model, seed: int, acts: Sequence[Any]) -> Any:
    """The paper's draw, or a small one for the long pathway, with what clamps of first entries need."""
    heads = {x: act.entries for act in acts if isinstance(act, tm.Clamp) and act.entries for x in act.vectors}
    if preset == "long_pathway":
        return tm.random_start(model, seed, **tm.LONG_PATHWAY_START, heads=heads)
    return tm.paper_start(model, seed, heads)


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


if __name__ == "__main__":
    main()
