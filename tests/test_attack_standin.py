from __future__ import annotations

import json

import pytest
import torch

from mindspore_floodx.attack_library import textattack
from mindspore_floodx.attack_standin import MiniLMEncoder, NeighbourLists, read_neighbours
from mindspore_floodx.errors import UserError

LISTS = {"good": ["fine", "great"], "fine": ["good"], "alone": []}


def test_lists_serve_swaps_and_the_distance_constraint():
    lists = NeighbourLists(LISTS)
    swap = textattack.transformations.WordSwapEmbedding(max_candidates=1, embedding=lists)
    assert swap._get_replacement_words("Good") == ["Fine"]
    assert swap._get_replacement_words("great") == []  # only a neighbour, has no list
    assert swap._get_replacement_words("unknown") == []
    near = textattack.constraints.semantics.WordEmbeddingDistance(min_cos_sim=0.5, embedding=lists)
    text = textattack.shared.AttackedText("a good day")

    def passes(word):
        return near._check_constraint(text.replace_word_at_index(1, word), text)

    assert passes("great") and passes("Fine")
    assert not passes("alone")
    assert passes("unheard")  # words outside the lists pass, as words without vectors do in TextAttack


def test_neighbour_file(tmp_path):
    path = tmp_path / "lists.json"
    with pytest.raises(UserError, match="does not exist"):
        read_neighbours(path)
    path.write_text(json.dumps(LISTS))
    assert read_neighbours(path) == LISTS
    for content, message in (
        ("{", "is not valid JSON"),
        ("[]", "JSON object"),
        ('{"a": "b"}', "'a'"),
        ('{"a": [1]}', "'a'"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_neighbours(path)


def test_sentence_vectors_know_meaning_and_do_not_depend_on_the_batch():
    encoder = MiniLMEncoder(threshold=0.8)
    texts = ["the film was great", "the movie was wonderful", "interest rates rose sharply in the second quarter"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, 384)
    alone = MiniLMEncoder().encode(texts[:1])
    torch.testing.assert_close(vectors[:1], alone, rtol=0, atol=1e-5)
    similar, other = encoder.sim_metric(vectors[:1].repeat(2, 1), vectors[1:])
    assert similar > 0.75 > other + 0.1
