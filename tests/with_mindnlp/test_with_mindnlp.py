"""mindnlp against this package and against PyTorch: weights, logits, training with the flooded loss."""

import importlib.metadata

import numpy as np
import pytest
import torch
from doc_blocks import blocks
from small_model import random_batches, save_small_bert
from tiny_bert import bits, save_tiny_bert
from training_files import make_training_files

from ckpt_convert import to_pytorch
from mindspore_floodx import train
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError
from mindspore_floodx.pretrained import find_model, read_weights

use_device("CPU", 1)


def logits_of_ours(folder, batch):
    from mindspore import Tensor

    from mindspore_floodx.bert import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder).set_train(False)
    return model(*(Tensor(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))).asnumpy()


class TestLoading:
    def test_weights_and_tokenizer_come_through_bit_for_bit(self, tmp_path):
        model = save_tiny_bert(tmp_path / "model")
        found = find_model(f"mindnlp:{model}")
        assert found != model
        assert bits(read_weights(found)) == bits(read_weights(model))
        from transformers import AutoTokenizer

        text = ["A soup, a noodle.", "x9 -- y"]
        ours, theirs = (AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for folder in (model, found))
        assert ours == theirs

    def test_the_bare_encoder_gets_no_classifier_from_mindnlp(self, minilm_folder):
        found, original = read_weights(find_model(f"mindnlp:{minilm_folder}")), read_weights(minilm_folder)
        original.pop("embeddings.position_ids")  # numbers 0, 1, ... of old files
        assert bits({name.removeprefix("bert."): array for name, array in found.items()}) == bits(original)

    def test_a_model_that_is_no_bert(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        with pytest.raises(UserError, match="is a gpt2 model"):
            find_model(f"mindnlp:{tmp_path}")

    def test_code_in_a_bin_file_is_not_run(self, tmp_path):
        folder = save_tiny_bert(tmp_path / "model")
        (folder / "model.safetensors").unlink()
        torch.save({"classifier.bias": _MakesAFile(tmp_path / "made")}, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match="safetensors"):
            find_model(f"mindnlp:{folder}")
        assert not (tmp_path / "made").exists()


class _MakesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class TestParity:
    @pytest.mark.parametrize("which", ["small", "minilm"])
    def test_logits_of_the_same_weights(self, which, in_mindnlp, tmp_path, request):
        if which == "small":
            folder = save_small_bert(tmp_path / "model")
            batch = random_batches(1, size=8)[0]
        else:
            from ckpt_convert import to_mindspore

            to_mindspore(request.getfixturevalue("minilm_folder"), tmp_path / "native", num_labels=2)
            to_pytorch(tmp_path / "native", folder := tmp_path / "model")
            ids = np.random.default_rng(0).integers(1000, 20000, (6, 40)).astype(np.int32)
            mask = (np.arange(40) < np.array([[40], [31], [22], [17], [9], [3]])).astype(np.int32)
            batch = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        np.savez(tmp_path / "batch.npz", **batch)
        in_mindnlp("mindnlp_logits.py", folder, tmp_path / "batch.npz", tmp_path / "logits.npy")
        theirs = np.load(tmp_path / "logits.npy")
        assert np.abs(theirs).max() > 1e-2
        np.testing.assert_allclose(logits_of_ours(folder, batch), theirs, rtol=0, atol=1e-4)


class TestTraining:
    def test_the_flooded_loss_as_in_pytorch(self, in_mindnlp, tmp_path):
        """Twelve steps with AdamW beside a plain loop of PyTorch's; some go uphill."""
        level, rate, batches = 1.12, 5e-3, random_batches(12)
        folder = save_small_bert(tmp_path / "model")
        arrays = {f"{i}/{name}": array for i, batch in enumerate(batches) for name, array in batch.items()}
        np.savez(tmp_path / "batches.npz", **arrays)
        said = in_mindnlp("mindnlp_flooding.py", folder, tmp_path / "batches.npz", level, rate, tmp_path / "trained")
        losses = [float(line) for line in said.split()]
        expected, weights = pytorch_flooding(folder, batches, level, rate)
        assert min(expected) < level < max(expected)
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)
        trained = read_weights(tmp_path / "trained")
        assert trained.keys() == weights.keys()
        for name, array in weights.items():
            if name.endswith("key.bias"):  # softmax makes its gradient 0, and Adam makes steps of what rounding leaves
                continue
            np.testing.assert_allclose(trained[name], array, rtol=0, atol=2e-4, err_msg=name)

    def test_the_documented_program(self, in_mindnlp, tmp_path, monkeypatch):
        (program,) = blocks("ecosystems.md", "python", "mindnlp")
        model = save_tiny_bert(tmp_path / "model")
        program = program.replace("bert-base-uncased", str(model)).replace('"flooded"', f'"{tmp_path / "flooded"}"')
        (tmp_path / "program.py").write_text(
            program.replace("num_labels=2", "num_labels=2, ignore_mismatched_sizes=True")
        )
        assert 0 < float(in_mindnlp(tmp_path / "program.py")) < 5
        assert read_weights(tmp_path / "flooded")["classifier.bias"].shape == (2,)


class TestARun:
    def test_a_model_of_mindnlp_is_trained_under_its_mindspore(self, tmp_path, minilm_folder):
        given = make_training_files(tmp_path, minilm_folder)
        to_pytorch(given["model"], tmp_path / "pytorch")
        own = {"model": f"mindnlp:{tmp_path / 'pytorch'}", "method": "flooding", "flood_level": 0.6, "epochs": 1}
        run = train(**given | own | {"output_dir": str(tmp_path / "run")})  # its end compares with PyTorch's logits
        card = (run / "export" / "README.md").read_text()
        assert f"mindspore {importlib.metadata.version('mindspore')}" in card and "Start: pytorch," in card


def pytorch_flooding(folder, batches, level, rate):
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder).train()
    plain = [name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    groups = [
        {
            "params": [each for name, each in model.named_parameters() if (name in plain) == undecayed],
            "weight_decay": decay,
        }
        for undecayed, decay in ((True, 0.0), (False, 0.01))
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    losses = []
    for batch in batches:
        loss = model(**{name: torch.tensor(array, dtype=torch.long) for name, array in batch.items()}).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        ((loss - level).abs() + level).backward()
        optimizer.step()
    return losses, {name: each.detach().numpy() for name, each in model.state_dict().items()}
