"""Trainings that are over in a second or two, for what is not about how good the towers get.

    python -c 'from tests.cli.shortened import main; main()' train --out my-pack

is ``edge-reranker train`` with them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

N_STEPS = 60
"""Of 840: a training makes ten pairs of towers, the whole evaluation twenty-one."""


def shorten(set_: Callable[[Any, str, Any], None] = setattr) -> None:
    """Puts the short recipe in the place of the default one, wherever that is made. Needs torch."""
    from edge_reranker.cli import cross
    from edge_reranker.training import head, recipe, retrain

    short = head.Recipe(n_steps=N_STEPS)
    for module in (head, recipe, cross):
        set_(module, "Recipe", lambda: short)
    set_(retrain, "Trainer", partial(retrain.Trainer, recipe=short))


def main() -> None:
    from edge_reranker.cli import main as whole

    shorten()
    whole()
