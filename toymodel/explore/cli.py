"""The command `toymodel explore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explore(
    out: Annotated[
        Path | None, typer.Option(help="Write the page to this file, NAME.html, which opens from disk, and stop.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Explore the model in the browser: every parameter, start and intervention, with a live phase diagram.

    Served (without --out), the page also takes a loss as text, draws its diagrams with the compiled kernel and shows
    the predictions of theory. Example: toymodel explore --out explorer.html
    """
    if out is not None:
        if out.suffix != ".html":
            raise ValueError(f"out must end in .html, got {out.name!r}")
        from toymodel import files
        from toymodel.explore.page import html

        with files.written(out) as whole:
            whole.write_text(html(), "utf-8")
        typer.echo(f"wrote {out}")
        return
    from toymodel.explore.server import serve

    serve(port, browser)
