import copy
import json

import pytest

from mindspore_floodx.errors import UserError
from mindspore_floodx.model_config import check_config, labels_of, parameter_count, read_config, with_labels

GOOD = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
}


def test_bert_base_is_accepted_and_counted_as_hugging_face_counts_it():
    check_config(GOOD, "config.json")
    from transformers import BertConfig, BertForSequenceClassification

    tiny = {**GOOD, "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40}
    assert parameter_count(tiny) == sum(
        p.numel() for p in BertForSequenceClassification(BertConfig.from_dict(tiny)).parameters()
    )
    assert parameter_count(GOOD) == 109_483_778


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": 10**15}, "vocab_size is 1000000000000000, expected 1 to"),
        ({"vocab_size": 10**5000}, "vocab_size is an enormous number"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": -768}, "hidden_size is -768"),
        ({"hidden_size": 768.0}, "hidden_size is 768.0, expected a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": "12"}, "num_hidden_layers is '12'"),
        ({"type_vocab_size": None}, "type_vocab_size is missing"),
        ({"num_attention_heads": 7}, "hidden_size 768 is not a multiple of num_attention_heads 7"),
        ({"hidden_size": 60_000, "intermediate_size": 10**6, "num_hidden_layers": 900}, "parameters, more than"),
        ({"model_type": "roberta"}, "type 'roberta', but only 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is true"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5, expected a number from 0 to 1"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        ({"initializer_range": "big"}, "initializer_range is 'big'"),
        ({"num_labels": 10**9}, "num_labels is 1000000000"),
        ({"id2label": ["a", "b"]}, "id2label is not an object"),
        ({"id2label": {"0": "a", "2": "b"}}, 'id2label does not number its 2 labels from "0" to "1"'),
        ({"id2label": {"0": "a", "1": 3}}, "id2label has a label that is not text"),
    ],
)
def test_a_bad_field_is_named(change, said):
    with pytest.raises(UserError) as error:
        check_config(GOOD | change, "some/config.json")
    assert said in str(error.value) and "some/config.json" in str(error.value) and "\n" not in str(error.value)


def test_all_bad_fields_are_named_at_once():
    with pytest.raises(UserError) as error:
        check_config(GOOD | {"vocab_size": -1, "hidden_size": "x", "is_decoder": True}, "config.json")
    assert all(name in str(error.value) for name in ("vocab_size", "hidden_size", "is_decoder"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1, 2]", "holds a list"),
        (b"null", "holds a NoneType"),
    ],
)
def test_a_file_that_is_no_json_object(tmp_path, content, said):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_config(tmp_path)


def test_a_missing_or_enormous_file(tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        read_config(tmp_path)
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(1 << 34)  # a hole: 16 GB that take no room on disk, and must take none in memory
    with pytest.raises(UserError, match="larger than"):
        read_config(tmp_path)


def test_labels(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GOOD | {"id2label": {"1": "b", "0": "a"}}))
    assert labels_of(read_config(tmp_path)) == {0: "a", 1: "b"}
    assert labels_of(GOOD) == {0: "LABEL_0", 1: "LABEL_1"}
    assert list(labels_of(GOOD | {"num_labels": 3})) == [0, 1, 2]
    named = GOOD | {"id2label": {"0": "no", "1": "yes"}}
    before = copy.deepcopy(named)
    assert with_labels(named, 2)["label2id"] == {"no": 0, "yes": 1}
    assert with_labels(named, 3)["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert named == before


def test_eleven_labels_keep_their_order():
    config = GOOD | {"id2label": {str(i): f"class {i}" for i in range(11)}}
    assert list(labels_of(config)) == list(range(11))
