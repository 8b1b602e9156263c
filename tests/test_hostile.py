"""Inputs that no call can make sense of: each gives one clear error, soon, and allocates nothing.

A case is a name, a call, and what its message must say: the argument that is wrong. A wrong number of arguments is left
to Python's own TypeError.
"""

import json
import math
import resource
import signal
import time

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
import xarray as xr
from typer import BadParameter

import toymodel as tm
from toymodel.cli import app
from toymodel.network.data import read_classes
from toymodel.network.transformer import Transformer

MODEL = tm.coopetition()
PAIR = {"icl": "ab", "ciwl": "cb"}
DIMS = {"a": 2, "b": 3, "c": 4}
START = tm.aligned_start(MODEL)
VECTORS = tm.paper_vectors(tm.coopetition(dims=(2, 2, 2, 3)), 0)
SMALL = tm.coopetition(dims=(2, 2, 2, 3))
HUGE = 10**400
NAN = math.nan
SECONDS, GIBIBYTES = 2, 1


def text(written, **parameters):
    return tm.Model.from_expression(written, PAIR, DIMS, parameters=parameters)


def python(loss, **others):
    return tm.Model(**{"mechanisms": PAIR, "loss": loss, "dims": DIMS, **others})


def both(icl, ciwl):
    return icl * ciwl


def record(**changed):
    """A short record made by hand, with other variables."""
    times = np.arange(3.0)
    losses = {f"loss_{m}": ("time", np.array([1.0, 0.4, 0.2])) for m in ("icl", "ciwl")}
    data = {**losses, "unlearned_icl": 1.0, "unlearned_ciwl": 1.0, **changed}
    return xr.Dataset({k: v for k, v in data.items() if v is not None}, coords={"time": times})


def state(**changed):
    return START.assign(**changed)


def run(name, *args, **kwargs):
    """A command in this process."""
    return app([name, *map(str, args)], standalone_mode=False)


LOSSES = {
    "tower": (lambda: text("icl*9**9**9"), "loss"),
    "power of two": (lambda: text("2**99999999*icl"), "loss"),
    "nested powers": (lambda: text("((9**9)**9999)**9999*icl"), "loss"),
    "negative tower": (lambda: text("icl*9**-9**9"), "loss"),
    "one over zero": (lambda: text("1/0*icl"), "loss must be finite"),
    "over a difference of numbers": (lambda: text("icl/(2-2)"), "loss must be finite"),
    "over a difference of terms": (lambda: text("icl/(icl-icl)"), "loss must be finite"),
    "zero to the minus one": (lambda: text("0**-1*icl"), "loss must be finite"),
    "float tower": (lambda: text("9.0**9**9*icl"), "loss"),
    "infinity": (lambda: text("1e400*icl"), "loss must be finite"),
    "product beyond float": (lambda: text("1e300*icl*1e300"), "loss must have numbers within"),
    "product below float": (lambda: text("1e-300*icl*1e-300"), "loss must have numbers within"),
    "power of a product": (lambda: text("(2*icl)**99999999"), "loss is too large"),
    "power of a power": (lambda: text("((3*icl)**300)**300"), "loss"),
    "many digits": (lambda: text("icl*" + "9" * 4000), "loss"),
    "too many digits": (lambda: text("icl*" + "9" * 9000), "loss"),
    "hexadecimal digits": (lambda: text("icl*0x" + "f" * 9000), "loss"),
    "thousands of terms": (lambda: text("+".join(["icl"] * 3000)), "loss"),
    "thousands of other terms": (lambda: text("+".join(f"p{i}" for i in range(3000))), "loss"),
    "a million characters": (lambda: text("icl" + " " * 10**6 + "*2*q"), "loss is too long"),
    "nested signs": (lambda: text("-" * 5000 + "icl"), "loss"),
    "nested brackets": (lambda: text("(" * 5000 + "icl" + ")" * 5000), "loss"),
    "nested sums": (lambda: text("1+(" * 150 + "icl" + ")" * 150), "loss"),
    "bit flips": (lambda: text("~" * 50 + "icl"), "loss may hold"),
    "a name that has no value": (lambda: text("icl*foo"), "parameters must have a value for 'foo'"),
    "a call": (lambda: text("abs(icl)"), "loss may hold"),
    "an attribute": (lambda: text("icl.__class__"), "loss may hold"),
    "an import": (lambda: text("__import__('os').system('true')"), "loss may hold"),
    "a lambda": (lambda: text("lambda: icl"), "loss may hold"),
    "a walrus": (lambda: text("(x := icl)"), "loss may hold"),
    "a list": (lambda: text("[icl for icl in range(9)]"), "loss may hold"),
    "a comparison": (lambda: text("icl < 2"), "loss may hold"),
    "a bool": (lambda: text("True*icl"), "loss may hold"),
    "an imaginary number": (lambda: text("1j*icl"), "loss may hold"),
    "a string": (lambda: text("icl*'a'"), "loss may hold"),
    "a root of a negative number": (lambda: text("(-8)**0.5*icl"), "loss must be real"),
    "a term as exponent": (lambda: text("icl**icl"), "exponent must be a number"),
    "a parameter as exponent": (lambda: text("icl**k", k=2), "exponent must be a number"),
    "two to a term": (lambda: text("2**icl"), "exponent must be a number"),
    "nothing": (lambda: text(""), "loss is not an expression"),
    "only a number": (lambda: text("3"), "loss must depend on"),
    "only a parameter": (lambda: text("k", k=1), "loss must depend on"),
    "half a formula": (lambda: text("icl +"), "loss is not an expression"),
    "a null byte": (lambda: text("icl\0"), "loss is not an expression"),
    "no text": (lambda: text(None), "loss must be a text"),
    "bytes": (lambda: text(b"icl"), "loss must be a text"),
    "the class int": (lambda: python(int), "loss"),
    "the class dict": (lambda: python(dict), "loss"),
    "a function of anything": (lambda: python(lambda *a, **k: 1), "loss must take one argument for each"),
    "text for a function": (lambda: python("icl"), "loss must be a function"),
    "a foreign symbol": (lambda: python(lambda icl, ciwl: icl * sp.Symbol("q")), "loss must use"),
    "a foreign symbol first": (lambda: python(lambda icl, ciwl: sp.Symbol("q") * icl), "loss must use"),
    "abs": (lambda: python(lambda icl, ciwl: abs(icl) * ciwl), "loss must use"),
    "a function of sympy": (lambda: python(lambda icl, ciwl: sp.exp(icl)), "loss must use"),
    "a function of numpy": (lambda: python(lambda icl, ciwl: np.exp(icl)), "loss must use"),
    "a function of jax": (lambda: python(lambda icl, ciwl: jnp.exp(icl)), "loss must use"),
    "an undefined name": (lambda: python(lambda icl, ciwl: icl * undefined), "loss must use"),
    "a term to a term": (lambda: python(lambda icl, ciwl: icl**ciwl), "exponent must be a number"),
    "two to the power of a term": (lambda: python(lambda icl, ciwl: 2**icl), "exponent must be a number"),
    "a power in a function": (lambda: python(lambda icl, ciwl: (2 * icl) ** 10**10), "loss is too large"),
    "a float power in a function": (lambda: python(lambda icl, ciwl: icl * 9.0**9**9), "loss"),
    "a loop without end": (lambda: python(lambda icl, ciwl: sum(icl for _ in iter(int, 1))), "loss is too large"),
    "a recursion": (lambda: python(lambda icl, ciwl: recursed(icl)), "loss"),
    "an array": (lambda: python(lambda icl, ciwl: icl * np.ones(3)), "loss must use"),
    "a condition": (lambda: python(lambda icl, ciwl: icl if icl else ciwl), "a condition on icl"),
    "an equality": (lambda: python(lambda icl, ciwl: icl if icl == ciwl else 1), "comparison"),
    "nan in a function": (lambda: python(lambda icl, ciwl: icl * NAN), "loss must be finite"),
    "a huge number in a function": (lambda: python(lambda icl, ciwl: icl * HUGE), "loss"),
    "none as result": (lambda: python(lambda icl, ciwl: None), "loss must use"),
    "an error in a function": (lambda: python(lambda icl, ciwl: {}["x"]), "loss must use"),
    "an exit in a term": (lambda: python(lambda icl, ciwl: icl.names.clear()), "loss must use"),
}


