"""Bits, and whether they are more than chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_reranker.ranking import information

tables = st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=2, max_size=5).map(
    lambda rows: np.array(rows, np.float64)
)


def direct(table: NDArray[np.float64]) -> float:
    """The formula, term by term."""
    total, bits = table.sum(), 0.0
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            if table[row, column]:
                p = table[row, column] / total
                bits += p * math.log2(p / (table[row].sum() / total * table[:, column].sum() / total))
    return bits


@settings(max_examples=60, deadline=None)
@given(tables)
def test_mutual_information_is_its_formula_and_symmetric(table: NDArray[np.float64]) -> None:
    found = float(information.mutual_information(table))
    assert found == pytest.approx(direct(table), abs=1e-9)
    assert found == pytest.approx(float(information.mutual_information(table.T)), abs=1e-9)


def test_mutual_information_of_what_decides_is_the_entropy_and_of_what_does_not_is_nothing() -> None:
    assert float(information.mutual_information(np.diag([4.0, 4.0, 4.0, 4.0]))) == pytest.approx(2.0)
    assert float(information.mutual_information(np.outer([1.0, 2.0], [3.0, 4.0, 5.0]))) == pytest.approx(
        0.0, abs=1e-12
    )
    assert float(information.mutual_information(np.zeros((2, 3)))) == 0.0


@settings(max_examples=60, deadline=None)
@given(tables)
def test_divergence_is_finite_and_nothing_between_equals(table: NDArray[np.float64]) -> None:
    assert np.isfinite(information.divergence(table[:2]))
    alike = np.array([table[0], table[0]])
    assert float(information.divergence(alike)) == pytest.approx(0.0, abs=1e-9)


def test_entropy_is_corrected_upwards_and_never_above_that_of_an_even_mix() -> None:
    assert information.entropy(np.zeros(4)) == 0.0
    assert information.entropy(np.array([7.0, 0.0])) == 0.0
    assert information.entropy(np.array([5.0, 5.0, 5.0, 5.0])) == 2.0
    plain = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    assert information.entropy(np.array([18.0, 2.0])) == pytest.approx(plain + 1 / (40 * math.log(2)))


def test_independent_labels_are_called_dependent_as_often_as_the_level_says() -> None:
    """Binomial: of 300 tests at 5 %, more than 26 would come about once in 200 times."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        counts = rng.multinomial(1, rng.dirichlet(np.ones(6)), size=60).astype(np.float64)
        hits += information.dependence(rng.integers(3, size=60), counts, 3).p <= 0.05
    assert hits <= 26


def test_the_correction_takes_the_bias_off() -> None:
    """Independent: uncorrected, 60 events over 4 labels and 12 topics show 0.4 bits on average."""
    rng = np.random.default_rng(6)
    plain, corrected = [], []
    for _ in range(60):
        labels = rng.integers(4, size=60)
        counts = np.eye(12)[rng.integers(12, size=60)]
        table = np.stack([counts[labels == label].sum(axis=0) for label in range(4)])
        plain.append(float(information.mutual_information(table)))
        corrected.append(information.dependence(labels, counts, 4).bits)
    assert np.mean(plain) > 0.3
    assert np.mean(corrected) < 0.03


def test_a_planted_dependence_is_found_and_its_bits_are_right() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(2, size=400)
    # P(topic = label) = 0.9: 1 - H(0.9) bits.
    topics = np.where(rng.random(400) < 0.9, labels, 1 - labels)
    found = information.dependence(labels, np.eye(2)[topics], 2)
    assert found.p == pytest.approx(1 / 500)
    assert found.bits == pytest.approx(1 + 0.9 * math.log2(0.9) + 0.1 * math.log2(0.1), abs=0.08)


def test_the_same_labels_give_the_same_answer() -> None:
    rng = np.random.default_rng(8)
    labels, counts = rng.integers(3, size=50), rng.random((50, 5))
    assert information.dependence(labels, counts, 3) == information.dependence(labels, counts, 3)


def test_holm_is_as_published_and_keeps_the_order() -> None:
    assert information.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert information.holm([]) == []
