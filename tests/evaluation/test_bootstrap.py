"""Intervals against SciPy's and closed forms; paired tests and balanced draws by hand."""

import numpy as np
import pytest
import scipy.stats

from dfc_jax.evaluation import bootstrap
from dfc_jax.evaluation.bootstrap import balanced, interval, intervals, paired

VALUES = np.random.default_rng(3).gamma(2.0, 1.5, 80)


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_intervals_are_those_of_scipys_percentile_bootstrap(statistic):
    expected = scipy.stats.bootstrap(
        (VALUES,), statistic, method="percentile", n_resamples=20_000, random_state=1
    ).confidence_interval
    np.testing.assert_allclose(interval(VALUES, statistic), expected, atol=0.06)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    half = 1.96 * VALUES.std() / np.sqrt(len(VALUES))
    low, high = interval(VALUES)
    assert low == pytest.approx(VALUES.mean() - half, abs=0.06)
    assert high == pytest.approx(VALUES.mean() + half, abs=0.06)


def test_a_seed_draws_the_same_samples_whatever_is_drawn_at_once(monkeypatch):
    both = intervals(VALUES, [np.mean, np.median], seed=5)
    assert both == [interval(VALUES, np.mean, 5), interval(VALUES, np.median, 5)]
    assert both[0] != interval(VALUES, np.mean, 6)
    monkeypatch.setattr(bootstrap, "_MOST_AT_ONCE", 1000)
    assert intervals(VALUES, [np.mean, np.median], seed=5) == both


def test_there_is_no_interval_of_fewer_than_two_values():
    assert interval(np.array([])) is None
    assert intervals(np.array([2.5]), [np.mean, np.median]) == [None, None]
    assert interval(np.array([2.5, 2.5])) == [2.5, 2.5]


def test_pairs_count_wins_over_all_faces_and_differences_where_both_have_output():
    errors = np.array([1.0, 2.0, 3.0, 9.0, np.inf, np.inf, 4.0])
    reference = np.array([2.0, 4.0, 3.0, 8.0, 5.0, np.inf, np.inf])
    found = paired(errors, reference)
    assert (found["wins"], found["losses"], found["ties"]) == (3, 2, 2)
    assert found["n"] == 4 and found["mean_difference"] == pytest.approx((-1 - 2 + 0 + 1) / 4)
    assert found["ci95"][0] < -0.5 < found["ci95"][1]


def test_the_signed_rank_test_is_exact_on_a_few_faces():
    errors = np.arange(1.0, 7.0)
    # All six differ one way: 2 of the 2^6 signs are as extreme.
    assert paired(errors, errors + [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])["p_wilcoxon"] == 2 / 64
    assert paired(errors, errors)["p_wilcoxon"] == 1.0


def test_pairs_without_a_common_face_have_no_difference():
    found = paired(np.array([np.inf, 1.0]), np.array([2.0, np.inf]))
    assert found == {
        **{"n": 0, "mean_difference": None, "ci95": None, "p_wilcoxon": None},
        **{"wins": 1, "losses": 1, "ties": 0},
    }


def test_a_balanced_draw_has_as_many_of_each_bin_as_the_smallest():
    bins = np.array([0] * 20 + [1] * 7 + [2] * 4 + [-1] * 5)
    drawn = balanced(bins, seed=1)
    assert [int(drawn[bins == k].sum()) for k in (0, 1, 2, -1)] == [4, 4, 4, 0]
    np.testing.assert_array_equal(balanced(bins, seed=1), drawn)
    assert (balanced(bins, seed=2) != drawn).any()
    assert balanced(np.array([2, 2, 0])).sum() == 2
    assert not balanced(np.array([-1, -1])).any()
