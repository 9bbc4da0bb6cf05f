"""The decision on series whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindspore_floodx import choose_flood_level
from mindspore_floodx.errors import UserError
from mindspore_floodx.flood_level import RULES

# the first look of method.md: a climb in the first epoch, a plateau in the second, a jump at the ninth sub-epoch
SEEN = [-0.95, -0.85, -0.75, -0.65, -0.65, -0.63, -0.64, -0.61, -0.52, -0.43, -0.40]
LOSS = [0.69, 0.60, 0.50, 0.40, 0.35, 0.34, 0.33, 0.30, 0.25, 0.20, 0.18]


def test_change_point_waits_for_the_end_of_the_plateau():
    decision = choose_flood_level(SEEN, LOSS)
    assert (decision.level, decision.sub_epoch, decision.confirmed, decision.fired) == (0.30, 9, 10, True)
    assert decision.rule == "change-point" and "left its plateau" in decision.reason
    assert "sub-epoch 8 was 0.3000" in decision.reason


def test_a_steady_climb_is_no_change_point():
    assert not choose_flood_level(np.linspace(-0.9, -0.1, 30), np.linspace(1, 0, 30)).fired


def test_the_sign_rules_need_a_change_of_sign():
    for rule in ("turns-negative", "turns-positive"):
        decision = choose_flood_level(SEEN, LOSS, rule)
        assert not decision.fired and "never turned" in decision.reason
    rising = [-0.5, -0.2, 0.3, 0.4]
    up = choose_flood_level(rising, [4, 3, 2, 1], "turns-positive")
    assert (up.level, up.sub_epoch, up.fired) == (3, 3, True)
    down = choose_flood_level([-value for value in rising], [4, 3, 2, 1], "turns-negative")
    assert (down.level, down.sub_epoch, down.fired) == (3, 3, True)
    assert not choose_flood_level(rising, [4, 3, 2, 1], "turns-negative").fired


def test_patience_margin_and_smoothing_keep_noise_out():
    noisy = [-0.3, -0.3, 0.2, -0.3, 0.04, 0.04, 0.04, 0.2, 0.2]
    loss = [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert (
        choose_flood_level(noisy, loss, "turns-positive").sub_epoch == 8
    )  # not the single peak, not within the margin
    assert choose_flood_level(noisy, loss, "turns-positive", patience=1).sub_epoch == 3
    assert choose_flood_level(noisy, loss, "turns-positive", margin=0.0).sub_epoch == 5
    assert choose_flood_level(noisy, loss, "turns-positive", patience=1, smoothing=3).sub_epoch == 8
    assert not choose_flood_level(noisy, loss, "turns-positive", patience=3).fired


def test_fall_back():
    flat = [-0.9, -0.5, -0.5, -0.5, -0.5, -0.48, -0.4, -0.4]
    loss = [8, 7, 6, 5, 4, 3, 2, 1]
    decision = choose_flood_level(flat, loss, margin=0.2)
    assert not decision.fired and decision.level == 3 and decision.sub_epoch == 7  # not the climb at the start
    assert "fall-back" in decision.reason
    none = choose_flood_level(flat, loss, margin=0.2, fallback="none")
    assert none.level is None and none.sub_epoch is None and "no level" in none.reason
    assert choose_flood_level([], []).level is None and choose_flood_level([-0.5], [1.0]).level is None


def test_undefined_values_are_passed_over():
    with_gaps = [*SEEN[:3], math.nan, *SEEN[3:6], math.nan, *SEEN[6:]]
    loss = [*LOSS[:3], 0.45, *LOSS[3:6], 0.335, *LOSS[6:]]
    decision = choose_flood_level(with_gaps, loss)
    assert decision.fired and decision.level == 0.30
    assert not choose_flood_level([math.nan] * 9, [1.0] * 9).fired


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=20),
    st.sampled_from(RULES),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_a_decision_is_never_taken_back(series, rule, patience, smoothing):
    """What is decided on the first sub-epochs is decided on all of them: a run may act on it at once."""
    loss = list(np.linspace(1, 0, len(series)))
    options = {"patience": patience, "smoothing": smoothing, "fallback": "none"}
    whole = choose_flood_level(series, loss, rule, **options)
    for seen in range(len(series) + 1):
        part = choose_flood_level(series[:seen], loss[:seen], rule, **options)
        if whole.fired and seen >= whole.confirmed:
            assert part == whole
        else:
            assert not part.fired


def test_bad_arguments():
    for options, message in (
        ({"rule": "turn-positive"}, "did you mean 'turns-positive'"),
        ({"fallback": "last"}, "choose one of steepest, none"),
        ({"smoothing": 0}, "smoothing is 0"),
        ({"window": 1}, "window is 1"),
        ({"margin": -1}, "margin is -1"),
        ({"deviations": math.nan}, "deviations is nan"),
    ):
        with pytest.raises(UserError, match=message):
            choose_flood_level(SEEN, LOSS, **options)
    with pytest.raises(UserError, match="11 values of accordance and 3"):
        choose_flood_level(SEEN, LOSS[:3])
