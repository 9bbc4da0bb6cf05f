"""InfoBERT (Wang et al., 2021): FreeLB with two mutual-information terms.

The information bottleneck term bounds I(X; T) from above (CLUB, Cheng et al., 2020) between each token's word embedding
X, perturbed, and the embedding layer's output T. The local anchored feature term bounds from below (InfoNCE) the
information between the tokens that are neither nearly unused nor nearly decisive, by the perturbation's gradient, and
the sentence's feature, the last layer's [CLS].

Choices where the formulas leave one: the negatives of CLUB are all pairs of the batch's tokens, exactly; the tokens are
chosen by the gradient of the pass before, so that the first pass of a step has no InfoNCE term and K stays the number
of passes; both estimators learn once a step, from the gradients of its passes added up.

Shapes: B batch, T packed tokens (`layers.Packing`), H hidden size, n chosen tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ..flooding import cross_entropy
from ..layers import Linear
from ..loss_scale import LossScale
from ..optim import AdamW
from .perturbation import PerturbationDefence, Totals, ascend, norms, pass_shapes

if TYPE_CHECKING:
    from ..bert import BertForSequenceClassification
    from ..settings import TrainSettings

SCORER_SIZE = 300


def _drawn(layer: Linear, generator: np.random.Generator) -> Linear:
    """Draws weight and bias uniformly in +-1 / sqrt(inputs), as PyTorch's layers are."""
    limit = 1.0 / math.sqrt(layer.in_channels)
    for each in (layer.weight, layer.bias):
        each.set_data(Tensor(generator.uniform(-limit, limit, each.shape).astype(np.float32)))
    return layer


class Gaussian(nn.Cell):
    """q(y | x) = N(mu(x), diag exp(v(x))) with two small networks; everything is a mean over the real tokens."""

    def __init__(self, size: int, generator: np.random.Generator):
        super().__init__()
        self.mean = nn.CellList([_drawn(Linear(size, size), generator) for _ in range(2)])
        self.log_variance = nn.CellList([_drawn(Linear(size, size), generator) for _ in range(2)])
        self.tanh = ops.Tanh()

    def moments(self, x, frozen):
        outputs = ()
        for first, second in (self.mean, self.log_variance):
            if frozen:  # a constant to the loss, except through x
                stop = ops.stop_gradient
                hidden = ops.relu(first.function(x, stop(first.weight), stop(first.bias)))
                outputs = (*outputs, second.function(hidden, stop(second.weight), stop(second.bias)))
            else:
                outputs = (*outputs, second(ops.relu(first(x))))
        return outputs[0], self.tanh(outputs[1])

    def upper_bound(self, x, y, real):
        """CLUB: mean_i log q(y_i | x_i) - mean_ij log q(y_j | x_i); the double mean in closed form. (T, H) -> scalar"""
        mean, log_variance = self.moments(x, True)
        share = real / real.sum()  # (T, 1)
        mean_y = (y * share).sum(axis=0, keepdims=True)
        mean_square = (y * y * share).sum(axis=0, keepdims=True)
        of_all_pairs = mean_square - 2.0 * mean * mean_y + mean * mean
        difference = of_all_pairs - (y - mean) * (y - mean)
        return (difference * ops.exp(-log_variance) * share).sum() * 0.5

    def negative_log_likelihood(self, x, y, real):
        """Up to a constant; trains the two networks alone."""
        x, y = ops.stop_gradient(x), ops.stop_gradient(y)
        mean, log_variance = self.moments(x, False)
        each = (y - mean) * (y - mean) * ops.exp(-log_variance) + log_variance
        return (each * (real / real.sum())).sum() * 0.5


