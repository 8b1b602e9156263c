r"""The equations of motion of the order parameters of `toymodel.theory.attention`, and what they predict.

Gradient descent on the weights is gradient descent on the order parameters, each in the metric that its definition
induces on the weights, with L the mean loss, eta the rate, f the factor of the codes and b the batch:

    dV = -eta dL/dV,   dW = -eta dL/dW,   the same for the logits and g       (a weight is itself)
    dQ = -(eta f / K) (D / E|m|^2) dL/dQ                                      (one of K rows learns at a time)
    dB, dU and the recall alike: the rate over the squared norm of what they add to a code
    d(variance) = -(2 eta f / K) variance dL/d(variance) ... + (eta f)^2 / b * (second moment of the gradient)

Time is counted in steps of the descent. Nothing in them is fitted: a `Training` says all that there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

from toymodel.settings import refuse_fork
from toymodel.theory import attention
from toymodel.theory.attention import KINDS, Order
from toymodel.theory.attention_data import Classes, Overlaps

CODES = ("Q", "B", "U", "recall", "spread", "along")  # the order parameters of the codes M
SECOND_HALF = ("W", "noise_W", "g")  # of the match and the copy, which ICL and CIWL share


@dataclass(frozen=True)
class Training:
    """A network, its data and its training, as `toymodel.network` has them."""

    classes: Classes = field(default_factory=Classes)
    barrier: float = 2.0  # of layer 1: the first logit of a label token on itself
    scale: float = 0.03  # of the start of V, M and W
    copy: float = 0.1  # the start of g
    rate: float = 0.1
    batch: int = 64
    factor: float = 1.0  # of the rate of the codes
    logits: float = 1.0  # of the rate of layer 1's logits
    kind: str = "full"
    matched: bool = False
    held: tuple[str, ...] = ()  # order parameters that do not change

    def __post_init__(self) -> None:
        if self.kind not in ("full", "icl", "ciwl"):
            raise ValueError(f"kind must be full, icl or ciwl, got {self.kind!r}")
        for name in ("scale", "copy", "rate", "batch"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        for name in ("factor", "logits"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if wrong := set(self.held) - set(Order._fields):
            raise ValueError(f"held must be some of {Order._fields}, got {sorted(wrong)}")


def start(training: Training, seed: int = 0) -> Order:
    """The law of the network's start: normal V and W; Q is the chance overlap of K random codes with their classes."""
    of = training.classes
    size, scale = of.features, training.scale
    draw = np.random.default_rng(seed).standard_normal((3, size, size))
    chance = size / of.overlaps().mean / of.classes  # variance of Q's entries over scale^2
    zeros = np.zeros((size, size))
    rest = scale**2 * max(1 - size / of.classes, 0.0)
    barrier = training.barrier
    return Order(
        V=scale * draw[0], W=scale * draw[1], Q=scale * np.sqrt(chance) * draw[2], B=zeros, U=zeros,
        recall=np.array(0.0), spread=np.array(rest), along=np.array(rest),
        noise_V=np.array(0.0), noise_W=np.array(0.0),
        first=np.array([0.0, barrier]), second=np.array([0.0, 0.0, 0.0, barrier]), g=np.array(training.copy),
    )  # fmt: skip


def of_weights(weights: dict[str, np.ndarray], exemplars: np.ndarray) -> Order:
    """The order parameters of given weights A, V, M, W, g at the start of a training on given exemplars [K, E, D]."""
    means = np.asarray(exemplars, float).mean(1)
    V, W, M, A = (np.asarray(weights[name], float) for name in "VWMA")
    Q = np.linalg.solve(means.T @ means, means.T @ M)
    rest = np.array(np.mean((M - means @ Q) ** 2))
    zeros, zero = np.zeros_like(V), np.array(0.0)
    return Order(V, W, Q, zeros, zeros, zero, rest, rest, zero, zero, A[1, :2], A[3, :4], np.array(float(weights["g"])))


def without_codes(order: Order) -> Order:
    """The same with all codes at zero: CIWL blocked, if they are held there (`CODES`)."""
    return order._replace(**{name: np.zeros_like(getattr(order, name)) for name in CODES})


def grafted(order: Order, given: Order) -> Order:
    """The same with the second half of another, as a graft gives it, if it is held there (`SECOND_HALF`)."""
    return order._replace(**{name: getattr(given, name) for name in SECOND_HALF})