def recursed(icl):
    return icl + recursed(icl)


MODELS = {
    "mechanisms none": (lambda: python(both, mechanisms=None), "mechanisms must be a mapping"),
    "mechanisms list": (lambda: python(both, mechanisms=["ab"]), "mechanisms must be a mapping"),
    "mechanisms empty": (lambda: python(both, mechanisms={}), "mechanisms must name"),
    "mechanism of a number": (lambda: python(both, mechanisms={"icl": 3, "ciwl": "ab"}), "mechanisms"),
    "mechanism of none": (lambda: python(both, mechanisms={"icl": "ab", "ciwl": None}), "mechanisms"),
    "mechanism of nothing": (lambda: python(both, mechanisms={"icl": "ab", "ciwl": ""}), r"mechanisms\['ciwl'\]"),
    "mechanism of a million": (lambda: python(both, mechanisms={"icl": "a" * 10**6, "ciwl": "cb"}), "at most 64"),
    "mechanism called 3": (lambda: python(both, mechanisms={3: "ab"}), "mechanisms"),
    "mechanism called lambda": (lambda: python(both, mechanisms={"lambda": "ab"}), "mechanisms: 'lambda'"),
    "costs text": (lambda: python(both, costs="a"), "costs must be a mapping"),
    "dims none": (lambda: python(both, dims=None), "dims must be a mapping"),
    "dims of text": (lambda: python(both, dims={**DIMS, "b": "3"}), r"dims\['b'\] must be a whole number"),
    "dims of half": (lambda: python(both, dims={**DIMS, "b": 2.5}), r"dims\['b'\] must be a whole number"),
    "dims of true": (lambda: python(both, dims={**DIMS, "b": True}), r"dims\['b'\] must be a whole number"),
    "dims of 10**12": (lambda: python(both, dims={**DIMS, "b": 10**12}), r"dims\['b'\] must be a whole number within"),
    "dims of 10**400": (lambda: python(both, dims={**DIMS, "b": HUGE}), r"dims\['b'\] must be a whole number within"),
    "dims of too many": (
        lambda: python(both, mechanisms={"icl": "b" * 64, "ciwl": "ac"}, dims={**DIMS, "b": 10**9}),
        "dims",
    ),
    "parameter text": (lambda: tm.coopetition(alpha="0.1"), "alpha must be a number"),
    "parameter none": (lambda: tm.coopetition(mu_icl=None), "mu_icl must be a number"),
    "parameter list": (lambda: tm.coopetition(alpha=[0.1, 0.2]), "alpha must be a number"),
    "parameter huge": (lambda: tm.coopetition(alpha=HUGE), "alpha"),
    "parameter imaginary": (lambda: tm.coopetition(alpha=1j), "alpha must be a number"),
    "parameters list": (lambda: python(both, parameters=[1]), "parameters must be a mapping"),
    "parameters huge": (lambda: MODEL.with_parameters(alpha=HUGE), "alpha must be within"),
    "parameters unknown": (lambda: MODEL.with_parameters(beta=1), "unknown name 'beta'"),
    "weights none": (lambda: python(both, weights={"icl": None}), r"weights\['icl'\]"),
    "weights infinite": (lambda: python(both, weights={"icl": math.inf}), r"weights\['icl'\]"),
    "target norms zero": (lambda: python(both, target_norms={"a": 0}), r"target_norms\['a'\]"),
    "preset dims number": (lambda: tm.coopetition(dims=20), "dims must be a list"),
    "preset dims text": (lambda: tm.coopetition(dims="abcd"), r"dims\['a'\] must be a whole number"),
    "preset dims none": (lambda: tm.induction(dims=None), "dims must be a list"),
    "preset dims huge": (lambda: tm.coopetition(dims=(20, 20, 20, 10**12)), r"dims\['d'\]"),
    "json none": (lambda: tm.Model.from_json(None), "a model must be text in JSON"),
    "json nothing": (lambda: tm.Model.from_json(""), "a model must be text in JSON"),
    "json list": (lambda: tm.Model.from_json("[1]"), "model must be a mapping"),
    "json nested": (lambda: tm.Model.from_json("[" * 10**5), "a model must be text in JSON"),
    "json without dims": (lambda: tm.Model.from_json('{"loss": "a", "mechanisms": {}}'), "model has no 'dims'"),
    "json with more": (lambda: tm.Model.from_json('{"lose": "a"}'), "model has the unknown name 'lose'"),
    "json tower": (lambda: tm.Model.from_json(MODEL.to_json().replace("alpha*cost", "9**9**9*cost")), "loss"),
}
TAKEN_BY_RECORDS = (
    "loss",
    "time",
    "step",
    "overlap",
    "residual",
    "target_norm",
    "stopped",
    "mechanism",
    "seed",
    "final",
)
TAKEN_BY_MEASURES = ("emergence", "end", "lifetime", "bump", "winner", "phase")
TAKEN_BY_CALLS = (
    "scale",
    "integrator",
    "intervention",
    "progress",
    "lr",
    "steps",
    "every",
    "store",
    "weights",
    "at",
    "times",
)
TAKEN_BY_MODELS = ("dim_a", "scale_b", "norm_c", "weight_icl", "loss_icl", "u_a", "w_icl", "unlearned_x")
NAMES = {
    **{
        f"parameter {name}": (
            lambda name=name: text(f"icl + {name}", **{name: 1.0}),
            f"parameters of the loss: '{name}'",
        )
        for name in (*TAKEN_BY_RECORDS, *TAKEN_BY_MEASURES, *TAKEN_BY_CALLS, *TAKEN_BY_MODELS)
    },
    **{
        f"term {name}": (lambda name=name: tm.Model.from_expression(name, {name: "ab"}, DIMS), f"mechanisms: '{name}'")
        for name in ("time", "loss", "emergence", "overlap", "seed", "loss_x")
    },
    **{
        f"axis {name}": (
            lambda name=name: tm.Sweep(MODEL, {name: [1.0, 2.0]}, interventions=f"Change(until={name}, alpha=0)"),
            f"'{name}' cannot be a name",
        )
        for name in ("time", "emergence", "final", "progress", "seed", "steps", "mechanism")
    },
}

