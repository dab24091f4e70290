"""Made-up logs: the same again, with the preference in them that is stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_reranker.evaluation import protocol, read_log, synthetic
from edge_reranker.evaluation.log import LIKED


@pytest.mark.parametrize("domain", synthetic.DOMAINS)
def test_a_domain_is_the_same_again_and_reads_back_from_its_files(domain: str, tmp_path: Path) -> None:
    made = synthetic.make(domain, n_users=30, n_items=80)
    synthetic.write(made, tmp_path)
    back = read_log.read(tmp_path / "items.jsonl", tmp_path / "interactions.jsonl")
    again = synthetic.make(domain, n_users=30, n_items=80)
    assert list(back.interactions) == list(made.interactions) == list(again.interactions)
    assert back.items == made.items == again.items
    assert all(item.id.startswith("made-up-") for item in made.items)
    assert list(synthetic.make(domain, n_users=30, n_items=80, seed=1).interactions) != list(
        made.interactions
    )


def test_users_return_to_the_kinds_they_liked() -> None:
    """The share of likes that repeat the last like's kind, against that of shuffled likes."""
    made = synthetic.make("shop", n_users=60)
    kind = np.array([item.tags[0] for item in made.items])
    liked = np.isin(made.type, list(LIKED))
    kinds, users = kind[made.item[liked]], made.user[liked]
    same_user = users[1:] == users[:-1]
    repeats = (kinds[1:] == kinds[:-1])[same_user].mean()
    shuffled = np.random.default_rng(0).permutation(kinds)
    by_chance = (shuffled[1:] == shuffled[:-1])[same_user].mean()
    assert repeats > 1.5 * by_chance


def test_twenty_five_made_up_users_are_enough_to_train_fit_and_test() -> None:
    split = protocol.split(synthetic.make("courses", n_users=25))
    assert split.head
    assert split.fusion
    assert split.test
