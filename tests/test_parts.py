"""Batches in parts: every example is in one part, and the parts' shares are those of their examples."""

import numpy as np
import pytest
from small_model import random_batches

from mindspore_floodx.errors import UserError
from mindspore_floodx.parts import Division
from mindspore_floodx.settings import TrainSettings


@pytest.mark.parametrize("workers, micro_batches, examples", [(1, 1, 6), (2, 1, 7), (1, 4, 6), (2, 2, 3), (3, 2, 1)])
def test_every_example_is_in_one_part(workers, micro_batches, examples):
    batch = random_batches(1, size=examples)[0] | {"flood_levels": np.arange(examples, dtype=np.float32)}
    parts = [part for rank in range(workers) for part in Division(micro_batches, rank, workers).parts(batch)]
    assert len(parts) == workers * micro_batches
    counted = [part for part in parts if part.share > 0]
    assert np.concatenate([part.rows for part in counted]).tolist() == list(range(examples))  # in their order
    sizes = [len(part.rows) for part in counted]
    assert max(sizes) - min(sizes) <= 1
    assert [part.share for part in counted] == [size / examples for size in sizes]
    for part in parts:
        assert len(part.batch["labels"]) == len(part.rows) >= 1  # an empty part has an example with a share of 0
        length = part.batch["input_ids"].shape[1]
        assert length == batch["attention_mask"][part.rows].sum(axis=1).max()
        for name, of_all in batch.items():
            expected = of_all[part.rows][:, :length] if of_all.ndim == 2 else of_all[part.rows]
            assert np.array_equal(part.batch[name], expected) and part.batch[name].dtype == of_all.dtype


def test_a_whole_batch_stays_what_it_is():
    batch = random_batches(1)[0]
    (part,) = Division().parts(batch)
    assert part.share == 1.0 and all(np.array_equal(part.batch[name], batch[name]) for name in batch)


def test_less_than_one_micro_batch_is_refused():
    with pytest.raises(UserError, match="gradient_accumulation_steps is 0; it must be at least 1"):
        TrainSettings(gradient_accumulation_steps=0)
