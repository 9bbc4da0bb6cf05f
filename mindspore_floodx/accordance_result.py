"""Gradient accordance as numbers: the exact reference from whole gradients, and the closed form from running sums.

Flooding-X, eqs. 11-13. With the class gradients g_i^a (gradient of the mean loss of class a's examples in batch i):

    C_ab = mean over i != j of cos(g_i^a, g_j^b)                       class accordance       (11)
    S_ij = mean over a != b of cos(g_i^a, g_j^b)                       batch accordance       (12)
    S    = mean over i != j and a != b of cos(g_i^a, g_j^b)            (sub-)epoch accordance (13)

A class that a batch lacks has no gradient there: it contributes nothing, and every mean is over the pairs that exist.
With the unit gradients u_ia, V_a = sum_i u_ia and G_i = the k x k products u_ia . u_ib within batch i,

    sum over i != j of u_ia . u_jb  =  V_a . V_b - sum_i G_i[a, b],

so one pass that keeps the k sums V_a gives C exactly, and S from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class AccordanceOfGradients(NamedTuple):
    """What `accordance_from_gradients` returns: value, class_matrix [k, k], batch_matrix [N, N]; NaN is undefined."""

    value: float
    class_matrix: np.ndarray
    batch_matrix: np.ndarray


@dataclass(frozen=True)
class Accordance:
    """The accordance of a set of batches.

    Attributes:
        value: cross-class accordance S (eq. 13), between -1 and 1; NaN if undefined.
        same_class: the same mean over pairs of one class in two batches (a = b); NaN if undefined.
        class_matrix: C [k, k] (eq. 11), same-class values on the diagonal; NaN where no pair exists.
        batches: batches that were measured.
        undefined: why `value` is NaN; empty if it is not.
    """

    value: float
    same_class: float
    class_matrix: np.ndarray
    batches: int
    undefined: str = ""


class AccordanceSums:
    """What a stream of batches leaves behind apart from the sums V_a: products within batches, and counts.

    Args:
        num_classes: k.
    """

    def __init__(self, num_classes: int):
        self._within = np.zeros((num_classes, num_classes))  # sum_i u_ia . u_ib
        self._both = np.zeros((num_classes, num_classes), np.int64)  # batches that have class a and class b
        self.batches = 0

    def state(self) -> dict[str, np.ndarray]:
        """Returns everything that was summed up so far, by name."""
        return {"within": self._within, "both": self._both, "batches": np.array(self.batches)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes the place of the sums that `state` returned."""
        self._within, self._both = state["within"].copy(), state["both"].copy()  # they are added to in place
        self.batches = int(state["batches"])

    def add(self, gram: np.ndarray) -> None:
        """Takes one batch's products g_ia . g_ib, float [k, k]; a class without examples (or gradient) has 0s."""
        norms = np.sqrt(np.diagonal(gram))
        present = norms > 0
        scale = np.divide(1.0, norms, out=np.zeros(len(norms)), where=present)
        self._within += gram * scale[:, None] * scale
        self._both += present[:, None] & present
        self.batches += 1

    def result(self, of_sums: np.ndarray) -> Accordance:
        """Returns the accordance, given the products V_a . V_b, float [k, k]."""
        counts = np.diagonal(self._both)  # batches that have class a
        pairs = counts[:, None] * counts - self._both  # ordered pairs of different batches
        totals = of_sums - self._within
        matrix = np.divide(totals, pairs, out=np.full(totals.shape, np.nan), where=pairs > 0)
        across = ~np.eye(len(counts), dtype=bool)
        value, same = (
            float(totals[chosen].sum() / pairs[chosen].sum()) if pairs[chosen].sum() else float("nan")
            for chosen in (across, ~across)
        )
        return Accordance(value, same, matrix, self.batches, "" if pairs[across].sum() else self._why(counts))

    def _why(self, counts: np.ndarray) -> str:
        if self.batches < 2:
            return f"accordance compares batches, and there is {'only one' if self.batches else 'none'}"
        return (
            f"accordance compares classes across batches, and in these {self.batches} batches no two classes with a "
            f"gradient meet (batches with each class: {', '.join(map(str, counts))})"
        )


def accordance_from_gradients(gradients: np.ndarray, present: np.ndarray) -> AccordanceOfGradients:
    """Returns the accordance of whole gradients by its definition: all pairs, float64.

    This is the reference for small cases, N k gradients in memory; `GradientAccordance` streams.

    Args:
        gradients: g_i^a as [batches, classes, parameters].
        present: bool [batches, classes], whether the batch has the class.

    Returns:
        value (eq. 13), class_matrix [classes, classes] (eq. 11, i != j) and batch_matrix [batches, batches] (eq. 12,
        its diagonal undefined). A gradient of length 0 has no direction and counts as absent. NaN is undefined.

    Raises:
        ValueError: the shapes do not belong together.
    """
    gradients, present = np.asarray(gradients, np.float64), np.asarray(present, bool)
    if gradients.ndim != 3 or present.shape != gradients.shape[:2]:
        raise ValueError(
            f"gradients {gradients.shape} and present {present.shape}; expected [batches, classes, parameters] and "
            "[batches, classes]"
        )
    batches, classes, _ = gradients.shape
    flat = gradients.reshape(batches * classes, -1)
    return accordance_from_products((flat @ flat.T).reshape(batches, classes, batches, classes), present)


def accordance_from_products(products: np.ndarray, present: np.ndarray) -> AccordanceOfGradients:
    """Returns what `accordance_from_gradients` does, given the products g_i^a . g_j^b as [N, k, N, k]."""
    batches, classes = present.shape
    norms = np.sqrt(np.einsum("iaia->ia", products))
    present = present & (norms > 0)
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=present)
    cosines = products * scale[:, :, None, None] * scale  # [i, a, j, b]; 0 where absent
    exists = present[:, :, None, None] & present
    exists = exists & ~np.eye(batches, dtype=bool)[:, None, :, None]
    across = ~np.eye(classes, dtype=bool)[:, None, :]  # [a, 1, b]

    def mean(where: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        number = where.sum(axis=axes)
        total = np.where(where, cosines, 0.0).sum(axis=axes)
        return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)

    return AccordanceOfGradients(
        float(mean(exists & across, (0, 1, 2, 3))), mean(exists, (0, 2)), mean(exists & across, (1, 3))
    )