STARTS = {
    "model none": (lambda: tm.paper_start(None, 0), "model must be a Model"),
    "model text": (lambda: tm.random_start("coopetition", 0), "model must be a Model"),
    "seeds none": (lambda: tm.paper_start(MODEL, None), "seeds must be a whole number or a list"),
    "seeds text": (lambda: tm.paper_start(MODEL, "abc"), "seeds must be a whole number"),
    "seeds half": (lambda: tm.paper_start(MODEL, 0.5), "seeds must be a whole number"),
    "seeds of halves": (lambda: tm.random_start(MODEL, [0, 0.5]), "seeds must be a whole number"),
    "seeds of none": (lambda: tm.random_start(MODEL, [None]), "seeds must be a whole number"),
    "seeds empty": (lambda: tm.random_start(MODEL, []), "seeds is empty"),
    "seeds a billion": (lambda: tm.paper_start(MODEL, range(10**9)), "seeds must be at most"),
    "seeds endless": (lambda: tm.random_start(MODEL, iter(int, 1)), "seeds must be at most"),
    "seed huge": (lambda: tm.paper_start(MODEL, 10**20), "seeds must be a whole number within"),
    "seed negative": (lambda: tm.random_start(MODEL, -1), "seeds must be a whole number >= 0"),
    "more than memory": (lambda: tm.random_start(tm.coopetition(dims=(1, 1, 1, 10**9)), range(99)), "memory"),
    "scale text": (lambda: tm.random_start(MODEL, 0, scale="large"), r"scale\['a'\] must be a number"),
    "scale list": (lambda: tm.random_start(MODEL, 0, scale=[1, 2]), r"scale\['a'\] must be one number"),
    "scale none": (lambda: tm.random_start(MODEL, 0, scale=None), r"scale\['a'\] must be a number"),
    "scale infinite": (lambda: tm.random_start(MODEL, 0, scale=math.inf), r"scale\['a'\]"),
    "scale beyond squares": (lambda: tm.random_start(MODEL, 0, scale=1e200), "vectors"),
    "target scale tiny": (lambda: tm.random_start(MODEL, 0, target_scale=1e-300), "vectors"),
    "heads list": (lambda: tm.paper_start(MODEL, 0, heads=["c"]), "heads must be a mapping"),
    "heads half": (lambda: tm.paper_start(MODEL, 0, heads={"c": 0.5}), r"heads\['c'\] must be a whole number"),
    "overlap text": (lambda: tm.aligned_start(MODEL, overlap="x"), "overlap must be a number"),
    "overlap list": (lambda: tm.aligned_start(MODEL, overlap=[1, 2]), r"overlap\['a'\] must be a number or an xarray"),
    "overlap of text": (lambda: tm.aligned_start(MODEL, xr.DataArray(["x"], dims="q")), "overlap must be a number"),
    "overlap huge": (lambda: tm.aligned_start(MODEL, overlap=HUGE), "overlap"),
    "target norm zero": (lambda: tm.aligned_start(MODEL, target_norm=0), "target_norm must be > 0"),
    "vectors none": (lambda: tm.from_vectors(MODEL, None), "vectors must be a Dataset"),
    "vectors of another": (lambda: tm.from_vectors(MODEL, VECTORS), r"vectors\['a'\] must have 20 entries"),
    "vectors of text": (lambda: tm.from_vectors(SMALL, VECTORS.assign(a=("a_entry", ["x", "y"]))), r"vectors\['a'\]"),
    "state of none": (lambda: tm.state_at(None, 0), "runs must be a Dataset"),
    "state of a start": (lambda: tm.state_at(START, 0), "runs must be a record"),
    "state of no time": (lambda: tm.state_at(xr.Dataset(), 0), "runs must be a record"),
    "state at text": (lambda: tm.state_at(kept(), "end"), "time must be a number"),
    "state at nan": (lambda: tm.state_at(kept(), NAN), "time must be"),
    "state at lists": (lambda: tm.state_at(kept(), [[0.0], [1.0]]), "time must be a number, a list"),
    "state beyond": (lambda: tm.state_at(kept(), 99.0), "time=99 is not recorded"),
    "state along time": (lambda: tm.state_at(kept(), [0.0, 1.0], dim="time"), "dim 'time' belongs to the record"),
    "state of a damaged model": (
        lambda: tm.state_at(kept().assign_attrs(model="{"), 0),
        "a model must be text in JSON",
    ),
}


