"""Logits of a model in mindnlp: FOLDER BATCHES.npz LOGITS.npy."""

import sys

import mindnlp  # noqa: F401 - first, for it takes PyTorch's place
import numpy as np
import torch
from mindnlp.transformers import BertForSequenceClassification

folder, batch_file, target = sys.argv[1:]
model = BertForSequenceClassification.from_pretrained(folder)
model.eval()
batch = {name: torch.tensor(array) for name, array in np.load(batch_file).items() if name != "labels"}
np.save(target, model(**batch).logits.asnumpy())
