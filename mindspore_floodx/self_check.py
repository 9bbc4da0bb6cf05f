"""Some training steps of a tiny BERT, which show within seconds whether a device computes what it should.

They take the path of a training run: the same model, step, optimizer and compilation for every batch size and length.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from .device import DEVICES, use_device

if TYPE_CHECKING:
    from mindspore import nn

STEPS = 30
RATE = 2e-3
LEVEL_ABOVE = 100.0  # a flood level that no loss here reaches
SIZES = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 64, "max_position_embeddings": 16}
TOLERANCE = 1e-4  # of losses and of weights after one step, both computed in float32


def check_training(device: str, threads: int | None = None) -> dict[str, Any]:
    """Trains a tiny BERT for 30 steps on 24 generated sentences, and checks loss and flooding.

    Args:
        device: `CPU` or `GPU`; the process can compute on no other one afterwards.
        threads: CPU threads; None takes all cores.

    Returns:
        device; compile_seconds; first_step_seconds; seconds_per_step (median of the others); losses (of the 30 steps);
        loss_error: of the first loss, from the cross-entropy that NumPy computes of the logits in float64;
        flood_error: the largest difference, in steps of the learning rate, between where a flooded step below the
        level leaves a weight and where the step without flooding would leave it if mirrored at the start;
        moved: the largest step of a weight in the same unit, which is 1 for Adam's first step; and `problems`, a
        sentence for each check that failed.

    Raises:
        UserError: as `device.use_device` does.
    """
    use_device(device, threads)
    import mindspore as ms

    from .bert import BertConfig, BertForSequenceClassification
    from .defences.base import batch_shapes, tensors
    from .evaluation import Evaluator
    from .flooding import ClassificationLoss, FloodingTrainOneStepCell
    from .optim import AdamW

    ms.set_seed(0)
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig.from_dict(SIZES | rates))
    _set_weights(model)
    optimizer = AdamW(model.trainable_params(), RATE, weight_decay=0.0)
    step = FloodingTrainOneStepCell(ClassificationLoss(model), optimizer, max_grad_norm=1.0)
    evaluator = Evaluator(model)
    batches = _batches()

    began = time.perf_counter()
    step.set_train()
    step.set_inputs(*batch_shapes())
    step.compile(*batch_shapes())
    evaluator.compile()
    compile_seconds = time.perf_counter() - began

    reference = _cross_entropy(evaluator, batches[0])
    start = _values(step)
    losses, seconds = [], []

    def train(batch: dict[str, np.ndarray]) -> float:
        step.set_train()
        return float(step(*tensors(batch)).asnumpy())

    began = time.perf_counter()
    first = train(batches[0])
    first_seconds = time.perf_counter() - began
    down = _values(step)
    _restore(step, start)
    step.set_flood_level(LEVEL_ABOVE)
    flooded = train(batches[0])
    up = _values(step)
    step.set_flood_level(None)
    _restore(step, start)
    for index in range(STEPS):
        began = time.perf_counter()
        losses.append(train(batches[index % len(batches)]))
        seconds.append(time.perf_counter() - began)

    weights = [parameter.name for parameter in model.trainable_params()]
    moved = max(float(np.abs(down[name] - start[name]).max()) for name in weights) / RATE
    mirrored = max(float(np.abs(down[name] + up[name] - 2 * start[name]).max()) for name in weights) / RATE
    result = {
        "device": device,
        "compile_seconds": compile_seconds,
        "first_step_seconds": first_seconds,
        "seconds_per_step": float(np.median(seconds)),
        "losses": losses,
        "loss_error": max(abs(first - reference), abs(flooded - reference)),
        "flood_error": mirrored,
        "moved": moved,
    }
    return result | {"problems": find_problems(result)}


def find_problems(result: dict[str, Any]) -> list[str]:
    """Returns a sentence for everything that is wrong with what `check_training` measured."""
    problems = []
    losses = result["losses"]
    before, after = np.mean(losses[:3]), np.mean(losses[-3:])
    if not np.isfinite(losses).all():
        problems.append("a loss is not finite")
    elif not after < 0.7 * before:
        problems.append(f"the loss does not fall: {before:.3f} in the first steps, {after:.3f} in the last")
    if not result["loss_error"] < TOLERANCE:
        problems.append(f"the loss is off by {result['loss_error']:.1e} from NumPy's")
    if not abs(result["moved"] - 1) < 0.01:
        problems.append(f"Adam's first step is {result['moved']:.3f} of the learning rate instead of 1")
    if not result["flood_error"] < 0.01:
        problems.append(f"a flooded step below the level is not the mirrored step: off by {result['flood_error']:.1e}")
    return problems


def _batches() -> list[dict[str, np.ndarray]]:
    """Returns three batches of 8 sentences of 5 to 12 tokens; a sentence's class is whether its second token is odd."""
    generator = np.random.default_rng(0)
    batches = []
    for _ in range(3):
        lengths = generator.integers(5, 13, 8)
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int32)
        ids = generator.integers(1, SIZES["vocab_size"], mask.shape).astype(np.int32) * mask
        labels = (ids[:, 1] % 2).astype(np.int32)
        batches.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * mask, "labels": labels})
    return batches


def _set_weights(model: nn.Cell) -> None:
    """Draws the weights with NumPy, so that they are the same on every device; biases and LayerNorm stay."""
    from mindspore import Tensor

    generator = np.random.default_rng(1)
    for parameter in model.get_parameters():
        if not parameter.name.endswith((".bias", ".gamma", ".beta")):
            parameter.set_data(Tensor(generator.normal(0, 0.1, parameter.shape).astype(np.float32)))


def _values(step: nn.Cell) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in step.get_parameters()}


def _restore(step: nn.Cell, values: dict[str, np.ndarray]) -> None:
    from mindspore import Tensor

    for parameter in step.get_parameters():
        parameter.set_data(Tensor(values[parameter.name]))


def _cross_entropy(evaluator: Any, batch: dict[str, np.ndarray]) -> float:
    from mindspore import Tensor

    evaluator.forward.set_train(False)
    inputs = (Tensor(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))
    logits = evaluator.forward(*inputs).asnumpy().astype(np.float64)
    normal = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + logits.max(axis=1)
    return float((normal - logits[np.arange(len(logits)), batch["labels"]]).mean())


def main() -> int:
    """Prints the result of `check_training` as one line of JSON; the doctor runs this in a process for each device."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("device", choices=DEVICES)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    print(json.dumps(check_training(arguments.device, arguments.threads)))
    return 0


if __name__ == "__main__":
    from .errors import run_command

    run_command(main)
