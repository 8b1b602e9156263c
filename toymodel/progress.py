"""Progress: a bar on a terminal or in a notebook where a run takes more than two seconds; in a log, a line a minute."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

A_MINUTE = 60.0  # seconds between two lines in a log


def progress_bar(total: int, what: str, wanted: bool | None, unit: str = "step", initial: int = 0) -> tqdm:
    """A bar that counts to `total`. wanted: True or False, or None to decide by duration."""
    log = wanted is None and not (sys.stderr.isatty() or "ipykernel" in sys.modules)
    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        unit_scale=total >= 10_000,
        delay=0 if wanted else A_MINUTE if log else 2,
        mininterval=A_MINUTE if log else 0.1,
        maxinterval=A_MINUTE if log else 10,
        disable=wanted is False,
    )


def shown(wanted: bool | None) -> bool:
    """Whether progress is to be shown at all."""
    return sys.stderr.isatty() if wanted is None else wanted
