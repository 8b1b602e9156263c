"""Progress on the terminal: shown where a run takes more than two seconds, quiet where there is no terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress_bar(total: int, what: str, wanted: bool | None, unit: str = "step") -> tqdm:
    """A bar that counts to `total`. wanted: True or False, or None to decide by terminal and duration."""
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=True,
        delay=0 if wanted else 2,
        disable=None if wanted is None else not wanted,
    )


def shown(wanted: bool | None) -> bool:
    """Whether progress is to be shown at all."""
    return sys.stderr.isatty() if wanted is None else wanted