class Rule(NamedTuple):
    """What a training is but for its kind: numbers that a compiled function takes as they come."""

    data: Overlaps
    rate: Any
    batch: Any
    factor: Any
    logits: Any


def rule(training: Training) -> Rule:
    """The numbers of a training."""
    return Rule(training.classes.overlaps(), training.rate, training.batch, training.factor, training.logits)


def velocity(order: Order, of: Rule, kind: str = "full", matched: bool = False, held: tuple[str, ...] = ()) -> Order:
    """Change of the order parameters in one step of the descent, in the mean over sequences."""
    data, size = of.data, order.V.shape[0]
    whole = partial(attention.loss, data=data, kind=kind, matched=matched)
    slope, noise = jax.grad(whole, has_aux=True)(order)
    rate, row = of.rate, of.rate * of.factor / data.classes  # of a weight, and of a code
    query = (jnp.sum(order.W**2) + size**2 * order.noise_W) / size
    memory = ((1 - data.mean) / size) ** 2 / data.number * size * query  # |(m U) S W|^2 = memory |m U|^2
    symmetric = (slope.B + slope.B.T) / 2
    symmetric = symmetric - jnp.trace(symmetric) / size * jnp.eye(size)
    spread = jnp.maximum(order.spread, 1e-30)
    fourth = data.fourth / (size * size + 2 * size)
    kicks, code_kicks = rate**2 / of.batch, data.classes * row**2 / of.batch
    change = Order(
        V=-rate * slope.V,
        W=-rate * slope.W,
        Q=-row * size / data.mean * slope.Q,
        B=-row * data.mean * query / (2 * fourth) * symmetric,
        U=-row / (memory * data.mean / size) * slope.U,
        recall=-row / (memory * spread * size * query) * slope.recall,
        spread=-4 * row / (size - 1) * slope.spread * order.spread
        + code_kicks * (noise.codes - noise.along) / (size - 1),
        along=-4 * row * slope.along * order.along + code_kicks * noise.along,
        noise_V=(-4 * rate * slope.noise_V * order.noise_V + kicks * noise.V) / size**2,
        noise_W=(-4 * rate * slope.noise_W * order.noise_W + kicks * noise.W) / size**2,
        first=-rate * of.logits * slope.first,
        second=-rate * of.logits * slope.second,
        g=-rate * slope.g,
    )
    return change._replace(**{name: jnp.zeros_like(getattr(change, name)) for name in held})


def predict(
    training: Training,
    steps: int = 8000,
    every: int = 50,
    begin: Order | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> xr.Dataset:
    """The curves of a training by step: accuracy in context of the evaluators icl, flip, ciwl, the loss, that on the
    sequences of icl and of ciwl, the attention of label tokens to the exemplar before them (`previous`), g and the
    norms of V, W, M.

    `begin` is where it starts, by default `start(training)`. Between two outputs the equations are integrated by scipy
    to a relative `tolerance`; at each output the variance that sampling has added to V and W becomes a random matrix of
    that variance (drawn from `seed`), since it drives the growth of the other as a start does.

    Raises:
        ValueError: `steps` is no multiple of `every`, or the equations cannot be integrated.
    """
    return states(training, steps, every, begin, (), tolerance, seed)[0]


def states(
    training: Training,
    steps: int = 8000,
    every: int = 50,
    begin: Order | None = None,
    keep: tuple[int, ...] | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> tuple[xr.Dataset, dict[int, Order]]:
    """The curves of `predict`, and the order parameters at the steps `keep` (by default the last), from which another
    training may begin.

    Raises:
        ValueError: as `predict` does, or a step of `keep` is not among those of the curves.
    """
    keep = (steps,) if keep is None else keep
    if every < 1 or steps < every or steps % every:
        raise ValueError(f"steps must be a multiple of every >= 1, got {steps} and {every}")
    if wrong := [step for step in keep if step % every or not 0 <= step <= steps]:
        raise ValueError(f"keep must be multiples of every = {every} up to steps = {steps}, got {wrong}")
    refuse_fork()
    with jax.enable_x64(True):
        order = start(training) if begin is None else begin
        order = jax.tree.map(lambda value: np.asarray(value, np.float64), order)
        unravel = ravel_pytree(jax.tree.map(jnp.asarray, order))[1]
        numbers, size = rule(training), training.classes.features
        rates, measures = _compiled(size, training.kind, training.matched, tuple(sorted(training.held)))
        draw, found, kept, trial = np.random.default_rng(seed), [], {}, 1.0
        y, evaluations = _flat(order), 0
        for at in range(0, steps + 1, every):
            if at:
                part = solve_ivp(
                    lambda _, y: np.asarray(rates(y, numbers)), (0, every), y, "RK23",
                    rtol=tolerance, atol=tolerance * 1e-2, first_step=trial,
                )  # fmt: skip
                if not part.success:
                    raise ValueError(f"the order parameters cannot be integrated: {part.message}")
                trial = min(float(np.diff(part.t).max()), every)
                evaluations += part.nfev
                y = _flat(_kicked(jax.tree.map(np.asarray, unravel(part.y[:, -1])), training.held, draw))
            found.append(jax.tree.map(float, measures(y, numbers)))
            if at in keep:
                kept[at] = jax.tree.map(np.asarray, unravel(jnp.asarray(y)))
        curves = {name: ("step", np.array([row[name] for row in found])) for name in found[0]}
        result = xr.Dataset(curves, {"step": np.arange(0, steps + 1, every)}, attrs={"evaluations": evaluations})
        return result, kept


def _flat(order: Order) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in order])


