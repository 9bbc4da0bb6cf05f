"""The MindSpore model as the victim: the same answers, so the same attacks, as its PyTorch export."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_victim import LABELS, NEIGHBOURS, PAIRS, SENTENCES, export_tiny

from ckpt_convert import to_mindspore
from mindspore_floodx.attack_recipes import AttackSettings, build_attack
from mindspore_floodx.attack_victim import Victim
from mindspore_floodx.attack_victim_mindspore import MindSporeVictim
from mindspore_floodx.attack_victims import build_victim, demand_no_gradients, find_victim
from mindspore_floodx.attacks import attack
from mindspore_floodx.device import use_device
from mindspore_floodx.errors import UserError

use_device("CPU", 1)
TINY = 1e-4  # of logits: random weights of 0.5 make rounding large, here as between two paddings in PyTorch alone


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with the same model as checkpoint/ and as export/."""
    folder = tmp_path_factory.mktemp("run")
    export_tiny(folder / "export")
    to_mindspore(folder / "export", folder / "checkpoint")
    return folder


@pytest.fixture(scope="module")
def victims(run):
    return Victim(run / "export"), MindSporeVictim(run / "checkpoint")


@pytest.mark.parametrize("inputs", [SENTENCES, PAIRS, ["one"], ["word " * 100, "short", ""]])
def test_logits_equal_those_of_the_export(victims, inputs):
    export, checkpoint = victims
    assert checkpoint.max_tokens == export.max_tokens == 64
    logits = checkpoint(list(inputs))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, export(list(inputs)), rtol=0, atol=TINY)


def test_logits_of_real_weights_on_real_text_equal_those_of_pytorch(shared_data, minilm_folder, tmp_path):
    from transformers import AutoTokenizer, BertForSequenceClassification

    torch.manual_seed(0)
    BertForSequenceClassification.from_pretrained(minilm_folder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(minilm_folder).save_pretrained(tmp_path)
    lines = (shared_data / "glue/SST-2/dev.tsv").read_text(encoding="utf-8").splitlines()[1:33]
    texts = [line.split("\t")[0] for line in lines]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    export, checkpoint = Victim(tmp_path), MindSporeVictim(tmp_path)
    for inputs in (texts, pairs, texts[:1], [texts[2], ""]):
        torch.testing.assert_close(checkpoint(inputs), export(inputs), rtol=0, atol=1e-5)


def test_a_shorter_limit_cuts_the_same_tokens(run):
    export, checkpoint = Victim(run / "export", 7), MindSporeVictim(run / "checkpoint", 7)
    torch.testing.assert_close(checkpoint(SENTENCES), export(SENTENCES), rtol=0, atol=TINY)
    torch.testing.assert_close(checkpoint(PAIRS), export(PAIRS), rtol=0, atol=TINY)


def test_white_box_attacks_are_refused_and_black_box_ones_are_not(victims, caplog):
    built = build_attack(AttackSettings("synonym", synonyms=NEIGHBOURS), victims[1])
    assert "Unknown if model" not in caplog.text
    demand_no_gradients(built, "synonym", "mindspore", False)
    built.is_black_box = False
    demand_no_gradients(built, "hotflip", "pytorch", False)
    for victim, calibrated in (("mindspore", False), ("pytorch", True)):
        with pytest.raises(UserError, match="gradients"):
            demand_no_gradients(built, "hotflip", victim, calibrated)


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """A file of 18 real sentences and one of 8 real pairs, each with labels in turn, and real neighbour lists."""
    if not (shared_data / "counter_fitted").is_dir():
        pytest.skip("the shared data has no counter_fitted")
    folder = tmp_path_factory.mktemp("real")
    sentences = (shared_data / "glue/SST-2/dev.tsv").read_text(encoding="utf-8").splitlines()[1:19]
    pairs = (shared_data / "glue/MRPC/dev.tsv").read_text(encoding="utf-8-sig").splitlines()[1:9]
    rows = [line.split("\t")[0] for line in sentences]
    (folder / "sentences.tsv").write_text(
        "text\tlabel\n" + "".join(f"{text}\t{LABELS[i % 2]}\n" for i, text in enumerate(rows)), encoding="utf-8"
    )
    both = ["\t".join(line.split("\t")[3:5]) for line in pairs]
    (folder / "pairs.tsv").write_text(
        "text\tother\tlabel\n" + "".join(f"{texts}\t{LABELS[i % 2]}\n" for i, texts in enumerate(both)),
        encoding="utf-8",
    )
    return {
        "sentences": {"eval_file": folder / "sentences.tsv", "text_column": "text"},
        "pairs": {"eval_file": folder / "pairs.tsv", "text_column": "text", "text_pair_column": "other"},
        "lists": shared_data / "counter_fitted" / "dne_euc-top8-d0.7.json",
    }


@pytest.mark.parametrize("name", ["synonym", pytest.param("textbugger", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["sentences", "pairs"])
def test_results_on_real_text_equal_those_of_the_export(name, kind, real, run, tmp_path):
    options = {
        "attack": name,
        "num_examples": "all",
        "resources": "standin",
        "neighbours": real["lists"],
        "label_column": "label",
        "output_dir": tmp_path,
        "progress": False,
        **real[kind],
    }
    first = attack(run, **options)
    second = attack(run, victim="mindspore", **options)
    assert (first["victim"], second["victim"]) == ("pytorch", "mindspore")
    assert "mindspore" in second["versions"]
    assert first["num_succeeded"] > 0 < first["num_skipped"]
    figures = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate", "avg_queries", "avg_words_changed")
    assert [second[figure] for figure in figures] == [first[figure] for figure in figures]
    records = [
        [json.loads(line) for line in (tmp_path / "attacks" / each / "examples.jsonl").read_text("utf-8").splitlines()]
        for each in (name, f"{name}-mindspore")
    ]
    for ours, other in zip(*records, strict=True):
        for scores in ("original_scores", "perturbed_scores"):
            assert other.pop(scores) == pytest.approx(ours.pop(scores), abs=2e-5)
        assert other == ours


def test_a_run_without_export_is_attacked_in_mindspore_alone(run, tmp_path):
    shutil.copytree(run / "checkpoint", tmp_path / "checkpoint")
    assert find_victim(tmp_path, "mindspore") == tmp_path / "checkpoint"
    assert find_victim(tmp_path / "checkpoint", "mindspore") == tmp_path / "checkpoint"
    assert find_victim(run / "export", "mindspore") == run / "export"
    with pytest.raises(UserError, match="export"):
        find_victim(tmp_path, "pytorch")
    with pytest.raises(UserError, match="checkpoint"):
        find_victim(tmp_path.parent, "mindspore")


def test_a_model_without_its_classifier_is_refused_instead_of_drawn(run, tmp_path):
    from safetensors.numpy import load_file, save_file

    broken = shutil.copytree(run / "checkpoint", tmp_path / "checkpoint")
    tensors = load_file(broken / "mindspore_model.safetensors")
    save_file({n: t for n, t in tensors.items() if n != "classifier.weight"}, broken / "mindspore_model.safetensors")
    with pytest.raises(UserError, match=r"classifier\.weight"):
        MindSporeVictim(broken)


@pytest.mark.parametrize("victim", ["pytorch", "mindspore"])
def test_a_tokenizer_with_more_words_than_the_model_is_refused(victim, tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    folder = export_tiny(tmp_path / "model")
    config = BertConfig.from_pretrained(folder, vocab_size=100)
    BertForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(UserError, match=r"config\.json has 100 words"):
        build_victim(victim, folder, None, "CPU", 1)