class Scorer(nn.Cell):
    """s(x, y) = softplus(w relu(W [x; y] + c) + d) of a token's and a sentence's feature."""

    def __init__(self, size: int, generator: np.random.Generator):
        super().__init__()
        self.size = size
        self.hidden = _drawn(Linear(2 * size, SCORER_SIZE), generator)
        self.output = _drawn(Linear(SCORER_SIZE, 1), generator)
        self.matmul = ops.MatMul(transpose_b=True)

    def scores(self, tokens, sentences):  # (n, H), (B, H) -> (n, B), each token with each sentence
        of_tokens = self.matmul(tokens, self.hidden.weight[:, : self.size])
        of_sentences = self.matmul(sentences, self.hidden.weight[:, self.size :]) + self.hidden.bias
        hidden = ops.relu(of_tokens.expand_dims(1) + of_sentences.expand_dims(0))
        scores = self.output(hidden.reshape((-1, SCORER_SIZE))).reshape((-1, of_sentences.shape[0]))
        return ops.relu(scores) + ops.log1p(ops.exp(-ops.abs(scores)))

    def lower_bound(self, tokens, sentences, example):
        """InfoNCE: mean_i s(x_i, y_e(i)) - mean_i (logsumexp_j s(x_i, y_e(j)) - log n), e(i) the token's example."""
        scores = self.scores(tokens, sentences)
        own = (example.expand_dims(1) == ops.arange(0, sentences.shape[0]).astype(ms.int32)).astype(ms.float32)
        counts = own.sum(axis=0, keepdims=True)  # (1, B), so many of the n tokens are an example's
        # log1p and not log, whose last bit is not always the same (see `flooding.cross_entropy`)
        weights = ops.select(counts > 0, ops.log1p(ops.maximum(counts - 1.0, 0.0)), ops.ones_like(counts) * -1e30)
        weighted = scores + weights
        highest = ops.stop_gradient(weighted.max(axis=1, keepdims=True))
        of_all = ops.log1p(ops.exp(weighted - highest).sum(axis=1) - 1.0) + highest.reshape(-1)
        return ((scores * own).sum(axis=1) - of_all).mean() + ops.log(counts.sum())


