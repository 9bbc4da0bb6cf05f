"""An example's record depends on the example alone: not on those before it, nor on the process."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from tiny_victim import NEIGHBOURS, SENTENCES, export_tiny

from mindspore_floodx.attack_job import AttackJob, Example, VictimSettings
from mindspore_floodx.attack_library import textattack
from mindspore_floodx.attack_recipes import AttackSettings
from mindspore_floodx.attack_swaps import in_fixed_order


@pytest.fixture(scope="module")
def victim_settings(tmp_path_factory):
    return VictimSettings(export_tiny(tmp_path_factory.mktemp("victim")))


def job_of(victim_settings, name):
    settings = AttackSettings(name, "standin", synonyms=NEIGHBOURS)
    return AttackJob(victim_settings, settings, ("text",), seed=3)


def examples():
    """Every sentence twice, once with the wrong class: that one is skipped, and its answer must not be remembered."""
    texts = [text for text in SENTENCES if text]
    return [Example(2 * i + label, (text,), label) for i, text in enumerate(texts) for label in (0, 1)]


@pytest.mark.parametrize("name", ["synonym", "deepwordbug"])
def test_records_and_batches_do_not_depend_on_the_order(victim_settings, name):
    job = job_of(victim_settings, name)
    victim = victim_settings.load()
    built = job.build(victim)
    batches = []
    packed = victim._packed
    logits = packed.logits
    packed.logits = lambda tokens: batches.append(tuple(tokens)) or logits(tokens)

    def attack_all(order):
        seen = {}
        for example in order:
            batches.clear()
            record = job.attacker(built)(example)
            assert record.pop("seconds") >= 0
            seen[example.id] = (record, list(batches))
        return seen

    there, back = attack_all(examples()), attack_all(examples()[::-1])
    assert there == back
    assert {record["result"] for record, _ in there.values()} == {"skipped", "succeeded", "failed"}
    assert all(batches for _, batches in there.values())


def test_a_worker_keeps_its_model_from_one_attack_to_the_next(victim_settings):
    job, other = (pickle.loads(pickle.dumps(job_of(victim_settings, name))) for name in ("synonym", "deepwordbug"))
    kept = {}
    first = job.prepare(kept)
    victim = kept[victim_settings]
    assert first(examples()[0])["id"] == 0
    other.prepare(kept)
    assert kept == {victim_settings: victim}
    shorter = replace(victim_settings, max_length=5)
    replace(job, victim=shorter).prepare(kept)
    assert list(kept) == [shorter]


def test_swaps_that_take_words_from_a_set_have_one_order():
    kind = type("WordSwapWordNet", (textattack.transformations.WordSwap,), {})
    kind._get_replacement_words = lambda self, word: ["c", "a", "b"]
    swap, other = kind(), textattack.transformations.WordSwapQWERTY()
    in_fixed_order(textattack.transformations.CompositeTransformation([swap, other]))
    assert swap._get_replacement_words("word") == ["a", "b", "c"]
    assert type(other) is textattack.transformations.WordSwapQWERTY
    alone = kind()
    in_fixed_order(alone)
    assert alone._get_replacement_words("word") == ["a", "b", "c"]
    assert isinstance(alone, kind)