def kept():
    coordinates = {"time": np.arange(3.0), "vector": list("abcd")}
    along = {name: (("time", "vector"), np.ones((3, 4))) for name in ("overlap", "residual")}
    return xr.Dataset({**along, "target_norm": ("vector", np.ones(4))}, coords=coordinates)


def swept(over, **others):
    return tm.Sweep(MODEL, over, **others)


SWEEPS = {
    "log of text": (lambda: tm.log("a", 1, 3), "low must be a number"),
    "log of none": (lambda: tm.log(None, 1), "low must be a number"),
    "log of zero": (lambda: tm.log(0, 1, 3), "needs 0 < low < high"),
    "log of infinity": (lambda: tm.log(1, math.inf, 3), "high must be"),
    "log of halves": (lambda: tm.log(0.1, 1, 2.5), "count must be a whole number"),
    "linear of a billion": (lambda: tm.linear(0, 1, 10**9), "count must be a whole number within"),
    "linear of nan": (lambda: tm.linear(0, NAN, 3), "high must be finite"),
    "linear beyond float": (lambda: tm.linear(-1.7e308, 1.7e308, 3), "linear"),
    "linear backwards": (lambda: tm.linear(1, 0), "needs low < high"),
    "samples of nothing": (lambda: tm.samples(0), "count must be a whole number"),
    "samples of a billion": (lambda: tm.samples(10**9), "count must be a whole number within"),
    "samples by magic": (lambda: tm.samples(8, "magic"), "method must be one of"),
    "samples seed text": (lambda: tm.samples(8, "sobol", "x"), "seed must be a whole number"),
    "sweep model none": (lambda: tm.sweep(None, {}), "model must be a Model"),
    "over none": (lambda: swept(None), "over must be a mapping"),
    "over list": (lambda: swept([1, 2]), "over must be a mapping"),
    "over number": (lambda: swept({"alpha": 3}), "over: alpha must be"),
    "over of none": (lambda: swept({"alpha": [None, 1]}), "over: alpha must be a number"),
    "over of lists": (lambda: swept({"alpha": [[1], [1, 2]]}), "over: alpha must be"),
    "over huge": (lambda: swept({"alpha": [HUGE]}), "over: alpha must be within"),
    "over nan": (lambda: swept({"alpha": [NAN]}), "alpha must be"),
    "over bytes": (lambda: swept({"alpha": b"12"}), "over: alpha must be"),
    "over bool": (lambda: swept({"alpha": [True]}), "over: alpha must be a number"),
    "over a billion values": (lambda: swept({"alpha": range(10**9)}), "over: alpha must have at most"),
    "over a number as name": (lambda: swept({3: [1.0]}), r"over must be a mapping, name -> value, got \{3"),
    "grid of a billion": (
        lambda: swept({"alpha": tm.linear(0, 1, 10**4), "mu_icl": tm.linear(0, 1, 10**5)}),
        "at most 100,000,000 can be swept",
    ),
    "grid of seeds": (lambda: swept({"alpha": tm.linear(0, 1, 10**4)}, seeds=range(10**5)), "can be swept"),
    "axis text tower": (lambda: swept({"alpha": "[9**9**9]"}), "over: alpha must be like"),
    "axis text nested": (lambda: swept({"alpha": "[" * 10**4}), "over: alpha must be like"),
    "axis text keywords": (lambda: swept({"alpha": "log(1, 2, n=3)"}), "over: alpha must be like"),
    "axis text of a billion": (lambda: swept({"alpha": "linear(0, 1, 1000000000)"}), "over: alpha: linear: count"),
    "axis text of a name": (lambda: swept({"alpha": "alpha"}), "over: alpha must be like"),
    "axis dim huge": (lambda: swept({"dim_d": [10**12]}), "dim_d must be at most"),
    "axis lr huge": (lambda: swept({"lr": [1e308]}), "lr must be at most"),
    "cases of numbers": (lambda: swept({"intervention": {"a": 1}}), "cases of intervention"),
    "cases twice": (lambda: swept({"intervention": {1: "", "1": ""}}), "cases of intervention"),
    "sweep steps text": (lambda: swept({}, steps="many"), "steps must be a whole number"),
    "sweep steps huge": (lambda: swept({}, steps=2**63), "steps must be a whole number within"),
    "sweep every huge": (lambda: swept({}, every=10**20), "every must be a whole number within"),
    "sweep lr huge": (lambda: swept({}, lr=1e308), "lr must be > 0 and at most"),
    "sweep lr none": (lambda: swept({}, lr=None), "lr must be a number"),
    "sweep chunk": (lambda: swept({}, chunk=0), "chunk must be a whole number"),
    "sweep rtol": (lambda: swept({}, rtol=NAN), "rtol must be within"),
    "sweep integrator": (lambda: swept({}, integrator=None), "integrator must be one of"),
    "sweep fixed list": (lambda: swept({}, fixed=[1]), "fixed must be a mapping"),
    "sweep fixed text": (lambda: swept({}, fixed={"alpha": "x"}), "fixed: alpha must be a number"),
    "sweep design number": (lambda: swept({"alpha": tm.log(0.1, 1)}, design=3), "design must be"),
    "sweep design huge": (lambda: swept({"alpha": tm.log(0.1, 1)}, design="samples(10000000000)"), "count must be"),
    "sweep seeds a billion": (lambda: swept({}, seeds=range(10**9)), "seeds must be at most"),
    "sweep seeds text": (lambda: swept({}, seeds="0:1000000000000"), "seeds must be at most"),
    "sweep seeds none": (lambda: swept({}, seeds=None), "seeds must be a whole number, a list"),
    "sweep seeds of text": (lambda: swept({}, seeds=["a"]), "seeds must be a whole number"),
    "sweep seeds of tables": (lambda: swept({}, seeds=np.ones((2, 2))), "seeds must be a whole number, a list"),
    "sweep seed huge": (lambda: swept({}, seeds=[10**30]), "seeds must be a whole number within"),
    "toml of a number": (lambda: tm.Sweep.from_toml(3), "path must be the path of a file"),
    "toml missing": (lambda: tm.Sweep.from_toml("nowhere/x.toml"), "nowhere", FileNotFoundError),
}