class _Objective(nn.Cell):
    """share (CE + beta CLUB) - share_nce InfoNCE + share NLL, and CE by the probe; a loss scale is of the shares."""

    def __init__(
        self,
        model: BertForSequenceClassification,
        gaussian: Gaussian,
        scorer: Scorer,
        probe,
        beta: float,
        loss_scale: LossScale | None,
    ):
        super().__init__(auto_prefix=False)
        self.loss_scale = loss_scale
        self.model, self.gaussian, self.scorer, self.probe, self.beta = model, gaussian, scorer, probe, beta
        self.nonzero = ops.NonZero()

    def construct(self, perturbation, share, share_nce, chosen, input_ids, attention_mask, token_type_ids, labels):
        pooled, packed = self.model.bert(input_ids, attention_mask, token_type_ids, perturbation, output_packed=True)
        logits = self.model.classifier(self.model.dropout(pooled))
        loss = cross_entropy(logits, labels).mean()
        words, embedded, sentences, places = packed
        real = (attention_mask.reshape(-1)[places] != 0).astype(ms.float32).reshape((-1, 1))
        upper = self.gaussian.upper_bound(words, embedded, real)
        likelihood = self.gaussian.negative_log_likelihood(words, embedded, real)
        rows = self.nonzero(chosen.reshape(-1)[places]).astype(ms.int32).reshape(-1)
        lower = self.scorer.lower_bound(ops.gather(embedded, rows, 0), sentences, places[rows] // input_ids.shape[1])
        if self.loss_scale is not None:
            share, share_nce = share * self.loss_scale.scale, share_nce * self.loss_scale.scale
        return share * (loss + self.beta * upper + likelihood) - share_nce * lower + self.probe * loss


def anchored(gradient, attention_mask, low, high):
    """Marks, in each example, the tokens whose gradient's norm lies from quantile `low` to below `high`.

    gradient (B, L, H), attention_mask (B, L) -> int32 (B, L). Where no token of the batch does, the first ones are.
    """
    sizes = ops.select(attention_mask != 0, norms(gradient, 2).squeeze(2), ops.ones_like(attention_mask) * -1.0)
    places = ops.arange(0, attention_mask.shape[1]).astype(ms.int32)
    mine, others = sizes.expand_dims(2), sizes.expand_dims(1)  # (B, L, 1), (B, 1, L)
    before = ops.logical_or(
        others < mine, ops.logical_and(others == mine, places.expand_dims(0) < places.expand_dims(1))
    )
    counted = before.astype(ms.float32) * attention_mask.astype(ms.float32).expand_dims(1)
    rank = counted.sum(axis=2)
    tokens = attention_mask.astype(ms.float32).sum(axis=1, keepdims=True)
    inside = ops.logical_and(rank >= low * tokens, rank < high * tokens)
    chosen = inside.astype(ms.int32) * (attention_mask != 0).astype(ms.int32)
    none = (chosen.sum() == 0).astype(ms.int32)
    return chosen + none * (places.expand_dims(0) == 0).astype(ms.int32)


class _Pass(nn.Cell):
    """Adds the objective's gradient to the totals; returns CE, the next perturbation and the tokens chosen by it."""

    def __init__(self, objective: _Objective, totals: Totals, own_totals: Totals, weights: list[Parameter], quantiles):
        super().__init__(auto_prefix=False)
        self.objective, self.own, self.models = objective, own_totals, totals
        self.low, self.high = quantiles
        self.count = len(self.models.totals)
        self.weights = ParameterTuple((*weights, objective.probe))
        self.gradient = ops.GradOperation(get_all=True, get_by_list=True)

    def construct(self, perturbation, step_size, bound, share, share_nce, chosen, *batch):
        by_inputs, by_weights = self.gradient(self.objective, self.weights)(
            perturbation, share, share_nce, chosen, *batch
        )
        added = self.models(by_weights[: self.count]), self.own(by_weights[self.count : -1])
        gradient = by_inputs[0]
        if self.objective.loss_scale is not None:
            gradient = self.objective.loss_scale.of_perturbation(gradient)
        following = ascend(perturbation, gradient, step_size, bound)
        return ops.depend(by_weights[-1], added), following, anchored(gradient, batch[1], self.low, self.high)


class InfoBERT(PerturbationDefence):
    """K forward and K backward passes, as FreeLB; the estimators have an Adam of their own."""

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        super().__init__(model, optimizer, settings)
        assert settings.infobert_alpha is not None and settings.infobert_beta is not None
        assert settings.infobert_learning_rate is not None
        generator = np.random.default_rng([settings.seed, 2**31])
        size = model.config.hidden_size
        self.gaussian, self.scorer = Gaussian(size, generator), Scorer(size, generator)
        estimators = nn.CellList([self.gaussian, self.scorer])
        self.own_optimizer = AdamW(
            estimators.trainable_params(), settings.infobert_learning_rate, weight_decay=0.0, loss_scale=self.loss_scale
        )
        weights = [*optimizer.parameters, *self.own_optimizer.parameters]
        self.totals, self.apply = self.steps_along(optimizer, settings.max_grad_norm)
        own_totals, self.apply_own = self.steps_along(self.own_optimizer, None)
        probe = Parameter(Tensor(0.0, ms.float32), name="probe")
        objective = _Objective(model, self.gaussian, self.scorer, probe, settings.infobert_beta, self.loss_scale)
        quantiles = settings.infobert_low, settings.infobert_high
        perturbation, step_size, bound, *batch = pass_shapes(self)
        passed = _Pass(objective, self.totals, own_totals, weights, quantiles)
        self.one_pass = self.graph(passed, perturbation, step_size, bound, [], [], batch[0], *batch)
        self.alpha = settings.infobert_alpha

    def passes(self, start: Tensor, batch: tuple[Tensor, ...]) -> list[Tensor]:
        losses, following = [], start
        share = Tensor(1.0 / self.steps, ms.float32)
        chosen, share_nce = batch[1], Tensor(0.0, ms.float32)  # the first pass has nothing to choose by
        for _ in range(self.steps):
            self.perturbation = following
            loss, following, chosen = self.one_pass(
                self.perturbation, self.step_size, self.bound, share, share_nce, chosen, *batch
            )
            share_nce = Tensor(self.alpha / self.steps, ms.float32)
            losses.append(loss)
        self.apply()
        self.apply_own()
        return losses

    def learned(self) -> list[Parameter]:
        """The estimators, their moments, and where their Adam is."""
        return list({each.name: each for each in self.own_optimizer.get_parameters()}.values())

    def state(self) -> dict[str, np.ndarray]:
        return {each.name: each.asnumpy() for each in self.own_optimizer.parameters}
