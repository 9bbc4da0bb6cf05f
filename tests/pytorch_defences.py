"""PyTorch reference of the robust fine-tuning methods, written from the formulas alone (plain autograd).

Symbols: e = word-embedding output [B, L, d]; m = attention mask [B, L, 1]; len = real tokens of an example;
|x| = norm over the tokens and dimensions of an example; K steps; step size a; initial size e0; bound R (0 = none).
The perturbation delta [B, L, d] is added to e, before position and token-type embeddings, LayerNorm and dropout.

    delta_0   = noise * m * e0 / sqrt(len * d)            noise uniform in [-1, 1)
    Pi(delta) = delta * min(1, R / |delta|)               per example, if R > 0
    CE        = batch mean of the cross-entropy

`method.step(batch, noise)` leaves the gradient in `p.grad` (neither clipped nor applied) and returns the mean CE and
the perturbation of the last pass that gave the parameters a gradient; `optimise` then clips and applies it:

    loss, delta = method.step(batch, noise)
    optimise(model, optimizer, scheduler, max_grad_norm=1.0)
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertForSequenceClassification, get_linear_schedule_with_warmup

Batch = dict[str, np.ndarray]
StepResult = tuple[float, np.ndarray | None]


# ---------------------------------------------------------------------------------------------------------------------
# Optimiser
# ---------------------------------------------------------------------------------------------------------------------
def adamw(
    model: torch.nn.Module, learning_rate: float, weight_decay: float, total_steps: int, warmup_steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW (eps 1e-8; no decay of biases and LayerNorm weights), linear warm-up and then linear decay to zero."""
    decayed, exempt = [], []
    for name, parameter in model.named_parameters():
        (exempt if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)
    return optimizer, get_linear_schedule_with_warmup(optimizer, warmup_steps, total_steps)


def optimise(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    max_grad_norm: float | None = None,
) -> None:
    """Clip `p.grad` to the global norm (unless None), then one step of the optimiser and of the schedule."""
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    if scheduler is not None:
        scheduler.step()


# ---------------------------------------------------------------------------------------------------------------------
# Perturbations
# ---------------------------------------------------------------------------------------------------------------------
EXAMPLE = (1, 2)  # the axes of a perturbation that belong to one example
TOKEN = (2,)  # ... to one token