MEASURES = {
    "measure none": (lambda: tm.measure(None), "runs must be a record"),
    "measure text": (lambda: tm.measure("runs.nc"), "runs must be a record"),
    "measure array": (lambda: tm.measure(record().loss_icl), "runs must be a record"),
    "measure no time": (
        lambda: tm.measure(record().isel(time=slice(0))),
        "runs is empty: there is nothing along 'time'",
    ),
    "measure no runs": (
        lambda: tm.measure(record().expand_dims(seed=0)),
        "runs is empty: there is nothing along 'seed'",
    ),
    "measure nan": (lambda: tm.measure(record(loss_icl=("time", [NAN] * 3))), "loss_icl is NaN at every time"),
    "measure text losses": (lambda: tm.measure(record(loss_icl=("time", ["a"] * 3))), "loss_icl must be numbers"),
    "measure without level": (lambda: tm.measure(record(unlearned_icl=None)), "runs has no unlearned_icl"),
    "measure a number": (lambda: tm.measure(record(loss_icl=0.5)), "loss_icl must be numbers along time"),
    "first_below list": (lambda: tm.first_below([1, 2], 1), "values must be a DataArray along time"),
    "first_below text": (lambda: tm.first_below(record().loss_icl, "x"), "threshold must be a number"),
    "first_below nan": (lambda: tm.first_below(record().loss_icl, NAN), "threshold must be finite"),
    "first_below nothing": (lambda: tm.first_below(record().loss_icl[:0], 1), "values must be a DataArray along time"),
    "first_true none": (lambda: tm.first_true(None), "condition must be a DataArray along time"),
}


def saved(path, **attrs):
    return tm.save(record().assign_attrs(attrs), path / "r.nc")


def content_in(path, content=b"", name="r.nc"):
    (path / name).write_bytes(content)
    return path / name


def without_variables(path):
    with h5py.File(path / "r.nc", "w") as file:
        file.attrs["toymodel_format"] = 1
    return path / "r.nc"


def foreign_model(path, model):
    data = record().assign_attrs(toymodel_format=1, model=model)
    data.to_netcdf(path / "r.nc", engine="h5netcdf")
    return path / "r.nc"


def empty_npz(path, **arrays):
    np.savez(path / "r.npz", **arrays)
    return path / "r.npz"


# calls with a folder
FILES = {
    "save none": (lambda p: tm.save(None, p / "r.nc"), "runs must be a Dataset"),
    "save to none": (lambda p: tm.save(record(), None), "path must be the path of a file"),
    "save to a number": (lambda p: tm.save(record(), 3), "path must be the path of a file"),
    "save to nothing": (lambda p: tm.save(record(), ""), "path must be the path of a file"),
    "save to a null byte": (lambda p: tm.save(record(), "a\0.nc"), "path must be the path of a file"),
    "save nothing": (lambda p: tm.save(xr.Dataset(), p / "r.nc"), "runs has no variables"),
    "save attribute none": (lambda p: saved(p, x=None), "runs: the attribute 'x' must be text"),
    "save attribute bool": (lambda p: saved(p, x=True), "runs: the attribute 'x' must be text"),
    "save attribute dict": (lambda p: saved(p, x={"a": 1}), "runs: the attribute 'x' must be text"),
    "save attribute huge": (lambda p: saved(p, x=10**30), "runs: the attribute 'x' must be text"),
    "save attribute mixed": (lambda p: saved(p, x=[1, "a"]), "runs: the attribute 'x' must be text"),
    "save attribute ragged": (lambda p: saved(p, x=[[1], [1, 2]]), "runs: the attribute 'x' must be text"),
    "save attribute complex": (lambda p: saved(p, x=1j), "runs: the attribute 'x' must be text"),
    "save objects": (
        lambda p: tm.save(record(x=("time", np.array([{}, [], None], object))), p / "r.nc"),
        "runs cannot be written",
    ),
    "load none": (lambda p: tm.load(None), "path must be the path of a file"),
    "load nothing": (lambda p: tm.load(content_in(p)), r"r\.nc is damaged"),
    "load noise": (lambda p: tm.load(content_in(p, b"\x89HDF\r\n\x1a\n" + b"x" * 999)), r"r\.nc is damaged"),
    "load a folder": (lambda p: tm.load(folder(p)), r"r\.nc is damaged"),
    "load no variables": (lambda p: tm.load(without_variables(p)), r"r\.nc is damaged: it has no variables"),
    "load format text": (lambda p: tm.load(formatted(p, "one")), r"r\.nc has format one"),
    "load format list": (lambda p: tm.load(formatted(p, [1, 2])), r"r\.nc has format"),
    "load model text": (lambda p: tm.load(foreign_model(p, "a model")), r"r\.nc is damaged: its attribute 'model'"),
    "load model list": (lambda p: tm.load(foreign_model(p, "[1]")), r"r\.nc is damaged: its attribute 'model'"),
    "load model number": (lambda p: tm.load(foreign_model(p, 3)), r"r\.nc is damaged: its attribute 'model'"),
    "features nothing": (lambda p: read_classes(content_in(p, name="r.npz")), r"r\.npz is damaged"),
    "features empty": (lambda p: read_classes(empty_npz(p)), r"name must be one array of r\.npz"),
    "features no classes": (lambda p: read_classes(empty_npz(p, x=np.ones((0, 2, 3)))), r"r\.npz must hold an array"),
    "toml tower": (
        lambda p: tm.Sweep.from_toml(content_in(p, toml(loss="icl*9**9**9"), "s.toml")),
        "loss must have numbers within",
    ),
    "toml no mechanisms": (
        lambda p: tm.Sweep.from_toml(content_in(p, b'[model]\nloss = "icl"', "s.toml")),
        "model has no 'mechanisms'",
    ),
    "toml binary": (lambda p: tm.Sweep.from_toml(content_in(p, b"\xff\xfe", "s.toml")), "is not TOML"),
    "toml nested": (lambda p: tm.Sweep.from_toml(content_in(p, b"a = " + b"[" * 10**4, "s.toml")), "is not TOML"),
    "toml model number": (lambda p: tm.Sweep.from_toml(content_in(p, b"model = 3", "s.toml")), "model must be a table"),
    "toml preset number": (
        lambda p: tm.Sweep.from_toml(content_in(p, b"[model]\npreset = 3", "s.toml")),
        "unknown preset 3",
    ),
    "toml over text": (
        lambda p: tm.Sweep.from_toml(content_in(p, b'over = "alpha"', "s.toml")),
        "over must be a mapping",
    ),
    "toml store number": (lambda p: tm.Sweep.from_toml(content_in(p, b"store = 3", "s.toml")), "store must be text"),
}


