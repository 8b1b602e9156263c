"""Serves the page on this machine, and answers what a page on disk cannot do by itself.

    POST loss       a loss typed as text: its kernel in JavaScript, or the message with which `Model` refuses it
    POST start      draws of Python for any seed and numbers of entries
    POST diagram    the measures of a grid of runs, by the compiled kernel (`toymodel.sweep`)
    POST theory     how long ICL lasts and what is learned in the end, by `toymodel.theory`

Questions and answers are JSON. Only this machine can ask: the server listens on 127.0.0.1, and answers neither a
request for another host's name nor one that is not JSON, which a page of another site cannot send unasked.
"""

from __future__ import annotations

import json
import math
import threading
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import typer

from toymodel.explore.content import PRESETS, rows, with_loss
from toymodel.explore.page import answer_of_loss, html
from toymodel.start import paper_start, random_start
from toymodel.sweeps.declare import Sweep, model_of_table
from toymodel.sweeps.execute import execute
from toymodel.sweeps.grid import parameters_of, start_of, weights_of
from toymodel.theory.asymptotics import asymptotic_strategy
from toymodel.theory.transience import lifetime

MOST_BYTES = 1_000_000  # of a question
HOSTS = ("127.0.0.1", "localhost")


def serve(port: int = 0, browser: bool = True) -> None:
    """Serves the page until Ctrl-C. Raises OSError where the port is taken."""
    with made_server(port) as server:
        address = f"http://{HOSTS[0]}:{server.server_address[1]}/"
        typer.echo(f"toymodel explorer: {address} (Ctrl-C ends it)")
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.serve_forever()


def made_server(port: int = 0) -> ThreadingHTTPServer:
    """The server, listening; the page is made when it is first asked for."""
    server = ThreadingHTTPServer((HOSTS[0], port), Handler)
    server.daemon_threads = False  # closing waits for answers: a thread that is killed inside of a compiler aborts
    return server


class Handler(BaseHTTPRequestHandler):
    """One request: the page, or a question in JSON."""

    def do_GET(self) -> None:
        if not self._asked_here():
            return
        if self.path.split("?")[0] != "/":
            self._send(404, "text/plain", "there is one page, /")
            return
        self._send(200, "text/html; charset=utf-8", html(served=True))

    def do_POST(self) -> None:
        if not self._asked_here():
            return
        answer = ANSWERS.get(self.path.strip("/"))
        size = int(self.headers.get("Content-Length") or 0)
        if answer is None or self.headers.get("Content-Type") != "application/json" or size > MOST_BYTES:
            self._send(400, "text/plain", "not a question of the page")
            return
        try:
            found = answer(json.loads(self.rfile.read(size)))
        except (ValueError, OverflowError, ArithmeticError, RuntimeError, TypeError, KeyError) as error:
            found = {"error": str(error)}
        self._send(200, "application/json", json.dumps(plain(found)))

    def _asked_here(self) -> bool:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in HOSTS:
            self._send(403, "text/plain", "this server answers its own machine only")
        return host in HOSTS

    def _send(self, status: int, kind: str, text: str) -> None:
        content = text.encode()
        with suppress(ConnectionError):  # the page was closed
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing of each request."""


def plain(value: Any) -> Any:
    """As JSON can hold it: what is not finite becomes null."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def loss(question: Mapping[str, Any]) -> dict[str, Any]:
    """The kernel of a loss of a preset's terms; raises ValueError for what `Model` refuses."""
    text = str(question["loss"])
    return answer_of_loss(with_loss(PRESETS[str(question["preset"])](), text), text)


def start(question: Mapping[str, Any]) -> dict[str, Any]:
    """Target norms, overlaps and residuals of the draw of one seed."""
    model = PRESETS[str(question["preset"])](dims=question["dims"])
    draw = {"paper": paper_start, "random": random_start}[str(question["start"])]
    return {"rows": rows(draw(model, [question["seed"]]))[0]}


def diagram(question: Mapping[str, Any]) -> dict[str, Any]:
    """Cells (row, column, measures) of the grid x, y: of every `every`-th row and column."""
    every, names = int(question["every"]), list(question["sweep"]["over"])
    places = [range(0, len(question[axis]), every) for axis in ("x", "y")]
    over = {name: [question[axis][i] for i in at] for name, axis, at in zip(names, "xy", places, strict=True)}
    found = execute(sweep_of({**question["sweep"], "over": over}), progress=False).transpose(*names[::-1], ...)
    has_icl = "icl" in found["mechanism"].values
    icl = found.sel(mechanism="icl") if has_icl else found.isel(mechanism=0)
    columns = {"phase": found["phase" if "phase" in found else "winner"], "winner": found["winner"]}
    columns |= {name: icl[name] for name in ("emergence", "lifetime", "lasts")}
    values = {name: value.values.tolist() for name, value in columns.items()}
    cells = [
        (row, column, {name: value[j][i] for name, value in values.items()})
        for j, row in enumerate(places[1])
        for i, column in enumerate(places[0])
    ]
    return {"cells": cells}


def theory(question: Mapping[str, Any]) -> dict[str, Any]:
    """The lifetime of ICL, and what is learned in the end; the page itself predicts the emergence.

    NaN, or no winner, where theory says nothing: with interventions, and outside of its ranges.
    """
    declared = sweep_of({**question["sweep"], "over": {}})
    if declared.interventions:
        return {"lifetime": math.nan, "winner": None}
    start = start_of(declared, {}, 1)
    given = {"weights": weights_of(declared, {}), **parameters_of(declared, {})}
    return {
        "lifetime": _where_it_holds(lambda: lifetime(declared.model, start, **given)["lifetime"].item(), math.nan),
        "winner": _where_it_holds(lambda: asymptotic_strategy(declared.model, start, **given).item(), None),
    }


def _where_it_holds(predict: Callable[[], Any], nothing: Any) -> Any:
    """The prediction, or `nothing` where theory refuses the model, its parameters or its start."""
    try:
        return predict()
    except ValueError:
        return nothing


def sweep_of(table: Mapping[str, Any]) -> Sweep:
    """The sweep that the page describes, in the words of a TOML file."""
    return Sweep(**{**table, "model": model_of_table(table["model"])})


ANSWERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "loss": loss,
    "start": start,
    "diagram": diagram,
    "theory": theory,
}
