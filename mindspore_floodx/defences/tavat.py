"""TAVAT (Li and Qiu, 2021): a perturbation of the sentence and one of each token, the latter from a global table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ..loss_scale import LossScale
from .perturbation import (
    AccumulatedGradient,
    PerturbationDefence,
    Totals,
    divided,
    norms,
    pass_shapes,
    shrinking,
)

if TYPE_CHECKING:
    from ..bert import BertForSequenceClassification
    from ..settings import TrainSettings


class _Tokens(nn.Cell):
    """The token part at the start: the table's rows of the real tokens, divided by their norm over the whole batch."""

    def __init__(self, table: Parameter):
        super().__init__(auto_prefix=False)
        self.table = table

    def construct(self, input_ids, attention_mask):
        mask = attention_mask.astype(ms.float32).expand_dims(2)
        rows = ops.gather(self.table, input_ids, 0) * mask
        return divided(rows, ops.sqrt((rows * rows).sum()))


class _Pass(nn.Cell):
    """Adds share grad CE to the totals; returns CE, the next sentence part and the next token part."""

    def __init__(
        self,
        model: BertForSequenceClassification,
        totals: Totals,
        weights: list[Parameter],
        loss_scale: LossScale | None,
    ):
        super().__init__(auto_prefix=False)
        self.gradient = AccumulatedGradient(model, totals, weights, loss_scale)

    def construct(self, sentence, tokens, step_size, bound, share, *batch):
        loss, gradient = self.gradient(sentence + tokens, share, *batch)
        sentence = sentence + divided(gradient, norms(gradient, (1, 2))) * step_size
        tokens = tokens + divided(gradient, norms(gradient, 2)) * step_size
        sizes = norms(tokens, 2)  # [B, L, 1]
        tokens = tokens * divided(sizes, sizes.max(axis=1, keepdims=True))
        scale = shrinking(sentence + tokens, bound)
        return loss, sentence * scale, tokens * scale


class _Keep(nn.Cell):
    """G[ids] += token part; the parts of a word that occurs several times add up. At padding the part is 0.

    A step that was skipped leaves the table as it is.
    """

    def __init__(self, table: Parameter, loss_scale: LossScale | None):
        super().__init__(auto_prefix=False)
        self.table, self.loss_scale = table, loss_scale

    def construct(self, input_ids, tokens):
        if self.loss_scale is not None:
            tokens = tokens * (self.loss_scale.overflowed == 0).astype(ms.float32)
        return ops.scatter_add(self.table, input_ids.reshape(-1), tokens.reshape((-1, self.table.shape[1])))


class TAVAT(PerturbationDefence):
    """K forward and K backward passes, as FreeLB, for the sum of both perturbations.

    Attributes:
        table: G [vocabulary, H], uniform in +-e0 / sqrt(H) at the start, kept through the whole run.
    """

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        super().__init__(model, optimizer, settings)
        shape = (model.config.vocab_size, model.config.hidden_size)
        drawn = np.random.default_rng([settings.seed, 2**31]).random(shape, dtype=np.float32) * 2 - 1
        self.table = Parameter(
            Tensor(drawn * np.float32(self.size / np.sqrt(shape[1]))), name="tavat_table", requires_grad=False
        )
        self.totals, self.apply = self.steps_along(optimizer, settings.max_grad_norm)
        perturbation, step_size, bound, *batch = pass_shapes(self)
        self.first_tokens = self.graph(_Tokens(self.table), batch[0], batch[1])
        passed = _Pass(model, self.totals, list(optimizer.parameters), self.loss_scale)
        self.one_pass = self.graph(passed, perturbation, perturbation, step_size, bound, [], *batch)
        self.keep = self.graph(_Keep(self.table, self.loss_scale), batch[0], perturbation)

    def passes(self, start: Tensor, batch: tuple[Tensor, ...]) -> list[Tensor]:
        losses = []
        share = Tensor(1.0 / self.steps if self.settings.tavat_mean_gradient else 1.0, ms.float32)
        following = start, self.first_tokens(batch[0], batch[1])
        for _ in range(self.steps):
            sentence, tokens = following
            loss, *following = self.one_pass(sentence, tokens, self.step_size, self.bound, share, *batch)
            losses.append(loss)
        self.perturbation = sentence + tokens
        self.apply()
        self.keep(batch[0], tokens)
        return losses

    def learned(self) -> list[Parameter]:
        return [self.table]

    def state(self) -> dict[str, np.ndarray]:
        return {"table": self.table.asnumpy()}