def folder(path):
    (path / "r.nc").mkdir()
    return path / "r.nc"


def formatted(path, value):
    record().assign_attrs(toymodel_format=value).to_netcdf(path / "r.nc", engine="h5netcdf")
    return path / "r.nc"


def toml(**model):
    lines = [f"{name} = {json.dumps(value)}" for name, value in model.items()]
    tables = ["[model.mechanisms]", 'icl = "ab"', "[model.dims]", "a = 2", "b = 3"]
    return "\n".join(["[model]", *lines, *tables]).encode()


COMMANDS = {
    "run loss tower": (lambda: run("run", "--loss", "icl*ciwl*9**9**9"), "loss"),
    "run loss undefined": (lambda: run("run", "--loss", "icl*foo"), "the loss has the parameter 'foo'"),
    "run loss nested": (lambda: run("run", "--loss", "(" * 300 + "icl" + ")" * 300), "loss is not an expression"),
    "run loss over zero": (lambda: run("run", "--loss", "1/0*icl"), "loss must be finite"),
    "run set text": (lambda: run("run", "--set", "alpha=x"), "--set alpha needs a number"),
    "run set nothing": (lambda: run("run", "--set", "alpha"), "--set alpha needs a number"),
    "run set infinite": (lambda: run("run", "--set", "alpha=inf"), "alpha must be"),
    "run set unknown": (lambda: run("run", "--set", "beta=1"), "unknown name 'beta'"),
    "run dims huge": (lambda: run("run", "--dims", "20,20,20,1000000000000"), r"dims\['d'\]"),
    "run dims text": (lambda: run("run", "--dims", "a,b"), "--dims must be whole numbers"),
    "run seed negative": (lambda: run("run", "--seed", -1), "seeds must be a whole number >= 0"),
    "run seed huge": (lambda: run("run", "--seed", 10**20), "seeds must be a whole number within"),
    "run preset": (lambda: run("run", "--preset", "none"), "preset must be one of"),
    "run integrator": (lambda: run("run", "--integrator", "euler"), "integrator must be"),
    "run steps text": (lambda: run("run", "--steps", "many"), "valid integer", BadParameter),
    "run out": (lambda: run("run", "--out", "a.txt"), "out must end in"),
    "run clamp": (lambda: run("run", "--clamp", "d=x"), "--clamp d needs a number"),
    "info nothing": (lambda: run("info", "nowhere.nc"), "no such file", FileNotFoundError),
    "sweep over nothing": (lambda: run("sweep", "--over", "alpha"), "expected NAME=VALUE"),
    "sweep over tower": (lambda: run("sweep", "--over", "alpha=[9**9**9]"), "alpha must be like"),
}


def descended(*args, steps=5, **others):
    return tm.descend(MODEL, *(args or (START,)), steps, **others)


def flowed(**others):
    return tm.flow(MODEL, START, **{"t": 1.0, **others})


def entries(**others):
    return tm.descend_vectors(SMALL, VECTORS, **{"steps": 5, **others})


def acted(*acts):
    return descended(interventions=list(acts))


def along(dim):
    return xr.DataArray([0.1, 0.2], dims=dim, coords={dim: [1.0, 2.0]})


