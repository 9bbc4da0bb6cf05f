"""Trains a mindnlp model with the flooded loss: FOLDER BATCHES.npz FLOOD_LEVEL LEARNING_RATE OUTPUT; prints losses."""

import sys

import mindnlp  # noqa: F401 - first, for it takes PyTorch's place
import mindspore as ms
import numpy as np
from mindnlp.transformers import BertForSequenceClassification

from mindspore_floodx.flooding import FloodingTrainOneStepCell
from mindspore_floodx.mindnlp_cell import MindnlpLoss
from mindspore_floodx.optim import AdamW

folder, batch_file, level, rate, output = sys.argv[1:]
model = BertForSequenceClassification.from_pretrained(folder)
loss = MindnlpLoss(model)
step = FloodingTrainOneStepCell(loss, AdamW(loss.trainable_params(), float(rate)), float(level))
step.set_train()
stored = np.load(batch_file)
for number in range(len(stored.files) // 4):
    names = ("input_ids", "attention_mask", "token_type_ids", "labels")
    print(float(step(*(ms.Tensor(stored[f"{number}/{name}"]) for name in names)).asnumpy()))
model.save_pretrained(output)
