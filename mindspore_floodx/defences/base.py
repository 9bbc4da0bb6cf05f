"""The shape that all training methods have in common, and that of those which only weigh the losses of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..accumulation import AccumulatedStep
from ..errors import UserError
from ..flooding import ExampleLosses, WeightedTrainOneStepCell
from ..parts import division_of

if TYPE_CHECKING:
    from ..bert import BertForSequenceClassification
    from ..settings import TrainSettings
    from .preparation import Preparation

Batch = Mapping[str, np.ndarray]
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "labels")


def batch_shapes() -> tuple[Tensor, ...]:
    """Returns what stands for `INPUTS` when a graph is compiled for every batch size and length."""
    ids = Tensor(shape=[None, None], dtype=ms.int32)
    return ids, ids, ids, Tensor(shape=[None], dtype=ms.int32)


def tensors(batch: Batch) -> tuple[Tensor, ...]:
    """Returns the `INPUTS` of a batch."""
    return tuple(Tensor(batch[name]) for name in INPUTS)


class Defence(ABC):
    """What a method does to a batch: one training step of the model.

    A method is a subclass in a file of its own and a YAML file in configs/methods with its settings; a package of a
    user's registers one as an entry point of the group `mindspore_floodx.defences` (docs/methods.md).

    Args:
        model: the classifier that is trained.
        optimizer: over `model.trainable_params()`.
        settings: the run's settings.

    Attributes:
        forward_passes, backward_passes: of the encoder in one training step.
        example_inputs: names of the values of each training example that `prepare` makes and a batch brings along.
        divides: whether a batch may be computed in parts, micro-batches or those of several workers (`parts`), with the
            same step as in one piece. Not so where an example's loss or perturbation depends on the others.
        division: the parts that this process computes.
        flooded: share of the last step's examples whose loss it raised instead of lowering it.
    """

    forward_passes = 1
    backward_passes = 1
    example_inputs: tuple[str, ...] = ()
    divides = False

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        self.model, self.optimizer, self.settings = model, optimizer, settings
        self.division = division_of(settings)
        self.flooded = 0.0

    @classmethod
    def prepare(cls, preparation: Preparation) -> dict[str, np.ndarray]:
        """Returns `example_inputs` for the training data, each [examples]; called before the model is built.

        Args:
            preparation: settings and data of the run, and means to train auxiliary models.
        """
        return {}

    @classmethod
    def auxiliary_passes(cls, settings: TrainSettings) -> tuple[int, int]:
        """Returns how often `prepare` takes a training example forward and backward through an encoder."""
        return 0, 0

    @abstractmethod
    def compile(self) -> None:
        """Compiles all graphs once, for every batch size and length."""

    @abstractmethod
    def train_step(self, batch: Batch) -> float:
        """Trains on a batch.

        Args:
            batch: input_ids, attention_mask, token_type_ids: int32 [batch, length]; labels: int32 [batch]; and the
                `example_inputs`, each [batch].

        Returns:
            the mean loss J that the method computed on the batch, before the step.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Returns what the method has learned beside the model, by name; kept with the checkpoint."""
        return {}

    def training_state(self) -> dict[str, np.ndarray]:
        """Returns, by name, all that the next step depends on beside model, optimizer and dropout's clocks."""
        return self.state()

    def load_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `training_state` returned; a method that has such a state says here how.

        Raises:
            UserError: it does not, or the state is another method's.
        """
        if state:
            raise UserError(
                f"method {self.settings.method} cannot go on from a state (it has no load_training_state); "
                "add --overwrite to begin the run anew"
            )


class WeightedDefence(Defence):
    """A method whose gradient is the mean of w_i grad l_i over the batch, with weights made of the losses l_i.

    A subclass has `weighting`.
    """

    def __init__(self, model: BertForSequenceClassification, optimizer: nn.Optimizer, settings: TrainSettings):
        super().__init__(model, optimizer, settings)
        self._weighting = self.weighting()
        kind = WeightedTrainOneStepCell if self.division.is_whole else AccumulatedStep
        self.step = kind(
            ExampleLosses(model),
            optimizer,
            self._weighting,
            settings.max_grad_norm,
            example_inputs=len(self.example_inputs),
        )

    @abstractmethod
    def weighting(self) -> Any:
        """Returns a cell that makes weights [batch] of losses [batch] and the `example_inputs`."""

    def compile(self) -> None:
        vector = Tensor(shape=[None], dtype=ms.float32)
        shapes = (*batch_shapes(), *(vector for _ in self.example_inputs))
        if isinstance(self.step, AccumulatedStep):
            self.step.compile(*shapes)
            return
        self.step.set_train()
        self.step.set_inputs(*shapes)
        self.step.compile(*shapes)

    def train_step(self, batch: Batch) -> float:
        if isinstance(self.step, AccumulatedStep):
            parts = self.division.parts(batch)
            loss, self.flooded = self.step([(part.share, self._inputs(part.batch)) for part in parts])
            return loss
        self.step.set_train()
        loss, self.flooded = map(float, self.step(*self._inputs(batch)).asnumpy())
        return loss

    def _inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return *tensors(batch), *(Tensor(batch[name].astype(np.float32)) for name in self.example_inputs)