SIMULATIONS = {
    "descend model none": (lambda: tm.descend(None, START, 5), "model must be a Model"),
    "descend start none": (lambda: descended(None), "start must be"),
    "descend start text": (lambda: descended("paper"), "start must be"),
    "descend start nan": (lambda: descended(state(overlap=START.overlap * NAN)), "start: overlap must be finite"),
    "descend start of text": (lambda: descended(state(overlap=("vector", list("abcd")))), "overlap must be a number"),
    "descend start without vector": (lambda: descended(START.drop_vars("vector")), "start has no vector"),
    "descend start empty": (lambda: descended(START.expand_dims(seed=0)), "empty"),
    "descend start twice": (lambda: descended(xr.concat([START, START], "vector")), "start"),
    "descend steps text": (lambda: descended(steps="many"), "steps must be a whole number"),
    "descend steps none": (lambda: descended(steps=None), "steps must be a whole number"),
    "descend steps 2**63": (lambda: descended(steps=2**63), "steps must be"),
    "descend steps beyond": (lambda: descended(steps=2**63, every=2**62), "steps must be"),
    "descend steps half": (lambda: descended(steps=2.5), "steps must be a whole number"),
    "descend every 10**20": (lambda: descended(every=10**20), "every must be"),
    "descend every list": (lambda: descended(every=[1, 2]), "every must be a whole number"),
    "descend lr 1e308": (lambda: descended(lr=1e308), "lr must be"),
    "descend lr none": (lambda: descended(lr=None), "lr must be a number"),
    "descend lr text": (lambda: descended(lr="1"), "lr must be a number"),
    "descend lr list": (lambda: descended(lr=[0.1, 0.2]), "lr must be"),
    "descend lr negative": (lambda: descended(lr=-1), "lr must be > 0"),
    "descend stop text": (lambda: descended(first_below="x"), "first_below must be a number"),
    "descend stop nan": (lambda: descended(first_below=NAN), "first_below must be > 0"),
    "descend interventions none": (lambda: descended(interventions=None), "interventions must be a list"),
    "descend interventions number": (lambda: descended(interventions=3), "interventions must be"),
    "descend interventions of none": (lambda: acted(None), "interventions must be"),
    "descend weights list": (lambda: descended(weights=[1]), "weights must be a mapping"),
    "descend weights text": (lambda: descended(weights={"icl": "x"}), r"weights\['icl'\] must be a number"),
    "descend weights zero": (lambda: descended(weights={"icl": 0}), r"weights\['icl'\] must be > 0"),
    "descend alpha none": (lambda: descended(alpha=None), "alpha must be a number"),
    "descend alpha text": (lambda: descended(alpha="x"), "alpha must be a number"),
    "descend alpha empty": (lambda: descended(alpha=[]), "alpha is empty"),
    "descend alpha tables": (lambda: descended(alpha=[[1, 2]]), "alpha must be a number, a list"),
    "descend alpha ragged": (lambda: descended(alpha=[[1], [1, 2]]), "alpha must be a number, a list"),
    "descend alpha a billion": (lambda: descended(alpha=range(10**9)), "alpha must have at most"),
    "descend alpha huge": (lambda: descended(alpha=HUGE), "alpha must be within"),
    "descend alpha along time": (lambda: descended(alpha=along("time")), "'time' belongs to the record"),
    "descend alpha along mu_icl": (lambda: descended(alpha=along("mu_icl")), "mu_icl"),
    "descend alpha along loss": (lambda: descended(alpha=along("loss")), "loss"),
    "descend alpha along overlap": (lambda: descended(alpha=along("overlap")), "overlap"),
    "descend alpha along target_norm": (lambda: descended(alpha=along("target_norm")), "target_norm"),
    "descend alpha along cost": (lambda: descended(alpha=along("cost")), "cost"),
    "descend a grid of a billion": (
        lambda: descended(alpha=np.linspace(0, 1, 10**5), mu_icl=np.linspace(0, 1, 10**5)),
        "runs are too many",
    ),
    "descend unknown": (lambda: descended(beta=1), "beta"),
    "descend progress text": (lambda: descended(progress="yes"), "progress must be"),
    "flow t text": (lambda: flowed(t="x"), "t must be a number"),
    "flow t infinite": (lambda: flowed(t=math.inf), "t must be"),
    "flow t huge": (lambda: flowed(t=HUGE), "t must be"),
    "flow t 1e308": (lambda: flowed(t=1e308, max_steps=10), "t must be"),
    "flow times text": (lambda: flowed(times="x"), "times must be"),
    "flow times backwards": (lambda: flowed(times=[1.0, 0.5]), "times must be"),
    "flow times tables": (lambda: flowed(times=[[0.0, 1.0]]), "times must be"),
    "flow times ragged": (lambda: flowed(times=[[0.0], [0.0, 1.0]]), "times must be"),
    "flow method none": (lambda: flowed(method=None), "method must be"),
    "flow method list": (lambda: flowed(method=["LSODA"]), "method must be"),
    "flow rtol text": (lambda: flowed(rtol="x"), "rtol must be"),
    "flow rtol zero": (lambda: flowed(rtol=0), "rtol must be"),
    "flow max_steps": (lambda: flowed(max_steps=0), "max_steps must be"),
    "flow events list": (lambda: flowed(method="LSODA", events=[lambda s: 1]), "events must be a mapping"),
    "flow event a number": (lambda: flowed(method="LSODA", events={"x": 3}), "events"),
    "flow event raises": (lambda: flowed(method="LSODA", events={"x": lambda s: s["none"]}), "event"),
    "flow event none": (lambda: flowed(method="LSODA", events={"x": lambda s: None}), "event"),
    "flow event text": (lambda: flowed(method="LSODA", events={"x": lambda s: "1"}), "event"),
    "vectors none": (lambda: tm.descend_vectors(SMALL, None, 5), "vectors must be a Dataset"),
    "vectors of a start": (lambda: tm.descend_vectors(MODEL, START, 5), "vectors"),
    "vectors steps": (lambda: entries(steps=0), "steps must be a whole number"),
    "vectors noise text": (lambda: entries(noise="x"), "noise must be a number"),
    "vectors sample": (lambda: entries(sample=0), "sample must be a whole number"),
    "vectors sample huge": (lambda: entries(sample=10**20), "sample must be"),
    "vectors noise_seed": (lambda: entries(noise=0.1, noise_seed=10**30), "noise_seed must be"),
    "vectors dtype": (lambda: entries(dtype=np.float16), "dtype must be"),
    "clamp none": (lambda: acted(tm.Clamp(None)), "Clamp"),
    "clamp number": (lambda: acted(tm.Clamp(3)), "Clamp"),
    "clamp unknown": (lambda: acted(tm.Clamp("z")), "Clamp"),
    "clamp overlap text": (lambda: acted(tm.Clamp("d", overlap="x")), "Clamp: overlap must be a number"),
    "clamp overlap list": (lambda: acted(tm.Clamp("d", overlap=[1, 2])), "Clamp: overlap"),
    "clamp residual negative": (lambda: acted(tm.Clamp("d", residual=-1)), "Clamp: residual"),
    "clamp like text": (lambda: acted(tm.Clamp("d", like="x")), "Clamp: like"),
    "clamp entries text": (lambda: acted(tm.Clamp("d", entries="x")), "entries must be a whole number"),
    "clamp entries many": (lambda: acted(tm.Clamp("d", entries=999)), "entries must be a whole number"),
    "clamp at text": (lambda: acted(tm.Clamp("d", at="x")), "Clamp: at must be a number"),
    "clamp until none": (lambda: acted(tm.Clamp("d", until=None)), "Clamp: until must be"),
    "clamp until nan": (lambda: acted(tm.Clamp("d", until=NAN)), "Clamp: until must be"),
    "freeze list": (lambda: acted(tm.Freeze(["d"])), "Freeze"),
    "block none": (lambda: acted(tm.Block(None)), "Block"),
    "block list": (lambda: acted(tm.Block(["icl"])), "Block"),
    "block vectors number": (lambda: acted(tm.Block("icl", 3)), "Block"),
    "change nothing": (lambda: acted(tm.Change()), "Change needs"),
    "change text": (lambda: acted(tm.Change(alpha="x")), "alpha must be a number"),
    "change loss int": (lambda: acted(tm.Change(loss=int)), "loss"),
    "change loss number": (lambda: acted(tm.Change(loss=3)), "loss"),
    "change at beyond": (lambda: acted(tm.Change(at=99, alpha=0)), "at=99 is after the end"),
    "sweep interventions number": (lambda: tm.Sweep(MODEL, {}, interventions=3), "interventions must be"),
    "sweep interventions none": (lambda: tm.Sweep(MODEL, {}, interventions=[None]), "interventions must be"),
    "sweep change tower": (
        lambda: tm.sweep(MODEL, {}, 0, 5, interventions="Change(loss='9**9**9*icl')"),
        "loss must have numbers within",
    ),
    "sweep act of a call": (lambda: tm.Sweep(MODEL, {}, interventions="Clamp(open('x'))"), "interv|Clamp"),
    "sweep act nested": (lambda: tm.Sweep(MODEL, {}, interventions="(" * 10**4), "intervention"),
    "sweep act minus text": (lambda: tm.Sweep(MODEL, {}, interventions="Clamp(-'d')"), "Clamp"),
    "sweep start number": (lambda: tm.Sweep(MODEL, {}, start=3), "start must be"),
    "sweep store number": (lambda: tm.sweep(MODEL, {}, 0, 5, store=3), "store must be"),
    "sweep client number": (lambda: tm.sweep(MODEL, {}, 0, 5, client=3), "client must be"),
    "open_sweep none": (lambda: tm.open_sweep(None), "store must be|path must be"),
    "model_of none": (lambda: tm.model_of(None), "no record of a run"),
    "model_of text": (lambda: tm.model_of(record().assign_attrs(model="{")), "model"),
    "heads": (lambda: Transformer.draw(jax.random.key(0), 4, 8, 2, heads=0), "model must be a multiple of 2 x heads"),
    "run intervene tower": (
        lambda: run("run", "--steps", 5, "--intervene", "Change(until=3, loss='icl*9**9**9')"),
        "loss must have numbers within",
    ),
    "run intervene unknown": (lambda: run("run", "--intervene", "Open('x')"), "an intervention must be like"),
    "run steps huge": (lambda: run("run", "--steps", 2**63), "steps must be"),
    "run lr huge": (lambda: run("run", "--steps", 5, "--lr", 1e308), "lr must be"),
}
THEORY = {
    "growth none": (lambda: tm.theory.growth(None, START), "model must be a Model"),
    "growth start": (lambda: tm.theory.growth(MODEL, None), "start must be"),
    "growth text": (lambda: tm.theory.growth(MODEL, START, alpha="x"), "alpha must be a number"),
    "rates none": (lambda: tm.theory.rates(None, START), "model must be a Model"),
    "lifetime start": (lambda: tm.theory.lifetime(MODEL, "paper"), "start must be"),
    "lifetime model": (lambda: tm.theory.lifetime(tm.induction(), START), "model"),
    "asymptotic start": (lambda: tm.theory.asymptotic_strategy(MODEL, None), "start must be"),
    "law scale": (lambda: tm.theory.law(MODEL, "x", 0.1), "scale must be a number"),
    "law scale none": (lambda: tm.theory.law(MODEL, None, 0.1), "scale must be a number"),
    "region factor": (lambda: tm.theory.region(MODEL, 0.1, 0.1, factor="x"), "factor must be"),
    "speed_up none": (lambda: tm.theory.speed_up(MODEL, None), "start must be"),
    "bump start": (lambda: tm.theory.bump(MODEL, 3), "start must be"),
    "curvature none": (lambda: tm.theory.curvature(MODEL, None), "states must be"),
    "loss_floor mechanism": (lambda: tm.theory.loss_floor(MODEL, None, 0.1, 1.0, 0.1), "mechanism must be"),
    "loss_floor noise": (lambda: tm.theory.loss_floor(MODEL, "icl", "x", 1.0, 0.1), "noise must be a number"),
    "noise_threshold lr": (lambda: tm.theory.noise_threshold(MODEL, None), "lr must be a number"),
    "noise_drift noise": (lambda: tm.theory.noise_drift(MODEL, "x"), "noise must be a number"),
    "fixed_points none": (lambda: tm.theory.fixed_points(None), "model must be a Model"),
    "fixed_points starts": (lambda: tm.theory.fixed_points(MODEL, starts=3), "starts must be"),
    "branch parameter": (lambda: tm.theory.branch(MODEL, START, None, (0, 1)), "parameter must be"),
    "end_norms text": (lambda: tm.theory.end_norms("x", 1.0), "squares must be a number"),
    "balance_values none": (lambda: tm.theory.balance_values(MODEL, None), "runs must be"),
    "with_weight_decay text": (lambda: tm.theory.with_weight_decay(MODEL, "x"), "decay must be a number"),
    "decay_thresholds none": (lambda: tm.theory.decay_thresholds(None), "model must be a Model"),
}
# of the two lists above, what is not refused clearly yet: it is not run


