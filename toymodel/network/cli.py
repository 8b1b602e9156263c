"""The command `toymodel train`: run experiments on small networks."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def train(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments; `toymodel train` alone lists them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every experiment whose curves are missing.")] = False,
    jobs: Annotated[int, typer.Option(help="Experiments at once; each takes about one core.")] = 2,
    seeds: Annotated[int | None, typer.Option(help="Only the first so many seeds; the others may follow.")] = None,
    so_far: Annotated[bool, typer.Option("--so-far", help="Do not train: write what stopped trainings left.")] = False,
    again: Annotated[bool, typer.Option(help="Train even where curves are there.")] = False,
    curves: Annotated[Path, typer.Option(help="Folder for the curves.")] = Path("networks"),
    checkpoints: Annotated[Path, typer.Option(help="Folder for what training resumes from.")] = Path("build/networks"),
) -> None:
    """Train small networks and write their curves; the same command continues after a stop (Ctrl-C).

    Example: toymodel train disentangled_full
    """
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")  # a core each
    from toymodel.network.runs import Runs  # JAX is imported here, so that the list of commands is quick

    runs = Runs(curves=curves, checkpoints=checkpoints)
    if all_ and names:
        raise ValueError(f"give names or --all, got both: {names}")
    if not all_ and not names:
        missing = "" if curves.is_dir() else ", a folder that is not there yet"
        typer.echo(f"curves in {curves}/ (--curves){missing}; checkpoints in {checkpoints}/ (--checkpoints)")
        for name, experiment in runs.known.items():
            whole, begun = len(runs.there(experiment)), len(runs.begun(experiment))
            state = "there  " if runs.finished(experiment) else "begun  " if begun else "missing"
            seeds_of = f", {whole} of {experiment.seeds} seeds finished" if state == "begun  " else ""
            typer.echo(f"{state} {name}{seeds_of}")
    chosen = list(runs.known.values()) if all_ else [runs.named(name) for name in names or []]
    if seeds is not None:
        chosen = [replace(experiment, seeds=min(seeds, experiment.seeds)) for experiment in chosen]
    if so_far:
        for experiment in chosen:
            typer.echo(f"{experiment.name}: seeds {', '.join(map(str, runs.so_far(experiment))) or 'none'}")
        return
    for experiment, curves_of in runs.run_many(chosen, jobs, again):
        end = curves_of.accuracy_in_context.isel(step=-1).mean("seed")
        last = ", ".join(f"{name} {float(end.sel(evaluator=name)):.2f}" for name in ("icl", "flip", "ciwl"))
        typer.echo(f"{experiment.name}: at step {experiment.steps}, accuracy among the labels in context: {last}")
