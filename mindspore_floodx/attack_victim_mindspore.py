"""The attacked model in MindSpore itself, without a conversion: a run's checkpoint, queried as TextAttack does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .attack_library import textattack
from .device import stoppable, use_device
from .encoding import load_tokenizer

if TYPE_CHECKING:
    from .bert import BertForSequenceClassification

Input = str | tuple[str, str]

# TextAttack warns of models that it does not know; the list of known ones is its own.
_KNOWN = textattack.shared.validators.MODELS_BY_GOAL_FUNCTION[textattack.goal_functions.UntargetedClassification]
_KNOWN.append(r"^mindspore_floodx\.bert\.BertForSequenceClassification$")


class MindSporeModelWrapper(textattack.models.wrappers.ModelWrapper):
    """TextAttack's interface to a `BertForSequenceClassification` of MindSpore, as `HuggingFaceModelWrapper` is to one
    of PyTorch: black-box attacks take it as their model, and give the results of the converted model.

    One graph serves batches of every size and length, so nothing is compiled during an attack.

    Args:
        model: the classifier.
        tokenizer: its Hugging Face tokenizer.
        max_length: longest input in tokens; the tokenizer's and the model's own limits hold as well.
    """

    def __init__(self, model: BertForSequenceClassification, tokenizer: Any, max_length: int | None = None) -> None:
        from .evaluation import Evaluator

        self.model, self.tokenizer = model, tokenizer
        self.evaluator = Evaluator(model)
        self.evaluator.compile()
        limits = [tokenizer.model_max_length, model.config.max_position_embeddings, max_length]
        self.max_tokens = min(limit for limit in limits if limit is not None)

    def __call__(self, texts: list[Input]) -> torch.Tensor:
        """Returns the logits of texts or pairs of texts, [len(texts), labels] float32 on the CPU."""
        from mindspore import Tensor

        inputs = self.tokenizer(
            texts,
            padding="longest",
            truncation=True,
            max_length=self.max_tokens,
            return_token_type_ids=True,
            return_attention_mask=True,
            return_tensors="np",
        )
        names = ("input_ids", "attention_mask", "token_type_ids")
        with stoppable():
            logits = self.evaluator.forward(*(Tensor(inputs[name].astype(np.int32)) for name in names)).asnumpy()
        return torch.from_numpy(logits.astype(np.float32))

    def forget(self) -> None:
        """Nothing: no input is remembered here."""

    def _tokenize(self, inputs: list[Input]) -> list[list[str]]:
        return [
            self.tokenizer.convert_ids_to_tokens(self.tokenizer([text], truncation=True)["input_ids"][0])
            for text in inputs
        ]


class MindSporeVictim(MindSporeModelWrapper):
    """A model folder behind `MindSporeModelWrapper`; see `attack_victims.build_victim`."""

    def __init__(
        self, folder: str | os.PathLike, max_length: int | None = None, device: str = "CPU", threads: int = 1
    ) -> None:
        """Loads the model of a folder in MindSpore's or Hugging Face's layout.

        Args:
            max_length: longest input in tokens; the tokenizer's and the model's own limits hold as well.
            device: ``CPU`` or ``GPU``.
            threads: CPU threads, of MindSpore (see `device.use_device`) and of PyTorch, in which TextAttack and its
                sentence encoder compute.

        Raises:
            UserError: the folder holds no complete classifier or no tokenizer, or MindSpore cannot use the device or
                already computes otherwise in this process.
        """
        use_device(device, threads)
        torch.set_num_threads(threads)
        super().__init__(_load(folder), load_tokenizer(folder), max_length)


def _load(folder: str | os.PathLike) -> Any:
    """The model with every tensor from the file: unlike for training, none is drawn at random where it is missing."""
    from mindspore import Tensor

    from ckpt_convert.names import mindspore_name
    from ckpt_convert.state import load_state

    from .bert import BertConfig, BertForSequenceClassification

    state = load_state(folder)
    model = BertForSequenceClassification(BertConfig.from_dict(state.config))
    tensors = {mindspore_name(name): tensor for name, tensor in state.tensors.items()}
    for name, parameter in model.parameters_and_names():
        parameter.set_data(Tensor(tensors[name]))
    return model