def checked(call, says, error=ValueError):
    """The call gives this error, in little time and memory."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(60)
    try:
        with pytest.raises(error, match=says) as caught:
            call()
    finally:
        signal.alarm(0)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert type(caught.value) in (error, *error.__subclasses__()) and len(str(caught.value)) < 1000
    assert time.process_time() - began < SECONDS
    assert (after.ru_maxrss - before.ru_maxrss) / 2**20 < GIBIBYTES


def _late(*_):
    raise TimeoutError("no error after a minute")


OF_CALLS = {**LOSSES, **MODELS, **NAMES, **STARTS, **SWEEPS, **MEASURES, **COMMANDS}


@pytest.mark.parametrize("name", OF_CALLS)
def test_a_wrong_call_is_one_clear_error(name):
    checked(*OF_CALLS[name])


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_one_clear_error(name, tmp_path):
    call, *says = FILES[name]
    checked(lambda: call(tmp_path), *says)


@pytest.mark.parametrize("name", {**SIMULATIONS, **THEORY})
def test_a_wrong_simulation_is_one_clear_error(name):
    checked(*{**SIMULATIONS, **THEORY}[name])


def test_there_are_enough_of_them():
    assert len(OF_CALLS) + len(FILES) + len(SIMULATIONS) + len(THEORY) >= 200