def _kicked(order: Order, held: tuple[str, ...], draw: np.random.Generator) -> Order:
    """The same state in law, with the variances of V and W as random matrices."""
    for name in ("V", "W"):
        if name in held:
            continue
        value, variance = getattr(order, name), getattr(order, f"noise_{name}")
        kick = np.sqrt(max(float(variance), 0.0)) * draw.standard_normal(value.shape)
        order = order._replace(**{name: value + kick, f"noise_{name}": np.zeros_like(variance)})
    return order


@cache
def _compiled(size: int, kind: str, matched: bool, held: tuple[str, ...]) -> tuple[Any, Any]:
    """`velocity` and the measures as compiled functions of one flat vector and the numbers of a training."""
    like = jax.tree.map(lambda value: jnp.asarray(value, jnp.float64), start(Training(Classes(features=size))))
    unravel = ravel_pytree(like)[1]

    def rates(flat: Any, of: Rule) -> Any:
        return ravel_pytree(velocity(unravel(flat), of, kind, matched, held))[0]

    def measures(flat: Any, of: Rule) -> dict[str, Any]:
        order, data = unravel(flat), of.data
        found = {name: attention.accuracy(order, data, name, matched and name != "ciwl") for name in KINDS[1:]}
        shared = attention.matrices(order, data)
        found["loss"] = attention.loss(order, data, kind, matched)[0]
        found |= {f"loss_{name}": attention.loss(order, data, name, False)[0] for name in ("icl", "ciwl")}
        found["previous"] = (jax.nn.softmax(order.first)[0] + jax.nn.softmax(order.second)[2]) / 2
        norms = {"V": size * shared.norms[0], "W": size * shared.query, "M": data.classes * shared.norms[2]}
        return found | {"g": order.g} | {f"norm_{name}": jnp.sqrt(square) for name, square in norms.items()}

    return jax.jit(rates), jax.jit(measures)


def landmarks(step: np.ndarray, flip: np.ndarray, rise: float = 0.55, fall: float = 0.5) -> dict[str, float]:
    """From a curve of flip: its last crossing of `rise` before its highest value (emergence), that value (peak), and
    the first crossing of `fall` after it (end); NaN where it does not cross. Between points a curve is straight."""
    step, flip = np.asarray(step, float), np.asarray(flip, float)
    top = int(np.argmax(flip))
    emergence = end = np.nan
    if flip[top] > rise:
        below = np.flatnonzero(flip[: top + 1] <= rise)
        i = below[-1] if below.size else 0
        emergence = float(np.interp(rise, flip[i : i + 2], step[i : i + 2]))
        after = np.flatnonzero(flip[top:] < fall)
        if after.size:
            j = top + after[0]
            end = float(step[j - 1] + (flip[j - 1] - fall) / (flip[j - 1] - flip[j]) * (step[j] - step[j - 1]))
    return {"emergence": emergence, "peak": float(flip[top]), "end": end}


def on(training: Training, **changes: Any) -> Training:
    """The same training with other values, those of its classes among them."""
    classes = {name: changes.pop(name) for name in ("features", "noise", "exemplars") if name in changes}
    if isinstance(changes.get("classes"), int):
        classes["classes"] = changes.pop("classes")
    return replace(training, classes=replace(training.classes, **classes), **changes)
