"""The reference against its definition in plain loops, and the closed form against the reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindspore_floodx.accordance_result import AccordanceSums, accordance_from_gradients


def by_definition(gradients, present):
    """Eqs. 11-13, pair by pair."""
    batches, classes, _ = gradients.shape
    present = present & (np.linalg.norm(gradients, axis=2) > 0)
    across, by_class, by_batch = [], {}, {}
    for i in range(batches):
        for j in range(batches):
            for a in range(classes):
                for b in range(classes):
                    if i == j or not present[i, a] or not present[j, b]:
                        continue
                    g, h = gradients[i, a], gradients[j, b]
                    cosine = g @ h / np.linalg.norm(g) / np.linalg.norm(h)
                    by_class.setdefault((a, b), []).append(cosine)
                    if a != b:
                        across.append(cosine)
                        by_batch.setdefault((i, j), []).append(cosine)

    def matrix(means, size):
        return np.array([[np.mean(means.get((x, y), np.nan)) for y in range(size)] for x in range(size)])

    return np.mean(across) if across else np.nan, matrix(by_class, classes), matrix(by_batch, batches)


@st.composite
def cases(draw):
    batches, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    gradients = rng.normal(size=(batches, classes, 7)) * 10.0 ** rng.integers(-6, 6, (batches, classes, 1))
    gradients[rng.random((batches, classes)) < 0.1] = 0.0  # a gradient without direction
    return gradients, rng.random((batches, classes)) < draw(st.sampled_from([0.5, 0.9, 1.0]))


@given(cases())
def test_reference_and_closed_form_are_the_definition(case):
    gradients, present = case
    value, class_matrix, batch_matrix = by_definition(gradients, present)
    reference = accordance_from_gradients(gradients, present)
    np.testing.assert_allclose(reference.value, value, atol=1e-12)
    np.testing.assert_allclose(reference.class_matrix, class_matrix, atol=1e-12)
    np.testing.assert_allclose(reference.batch_matrix, batch_matrix, atol=1e-12)

    sums, held = AccordanceSums(gradients.shape[1]), gradients * present[:, :, None]
    norms = np.linalg.norm(held, axis=2, keepdims=True)
    units = np.divide(held, norms, out=np.zeros_like(held), where=norms > 0)
    for batch in held:
        sums.add(batch @ batch.T)
    result = sums.result(units.sum(0) @ units.sum(0).T)
    np.testing.assert_allclose(result.value, value, atol=1e-12)
    np.testing.assert_allclose(result.class_matrix, class_matrix, atol=1e-12)
    assert bool(result.undefined) == np.isnan(value)


def test_two_opposed_classes_by_hand():
    gradients = np.array([[[1.0, 0.0], [-2.0, 0.0]], [[3.0, 0.0], [0.0, 5.0]]])
    result = accordance_from_gradients(gradients, np.ones((2, 2)))
    # cos(g_1^1, g_2^2) = 0 and cos(g_1^2, g_2^1) = -1, each in both orders
    assert result.value == -0.5
    np.testing.assert_array_equal(result.class_matrix, [[1.0, -0.5], [-0.5, 0.0]])
    np.testing.assert_array_equal(result.batch_matrix, [[np.nan, -0.5], [-0.5, np.nan]])


def test_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match="batches, classes, parameters"):
        accordance_from_gradients(np.zeros((2, 3, 4)), np.ones((3, 2)))


def test_sums_go_on_from_their_state_which_stays_as_it_is():
    random = np.random.default_rng(0)
    grams = [each @ each.T for each in random.normal(size=(5, 3, 4))]
    first, second = AccordanceSums(3), AccordanceSums(3)
    for gram in grams[:2]:
        first.add(gram)
    state = {name: value.copy() for name, value in first.state().items()}
    for _ in range(2):  # also a second time
        second.load_state(state)
        for gram in grams[2:]:
            second.add(gram)
    for gram in grams[2:]:
        first.add(gram)
    for name, value in first.state().items():
        np.testing.assert_array_equal(second.state()[name], value)
