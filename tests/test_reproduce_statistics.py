"""Paired comparisons: against scipy, brute force and published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from mindspore_floodx.reproduce.statistics import (
    bootstrap_means,
    difference_draws,
    mcnemar,
    mean_and_sd,
    paired_difference,
    share_difference,
)


def outcomes(values, first_id=0):
    return {first_id + place: bool(value) for place, value in enumerate(values)}


def draw_pair(seed, examples=150, better=0.12):
    rng = np.random.default_rng(seed)
    base = rng.random(examples) < 0.3
    return outcomes(base | (rng.random(examples) < better)), outcomes(base & (rng.random(examples) < 0.95))


def test_mean_and_sd():
    assert mean_and_sd([1.0, 2.0, 6.0]) == (3.0, math.sqrt(7.0))
    assert mean_and_sd([2.0, None]) == (2.0, None)  # one seed tells nothing of the scatter
    assert mean_and_sd([None]) == (None, None)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_sign_test(first, second):
    n = first + second
    extreme = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(first - second)) / 2**n
    assert mcnemar(first, second) == pytest.approx(extreme, abs=1e-12)


def test_one_pair_against_scipys_bootstrap():
    method, other = draw_pair(1, 1000)
    found = paired_difference([(method, other)])
    differences = np.array([int(method[id]) - int(other[id]) for id in method])
    assert found.difference == pytest.approx(differences.mean())
    assert (found.only_method, found.only_other) == ((differences == 1).sum(), (differences == -1).sum())
    reference = bootstrap(
        (differences,), np.mean, n_resamples=8000, method="percentile", random_state=np.random.default_rng(7)
    ).confidence_interval
    assert found.low == pytest.approx(reference.low, abs=0.0015)
    assert found.high == pytest.approx(reference.high, abs=0.0015)
    assert found.by_run == (pytest.approx(differences.mean()),)


def test_seeds_are_drawn_with_their_example():
    method, other = draw_pair(2)
    once, thrice = paired_difference([(method, other)]), paired_difference([(method, other)] * 3)
    assert (thrice.difference, thrice.low, thrice.high) == (once.difference, once.low, once.high)
    assert thrice.examples == once.examples == 150
    assert thrice.only_method == 3 * once.only_method
    assert thrice.p_value < once.p_value  # what pooling does


def test_several_runs_with_other_examples_against_brute_force():
    pairs = [draw_pair(3, 40), draw_pair(4, 60)]
    pairs[1] = tuple({id + 20: held for id, held in side.items()} for side in pairs[1])
    found = paired_difference(pairs)
    rng, means = np.random.default_rng(5), []
    ids = sorted({id for side, _ in pairs for id in side})
    for _ in range(4000):
        drawn = [
            int(a[id]) - int(b[id]) for id in rng.choice(ids, len(ids)) for a, b in pairs if id in a
        ]  # an example with all its pairs
        means.append(np.mean(drawn))
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.01)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.01)
    assert found.examples == 80


def test_only_examples_of_both_count():
    found = paired_difference([({1: True, 2: True, 3: False}, {2: False, 3: False, 9: True})])
    assert (found.examples, found.difference, found.only_method, found.only_other) == (2, 0.5, 1, 0)
    assert paired_difference([({1: True}, {2: True})]) is None
    assert paired_difference([]) is None
    assert difference_draws([({1: True}, {2: True})], 0) is None


def test_nothing_differs():
    same = outcomes([True, False, True])
    found = paired_difference([(same, same)])
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_draws_do_not_depend_on_how_many_fit_in_memory(monkeypatch):
    sums, counts = np.arange(50.0), np.ones(50)
    whole = bootstrap_means(sums, counts, 300)
    monkeypatch.setattr("mindspore_floodx.reproduce.statistics._VALUES_AT_ONCE", 50 * 70)
    np.testing.assert_array_equal(bootstrap_means(sums, counts, 300), whole)


def test_data_sets_draw_apart():
    pairs = [draw_pair(6)]
    first, second = difference_draws(pairs, 0), difference_draws(pairs, 1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_newcombes_own_example():
    # Newcombe (1998), Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80
    difference, low, high = share_difference((56, 70), (48, 80))
    assert difference == pytest.approx(0.2)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)
    assert share_difference((0, 10), (0, 20))[1:] == (pytest.approx(-0.1611, abs=1e-4), pytest.approx(0.2775, abs=1e-4))
