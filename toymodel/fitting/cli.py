"""The command `toymodel fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def fit(
    file: Annotated[Path, typer.Argument(help="A table (.csv, .parquet), or a record or curves of a network (.nc).")],
    preset: Annotated[str, typer.Option(help="Model: coopetition, shared_encoder, long_pathway or induction.")] = (
        "coopetition"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the loss, NAME=VALUE; repeat for several.")
    ] = None,
    free: Annotated[
        list[str] | None,
        typer.Option(help="What is fitted: NAME or NAME=LOW,HIGH (alpha, overlap.bc, target_norm.d, start, time)."),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A curve, TERM=COLUMN, such as icl=val_icl; repeat for several.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column of the time [default: time or step].")] = None,
    run: Annotated[str | None, typer.Option(help="Column that names the run.")] = None,
    link: Annotated[
        str | None, typer.Option(help="What the curves are: loss, relative_loss, accuracy or choice.")
    ] = None,
    scale: Annotated[str, typer.Option(help="linear, or log for relative errors.")] = "linear",
    intervene: Annotated[
        list[str] | None, typer.Option(help="What always holds, such as 'Clamp(\"d\", overlap=0)'; repeat for several.")
    ] = None,
    starts: Annotated[int, typer.Option(help="Starts of the fit, side by side.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of their draw.")] = 0,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.9,
    intervals: Annotated[str, typer.Option(help="linearised, or profile (slower).")] = "linearised",
    out: Annotated[Path | None, typer.Option(help="File for the fit, NAME.nc.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for a plot: .png, .pdf or .svg.")] = None,
) -> None:
    """Fit a model to curves; print estimates, intervals, and what the curves do not determine.

    Example: toymodel fit losses.csv --column icl=val_icl --column ciwl=val_ciwl --time epoch --free alpha --free time
    """
    import toymodel as tm
    from toymodel import plotting

    presets: dict[str, Any] = {name: getattr(tm, name) for name in PRESETS}
    if preset not in presets:
        raise ValueError(f"preset must be one of {sorted(presets)}, got {preset!r}")
    parameters = {name: _number(name, value) for name, value in map(_named, set_ or [])}
    for name, path, endings in (("out", out, (".nc",)), ("plot", plot, (".png", ".pdf", ".svg"))):
        if path is not None and (path.suffix not in endings or not path.absolute().parent.is_dir()):
            raise ValueError(f"{name} must be in a folder that is there and end in {' or '.join(endings)}, got {path}")
    options: dict[str, Any] = {"scale": scale, "intervals": intervals}
    found = tm.fit(
        presets[preset]().with_parameters(**parameters),
        file,
        free=dict(map(_bounded, free)) if free else None,
        columns=dict(map(_named, column)) if column else None,
        time=time,
        run=run,
        link=link,
        interventions=intervene or (),
        starts=starts,
        seed=seed,
        level=level,
        **options,
    )
    typer.echo(found)
    if out is not None:
        typer.echo(f"wrote {tm.save(found.dataset(), out)}")
    if plot is not None:
        typer.echo(f"wrote {plotting.save(found.plot(), plot)}")
    if not found.converged:
        raise typer.Exit(1)


PRESETS = ("coopetition", "shared_encoder", "long_pathway", "induction")


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} must be NAME=VALUE")
    return name, value


def _bounded(text: str) -> tuple[str, list[float] | None]:
    name, equals, value = text.partition("=")
    return name, [_number(name, part) for part in value.split(",")] if equals else None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} needs a number, got {text!r}") from None