def norm(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """|x| over `axes`, kept as axes of size one; in float64, so that small gradients do not underflow when squared."""
    return torch.linalg.vector_norm(x.detach().double(), dim=axes, keepdim=True)


def unit(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """x / |x|, and 0 where |x| = 0."""
    size = norm(x, axes)
    nonzero = size > 0
    return torch.where(nonzero, x.double() / torch.where(nonzero, size, 1.0), 0.0).to(x.dtype)


def shrink(size: Tensor, bound: float) -> Tensor:
    """min(1, R / size) if R > 0, else 1."""
    if bound <= 0:
        return torch.ones_like(size)
    return torch.where(size > bound, bound / torch.where(size > bound, size, 1.0), 1.0)


def project(delta: Tensor, bound: float) -> Tensor:
    """Pi(delta) = delta * min(1, R / |delta|) per example if R > 0, else delta."""
    return delta * shrink(norm(delta, EXAMPLE), bound).to(delta.dtype)


class Inputs:
    """The tensors of one batch."""

    def __init__(self, batch: Batch) -> None:
        self.ids = torch.as_tensor(batch["input_ids"]).long()
        self.attention = torch.as_tensor(batch["attention_mask"]).long()
        self.types = torch.as_tensor(batch["token_type_ids"]).long()
        self.labels = torch.as_tensor(batch["labels"]).long()
        self.real = self.attention.bool()  # [B, L]
        self.lengths = self.attention.sum(dim=1)  # [B]


class Method(ABC):
    """What all methods share: zeroing the gradient, the forward pass at e + delta, the count of passes."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self.model = model
        self.passes = 0  # encoder forward passes of the last step

    def begin(self, batch: Batch) -> Inputs:
        """Zero the gradient of every parameter and the count of passes."""
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        self.passes = 0
        return Inputs(batch)

    def mask(self, inputs: Inputs) -> Tensor:
        """m [B, L, 1]."""
        return inputs.attention.unsqueeze(-1).to(self.model.dtype)

    def forward(self, inputs: Inputs, delta: Tensor | None = None, hidden: bool = False) -> tuple[Tensor, Tensor, Any]:
        """Per-example losses [B], e + delta [B, L, d], all hidden states (None unless `hidden`)."""
        embedded = self.model.get_input_embeddings()(inputs.ids)
        if delta is not None:
            embedded = embedded + delta
        output = self.model(
            inputs_embeds=embedded,
            attention_mask=inputs.attention,
            token_type_ids=inputs.types,
            output_hidden_states=hidden,
            return_dict=True,
        )
        self.passes += 1
        losses = F.cross_entropy(output.logits, inputs.labels, reduction="none")
        return losses, embedded, output.hidden_states

    @abstractmethod
    def step(self, batch: Batch, noise: np.ndarray | None = None) -> StepResult:
        """Leave the gradient in `p.grad`; return the mean CE and the perturbation (None if there is none)."""


# ---------------------------------------------------------------------------------------------------------------------
# Fine-tuning and the flooding family: one pass, per-example losses l_i, batch mean J
# ---------------------------------------------------------------------------------------------------------------------
class FineTuning(Method):
    """J, the batch mean of the cross-entropy."""

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """The scalar that is differentiated. torch's |x| has the subgradient 0 at 0."""
        return losses.mean()

    def step(self, batch: Batch, noise: np.ndarray | None = None) -> StepResult:
        """The gradient of the objective; returns (J, None)."""
        losses, _, _ = self.forward(self.begin(batch))
        self.objective(losses, batch).backward()
        return losses.mean().item(), None


class Flooding(FineTuning):
    """|J - b| + b."""

    def __init__(self, model: BertForSequenceClassification, level: float) -> None:
        super().__init__(model)
        self.level = level

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """|J - b| + b."""
        return (losses.mean() - self.level).abs() + self.level


class IFlood(Flooding):
    """mean_i |l_i - b| + b."""

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """mean_i |l_i - b| + b."""
        return (losses - self.level).abs().mean() + self.level


class AdaFlood(FineTuning):
    """mean_i (|l_i - b_i| + b_i), b_i = -log((1 - g) exp(-(a aux_i + c)) + g); aux = batch["auxiliary_losses"]."""

    def __init__(
        self, model: BertForSequenceClassification, gamma: float = 0.5, scale: float = 1.0, shift: float = 0.0
    ) -> None:
        super().__init__(model)
        self.gamma, self.scale, self.shift = gamma, scale, shift

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """mean_i (|l_i - b_i| + b_i)."""
        auxiliary = torch.as_tensor(batch["auxiliary_losses"]).to(losses.dtype)
        confidence = torch.exp(-(self.scale * auxiliary + self.shift))
        levels = -torch.log((1 - self.gamma) * confidence + self.gamma)
        return ((losses - levels).abs() + levels).mean()


class SoftAD(Flooding):
    """b + mean_i rho(l_i - b), rho(x) = sqrt(x^2 + 1) - 1."""

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """b + mean_i rho(l_i - b)."""
        return self.level + (((losses - self.level) ** 2 + 1).sqrt() - 1).mean()


class Selective(Flooding):
    """mean_i [m_i (|l_i - b| + b) + (1 - m_i) beta l_i], m = batch["selected"]."""

    def __init__(self, model: BertForSequenceClassification, level: float, beta: float = 1.0) -> None:
        super().__init__(model, level)
        self.beta = beta

    def objective(self, losses: Tensor, batch: Batch) -> Tensor:
        """mean_i [m_i (|l_i - b| + b) + (1 - m_i) beta l_i]."""
        selected = torch.as_tensor(batch["selected"]).to(losses.dtype)
        flooded = (losses - self.level).abs() + self.level
        return (selected * flooded + (1 - selected) * self.beta * losses).mean()


# ---------------------------------------------------------------------------------------------------------------------
# Adversarial training
# ---------------------------------------------------------------------------------------------------------------------
class Adversarial(Method):
    """K steps of size a from an initial perturbation of size e0, within the bound R (0 = no projection)."""

    def __init__(
        self,
        model: BertForSequenceClassification,
        steps: int = 5,
        step_size: float = 0.03,
        init: float = 0.05,
        bound: float = 0.0,
    ) -> None:
        super().__init__(model)
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        self.steps, self.step_size, self.init, self.bound = steps, step_size, init, bound

    def initial(self, inputs: Inputs, noise: np.ndarray | None) -> Tensor:
        """delta_0 = noise * m * e0 / sqrt(len * d); 0 for e0 = 0, which needs no noise."""
        width = self.model.config.hidden_size
        if noise is None:
            if self.init != 0:
                raise ValueError("an initial size other than 0 needs noise")
            return torch.zeros(*inputs.ids.shape, width, dtype=self.model.dtype)
        uniform = torch.as_tensor(noise).to(self.model.dtype)
        root = (inputs.lengths * width).to(self.model.dtype).sqrt().view(-1, 1, 1)
        return uniform * self.mask(inputs) * self.init / root

    def ascend(self, delta: Tensor, gradient: Tensor) -> Tensor:
        """Pi(delta + a g / |g|)."""
        return project(delta + self.step_size * unit(gradient, EXAMPLE), self.bound)


class PGD(Adversarial):
    """K times g = d CE(e + delta) / d delta, delta <- Pi(delta + a g / |g|); then one pass at delta_K.

    The parameters get their gradient from that last pass only (K + 1 passes in all); J is its CE.
    """

    def step(self, batch: Batch, noise: np.ndarray | None = None) -> StepResult:
        """Returns (CE at delta_K, delta_K)."""
        inputs = self.begin(batch)
        delta = self.initial(inputs, noise)
        for _ in range(self.steps):
            variable = delta.clone().requires_grad_()
            losses, _, _ = self.forward(inputs, variable)
            (gradient,) = torch.autograd.grad(losses.mean(), variable)
            delta = self.ascend(delta, gradient * self.mask(inputs))
        losses, _, _ = self.forward(inputs, delta)
        loss = losses.mean()
        loss.backward()
        return loss.item(), delta.numpy()


class FreeLB(Adversarial):
    """For t = 0 .. K-1 accumulate d (CE(e + delta_t) / K) / d theta; delta_{t+1} = Pi(delta_t + a g / |g|).

    g comes from the same backward pass; J is the mean CE of the K passes.
    """

    def step(self, batch: Batch, noise: np.ndarray | None = None) -> StepResult:
        """Returns (mean CE of the passes, delta_{K-1})."""
        inputs = self.begin(batch)
        delta = self.initial(inputs, noise)
        mean_loss = 0.0
        for t in range(self.steps):
            variable = delta.clone().requires_grad_()
            losses, _, _ = self.forward(inputs, variable)
            loss = losses.mean()
            (loss / self.steps).backward()
            mean_loss += loss.item() / self.steps
            if t < self.steps - 1:
                delta = self.ascend(delta, variable.grad * self.mask(inputs))
        return mean_loss, delta.numpy()


class TAVAT(Adversarial):
    """Token-aware virtual adversarial training: delta = delta_s (sentence) + delta_t (token, from the table G [V, d]).

    Start: delta_s = delta_0, delta_t = G[ids] m / |G[ids] m| with the norm of the whole batch. Each pass accumulates
    the gradient of CE(e + delta_s + delta_t) / K (not divided if `divide` is False). Then, unless it is the last one:

        delta_s += a g / |g| per example;   delta_t += a g / |g| per token
        delta_t *= |delta_t|_token / max over the example's tokens of |delta_t|_token
        both *= min(1, R / |delta_s + delta_t|) per example, if R > 0

    After the last pass G[ids] += delta_t, summed over repeated ids; real tokens only. J is the mean CE of the passes.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        steps: int = 5,
        step_size: float = 0.03,
        init: float = 0.2,
        bound: float = 0.5,
        *,
        table: np.ndarray,
        divide: bool = True,
    ) -> None:
        super().__init__(model, steps, step_size, init, bound)
        self.table = torch.tensor(table, dtype=model.dtype)  # a copy
        self.divide = divide

    def step(self, batch: Batch, noise: np.ndarray | None = None) -> StepResult:
        """Returns (mean CE of the passes, delta_s + delta_t of the last pass)."""
        inputs = self.begin(batch)
        mask = self.mask(inputs)
        sentence = self.initial(inputs, noise)
        token = unit(self.table[inputs.ids] * mask, (0, 1, 2))
        mean_loss = 0.0
        for t in range(self.steps):
            variable = (sentence + token).requires_grad_()
            losses, _, _ = self.forward(inputs, variable)
            loss = losses.mean()
            (loss / self.steps if self.divide else loss).backward()
            mean_loss += loss.item() / self.steps
            if t < self.steps - 1:
                gradient = variable.grad * mask
                sentence = sentence + self.step_size * unit(gradient, EXAMPLE)
                token = token + self.step_size * unit(gradient, TOKEN)
                sizes = norm(token, TOKEN)  # [B, L, 1]
                largest = sizes.amax(dim=1, keepdim=True)
                token = token * (sizes / torch.where(largest > 0, largest, 1.0)).to(token.dtype)
                factor = shrink(norm(sentence + token, EXAMPLE), self.bound).to(token.dtype)
                sentence, token = sentence * factor, token * factor
        self.table.index_add_(0, inputs.ids[inputs.real], token[inputs.real])
        return mean_loss, (sentence + token).numpy()


class InfoBERT(Adversarial):
    """FreeLB passes on CE / K + beta I_CLUB / K - alpha I_NCE / K (I_NCE from the second pass on).

    Over the T real tokens of the batch, x = e + delta and y = output of the embedding layer (hidden_states[0]).

    - q(y|x) = N(mu(x), diag(exp lv(x))), mu = Linear-ReLU-Linear, lv = Linear-ReLU-Linear-Tanh;
      I_CLUB = mean_i sum_d [-(y_i - mu_i)^2 / (2 exp lv_i) + mean_j (y_j - mu_i)^2 / (2 exp lv_i)], with constant q;
      q itself descends NLL / K, NLL = mean_i sum_d [(y_i - mu_i)^2 / (2 exp lv_i) + lv_i / 2], x and y constant.
    - kept tokens: rank (ascending, by the norm of the previous pass's g) in [low len, high len) within the example;
      x_i = their hidden_states[0], y_e = last layer's [CLS] state, s(x, y) = Softplus(W2 relu(W1 [x; y] + b1) + b2);
      I_NCE = mean_i s(x_i, y_e(i)) - mean_i (logsumexp_j s(x_i, y_e(j)) - log n), i and j over the n kept tokens;
      the scorer gets its gradient from the total.

    After the passes: one Adam step on the estimators (attribute `estimators`, torch layout). J is the mean CE.
    The attribute `terms` holds the values of every pass of the last step.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        steps: int = 5,
        step_size: float = 0.04,
        init: float = 0.08,
        bound: float = 0.0,
        *,
        estimators: dict[str, np.ndarray],
        alpha: float = 5e-3,
        beta: float = 5e-3,
        low: float = 0.5,
        high: float = 0.9,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(model, steps, step_size, init, bound)
        self.alpha, self.beta, self.low, self.high = alpha, beta, low, high
        self.estimators = {
            f"{net}.{layer}.{kind}": torch.nn.Parameter(
                torch.tensor(estimators[f"{net}.{layer}.{kind}"], dtype=model.dtype)
            )
            for net in ("mean", "logvar", "score")
            for layer in (0, 2)
            for kind in ("weight", "bias")
        }
        self.adam = torch.optim.Adam(self.estimators.values(), lr=learning_rate)
        self.terms: list[dict[str, float]] = []

    def mlp(self, net: str, x: Tensor, constant: bool = False) -> Tensor:
        """Linear-ReLU-Linear; `constant` keeps the gradient from its weights."""
        w = {k: v.detach() if constant else v for k, v in self.estimators.items() if k.startswith(net)}
        hidden = torch.relu(F.linear(x, w[f"{net}.0.weight"], w[f"{net}.0.bias"]))
        return F.linear(hidden, w[f"{net}.2.weight"], w[f"{net}.2.bias"])

    def club(self, x: Tensor, y: Tensor) -> Tensor:
        """I_CLUB of the tokens x [T, d], y [T, d]; no gradient to q."""
        mu = self.mlp("mean", x, constant=True)
        twice_variance = 2 * torch.exp(torch.tanh(self.mlp("logvar", x, constant=True)))
        positive = -((y - mu) ** 2) / twice_variance
        negative = ((y.unsqueeze(0) - mu.unsqueeze(1)) ** 2).mean(dim=1) / twice_variance  # [i, j, d], mean over j
        return (positive + negative).sum(dim=-1).mean()

    def nll(self, x: Tensor, y: Tensor) -> Tensor:
        """The negative log-likelihood of q, up to a constant; gradient to q only."""
        x, y = x.detach(), y.detach()
        mu, log_variance = self.mlp("mean", x), torch.tanh(self.mlp("logvar", x))
        return ((y - mu) ** 2 / (2 * torch.exp(log_variance)) + log_variance / 2).sum(dim=-1).mean()

    def keep(self, inputs: Inputs, gradient: Tensor) -> Tensor:
        """Boolean [B, L]: real tokens with low len <= rank < high len; ties are ranked by position."""
        sizes = norm(gradient, TOKEN).squeeze(-1)
        kept = torch.zeros_like(inputs.real)
        for example, real in enumerate(inputs.real):
            positions = real.nonzero().squeeze(-1)
            order = torch.argsort(sizes[example, positions], stable=True)  # order[rank] = index into positions
            count = len(positions)
            for rank in range(count):
                kept[example, positions[order[rank]]] = self.low * count <= rank < self.high * count
        return kept

    def nce(self, kept: Tensor, embedded: Tensor, sentences: Tensor) -> Tensor:
        """I_NCE of the kept tokens of `embedded` [B, L, d] with `sentences` [B, d]; 0 if no token is kept."""
        x = embedded[kept]  # [n, d]
        n = len(x)
        if n == 0:
            return embedded.new_zeros(())
        y = sentences[kept.nonzero()[:, 0]]  # [n, d], the sentence of token j
        pairs = torch.cat([x.unsqueeze(1).expand(n, n, -1), y.unsqueeze(0).expand(n, n, -1)], dim=-1)
        scores = F.softplus(self.mlp("score", pairs)).squeeze(-1)  # [i, j] = s(x_i, y_e(j))
        return scores.diagonal().mean() - (torch.logsumexp(scores, dim=1) - math.log(n)).mean()

    def objective(self, inputs: Inputs, delta: Tensor, previous: Tensor | None) -> dict[str, Tensor]:
        """One pass: CE, I_CLUB, I_NCE (0 without a previous gradient), NLL, and the total that is differentiated."""
        losses, embedded, hidden = self.forward(inputs, delta, hidden=True)
        x, y = embedded[inputs.real], hidden[0][inputs.real]
        terms = {"ce": losses.mean(), "club": self.club(x, y), "nce": losses.new_zeros(()), "nll": self.nll(x, y)}
        if previous is not None:
            terms["nce"] = self.nce(self.keep(inputs, previous), hidden[0], hidden[-1][:, 0])
        terms["total"] = (terms["ce"] + self.beta * terms["club"] - self.alpha * terms["nce"]) / self.steps
        return terms

    def step(self, batch: Batch, noise: np.ndarray | None = None) -> StepResult:
        """Returns (mean CE of the passes, delta_{K-1}); the estimators have taken their Adam step."""
        inputs = self.begin(batch)
        for weight in self.estimators.values():
            weight.grad = torch.zeros_like(weight)
        self.terms = []
        delta, gradient = self.initial(inputs, noise), None
        for t in range(self.steps):
            variable = delta.clone().requires_grad_()
            terms = self.objective(inputs, variable, gradient)
            terms["total"].backward()
            (terms["nll"] / self.steps).backward()
            self.terms.append({name: value.item() for name, value in terms.items()})
            if t < self.steps - 1:
                gradient = variable.grad * self.mask(inputs)
                delta = self.ascend(delta, gradient)
        self.adam.step()
        return sum(terms["ce"] for terms in self.terms) / self.steps, delta.numpy()
