"""What is observed of a loss: functions of the loss of a term and of the loss of one that has learned nothing.

They are written with operators, so that they take numbers and arrays of numpy and JAX. A function of one's own has the
same two arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from toymodel.checks import mapping, shown

Link = Callable[[Any, Any], Any]


def loss(loss: Any, unlearned: Any) -> Any:
    """The loss itself."""
    return loss


def relative_loss(loss: Any, unlearned: Any) -> Any:
    """1 where nothing is learned, 0 where the task is solved."""
    return loss / unlearned


def accuracy(loss: Any, unlearned: Any) -> Any:
    """Accuracy among two labels: 1/2 where nothing is learned, 1 where the task is solved."""
    return 1 - loss / unlearned / 2


def choice(loss: Any, unlearned: Any) -> Any:
    """Accuracy of a softmax over two labels whose logits differ by SHARPNESS times what is learned, 1 - sqrt(relative
    loss): 1/2 where nothing is learned, 0.98 where the task is solved."""
    return 1 / (1 + math.e ** (-SHARPNESS * (1 - (loss / unlearned) ** 0.5)))


SHARPNESS = 4.0
LINKS: Mapping[str, Link] = {"loss": loss, "relative_loss": relative_loss, "accuracy": accuracy, "choice": choice}


def links_of(link: Any, names: tuple[str, ...], kind: str) -> tuple[Link, ...]:
    """The link of each curve; raises ValueError for what is none. None: that of the kind of the data."""
    given = mapping("link", link, names) if isinstance(link, Mapping) else dict.fromkeys(names, link)
    found = []
    for name in names:
        one = given.get(name)
        one = kind if one is None else one
        if isinstance(one, str) and one in LINKS:
            one = LINKS[one]
        if not callable(one):
            allowed = f"one of {list(LINKS)} or a function of (loss, unlearned)"
            raise ValueError(f"link of {name!r} must be {allowed}, got {shown(one)}")
        found.append(one)
    return tuple(found)
