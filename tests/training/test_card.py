"""The card tells of the data that the pack was made from."""

from edge_reranker.evaluation import synthetic
from edge_reranker.evaluation.log import Interaction, Log
from edge_reranker.training import card
from edge_reranker.types import EventType, Item


def test_the_card_of_a_log_tells_counts_days_and_files_and_nothing_of_a_user_or_of_movielens() -> None:
    met = [
        Interaction("anna", "secret", EventType.PURCHASE, 0.0),
        Interaction("bert", "secret", EventType.VIEW, 86_400.0),
    ]
    found = card.about(
        Log.of([Item("secret", "Thing")], met), items="items.jsonl", interactions="shop.parquet"
    )
    text = " ".join(f"{found.data} {found.interactions} {found.targets} {found.limits}".split())
    assert (
        "`items.jsonl`: 1 items. `shop.parquet`: 2 interactions of 2 users, 1970-01-01 to 1970-01-02" in text
    )
    assert "(1 VIEW, 1 PURCHASE)" in text
    for name in ("anna", "secret", "Thing", "MovieLens", "film", "rated"):
        assert name not in text
    assert "made up" not in text


def test_the_card_of_a_made_up_log_says_that_it_is_made_up() -> None:
    made = synthetic.make("feed", n_users=2, n_items=40, n_each=5)
    assert "say nothing about people" in card.about(made, items="i", interactions="j").data
