"""A mindnlp model as a MindSpore cell, so that flooding trains it: `FloodingTrainOneStepCell(MindnlpLoss(model), ...)`.

For a process that has imported mindnlp; docs/ecosystems.md has an example.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from ckpt_convert.names import mindspore_name

from .errors import UserError


class MindnlpLoss(nn.Cell):
    """The mean cross-entropy of a mindnlp classifier on a batch, a scalar, in PyNative mode.

    mindnlp 0.5.1 has models without cells and, on a CPU, no optimizer that runs. The model's parameters are replaced by
    MindSpore's (under the names of this package's BERT, which `AdamW` tells decayed from undecayed ones by), so that
    MindSpore's optimizers and steps train the model itself: it predicts and saves as before.

    Args:
        model: a mindnlp `BertForSequenceClassification` on the CPU.

    Raises:
        UserError: MindSpore is in graph mode, which cannot compile mindnlp's models.
    """

    def __init__(self, model: Any):
        super().__init__(auto_prefix=False)
        if ms.get_context("mode") != ms.PYNATIVE_MODE:
            raise UserError(
                "a mindnlp model cannot be compiled; call mindspore.set_context(mode=mindspore.PYNATIVE_MODE)"
            )
        self.__dict__["model"] = model  # as a plain attribute: it is neither a cell nor a parameter
        # mindnlp dispatches every tensor's operations by its device and knows that only of tensors which it made
        Tensor._device = next(iter(model.parameters()))._device
        for owner, module in model.named_modules():
            for name, old in list(module._parameters.items()):
                if old is None:
                    continue
                new = Parameter(old.detach(), name=mindspore_name(f"{owner}.{name}"), requires_grad=old.requires_grad)
                module._parameters[name] = new
                self.insert_param_to_cell(new.name, new, check_name_contain_dot=False)

    def set_train(self, mode: bool = True) -> nn.Cell:
        self.model.train(mode)  # dropout
        return super().set_train(mode)

    def construct(self, input_ids, attention_mask, token_type_ids, labels):
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, labels=labels
        ).loss
