"""What flow asks of an integrator: to carry the coordinates of all runs through one stage.

An integrator is a function of an `Integration`. It hands the coordinates at the recorded times to `keep`, some runs
after the others, and returns the coordinates at the end of the stage, shape (coordinate, run), and the times of events,
name -> (run,). Raises RuntimeError where it gives up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from toymodel.symbolic import System

Event = Callable[[Mapping[str, float]], float]
Ended = tuple[Float[np.ndarray, "coordinate run"], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Integration:
    """One stage of all runs: dy/dt = -system.slope from y at the time `begin` until `end`.

    constants: the values of `system.constants` for each run. when: the recorded times inside. keep: called with some
    runs and their coordinates at these times, shape (time, coordinate, run), from any thread. rtol, atol: of one step.
    max_steps: of one run. events: located changes of sign.
    """

    system: System
    y: Float[np.ndarray, "coordinate run"]
    constants: Float[np.ndarray, "constant run"]
    begin: float
    end: float
    when: Float[np.ndarray, " time"]
    keep: Callable[[slice, np.ndarray], None]
    rtol: float
    atol: float
    max_steps: int
    method: str
    events: Mapping[str, Event] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        return self.y.shape[1]
