"""Models with a name: the paper's, two with a longer pathway of ICL, and an induction head.

Sources: Singh et al. 2025 (arXiv 2503.05631), section 6, and Singh et al. 2024 (arXiv 2404.07129).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toymodel.checks import NonNegative, checked, shown
from toymodel.model import FrozenDict, Model


@checked
def coopetition(
    alpha: NonNegative = 0.1,
    mu_icl: NonNegative = 0.1,
    mu_ciwl: NonNegative = 0.0,
    dims: Sequence[Any] = (20, 20, 20, 160),
) -> Model:
    r"""The paper's minimal model, L = (L_icl + mu_icl)(L_ciwl + mu_ciwl) + alpha C.

    b and c are the sub-circuit that in-context learning (with a) and context-constrained in-weights learning (with d)
    share.

    Arguments:
        alpha: strength of the competition, >= 0.
        mu_icl, mu_ciwl: loss that is left when the other strategy is learned, >= 0.
        dims: numbers of entries of a, b, c, d.

    Returns:
        A `Model`.

    Raises:
        ValueError for an argument out of range.

    Source: Singh et al. 2025 (arXiv 2503.05631), section 6.

    >>> print(*coopetition().conserved(), sep="\n")
    d/dt(|b|**2 - |c|**2) = 0
    d/dt(|a|**2 - |b|**2 + |d|**2) = -8*alpha*cost
    """
    return _strategies("abc", _dims_of("abcd", dims), alpha=alpha, mu_icl=mu_icl, mu_ciwl=mu_ciwl)


@checked
def long_pathway(
    alpha: NonNegative = 0.1,
    mu_icl: NonNegative = 0.1,
    mu_ciwl: NonNegative = 0.0,
    dims: Sequence[Any] = (20, 20, 20, 160, 20),
) -> Model:
    """The paper's model with one more vector, e, in the pathway of in-context learning: icl = a x e x b x c.

    From `random_start(long_pathway(), seeds, **LONG_PATHWAY_START)` ICL comes first, is transient, and does not emerge
    in time once CIWL is blocked. That takes the vector, a target of d 4 times longer and a d that starts 50 times
    larger than the rest. The published model does the same without a new vector where d starts 10,000 times larger and
    its target is 3 times longer.

    Arguments:
        alpha, mu_icl, mu_ciwl: as in `coopetition`.
        dims: numbers of entries of a, b, c, d, e.

    Returns:
        A `Model`.

    Raises:
        ValueError for an argument out of range.

    Source: `derivations/cooperation.py`.

    >>> "".join(long_pathway().mechanisms["icl"])
    'aebc'
    """
    return _strategies("aebc", _dims_of("abcde", dims), alpha=alpha, mu_icl=mu_icl, mu_ciwl=mu_ciwl)


LONG_PATHWAY_START = FrozenDict(
    {
        "scale": FrozenDict({"a": 0.02, "b": 0.02, "c": 0.02, "d": 1.0, "e": 0.02}),
        "target_scale": FrozenDict({"a": 1.0, "b": 1.0, "c": 1.0, "d": 4.0, "e": 1.0}),
    }
)  # arguments of random_start in the region of long_pathway


@checked
def shared_encoder(
    alpha: NonNegative = 0.1,
    mu_icl: NonNegative = 0.1,
    mu_ciwl: NonNegative = 0.0,
    dims: Sequence[Any] = (20, 20, 20, 160),
) -> Model:
    r"""The paper's model with the shared vectors twice in the pathway of in-context learning: icl = a b b c c.

    Induction compares two exemplars that went through one encoder, one as key and one as query, and reads out what
    was found in the same way; lookup in the weights takes each of them once. So b and c are twice in ICL and once in
    CIWL. From starts of one scale for all vectors, `random_start(shared_encoder(), seeds, scale=0.3)`, and with the
    paper's dimensions, targets, alpha and mu, ICL comes first, is transient, and does not emerge in time once CIWL is
    blocked.

    Arguments:
        alpha, mu_icl, mu_ciwl: as in `coopetition`.
        dims: numbers of entries of a, b, c, d.

    Returns:
        A `Model`.

    Raises:
        ValueError for an argument out of range.

    Source: `derivations/cooperation.py`.

    >>> print(*shared_encoder().conserved(), sep="\n")
    d/dt(|b|**2 - |c|**2) = 0
    d/dt(2*|a|**2 - |b|**2 + |d|**2) = -12*alpha*cost
    """
    return _strategies("abbcc", _dims_of("abcd", dims), alpha=alpha, mu_icl=mu_icl, mu_ciwl=mu_ciwl)


def _strategies(icl: str, dims: dict[str, Any], **parameters: Any) -> Model:
    """The paper's loss, with ICL made of these vectors."""
    mechanisms = {"icl": icl, "ciwl": "dbc"}
    return Model(mechanisms, _coopetition_loss, dims, costs={"cost": "ad"}, parameters=parameters)


def _coopetition_loss(icl, ciwl, cost, *, mu_icl, mu_ciwl, alpha):
    return (icl + mu_icl) * (ciwl + mu_ciwl) + alpha * cost


@checked
def induction(dims: Sequence[Any] = (20, 20, 20)) -> Model:
    r"""One mechanism of three vectors, the toy model of an induction head.

    Arguments:
        dims: numbers of entries of a, b, c.

    Returns:
        A `Model`.

    Raises:
        ValueError for an argument out of range.

    Source: Singh et al. 2024 (arXiv 2404.07129).

    >>> print(*induction().conserved(), sep="\n")
    d/dt(|a|**2 - |b|**2) = 0
    d/dt(|a|**2 - |c|**2) = 0
    """
    return Model(mechanisms={"icl": "abc"}, loss=_induction_loss, dims=_dims_of("abc", dims))


def _induction_loss(icl):
    return icl


def _dims_of(letters: str, dims: Sequence[Any]) -> dict[str, Any]:
    """The numbers of entries by letter; raises ValueError unless there is one for each."""
    if len(dims) != len(letters):
        raise ValueError(f"dims must be {len(letters)} numbers, those of {', '.join(letters)}, got {shown(dims)}")
    return dict(zip(letters, dims, strict=True))
