from __future__ import annotations

import pytest

from mindspore_floodx import attack_resources as needs


@pytest.fixture
def nltk_path(tmp_path, monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path), str(needs.BUILT_IN_NLTK_DATA)])
    return tmp_path


def test_nltk_data_as_folder_or_archive_but_not_our_own_list(nltk_path):
    assert "$NLTK_DATA/corpora/stopwords" in needs.STOPWORDS.missing()
    (nltk_path / "corpora" / "stopwords").mkdir(parents=True)
    assert needs.STOPWORDS.missing() is None
    assert needs.TAGGER.missing() is not None
    (nltk_path / "corpora" / "wordnet.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert needs.WORDNET.missing() is None


def test_vectors_name_each_absent_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TA_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "word_embeddings" / "paragramcf"
    folder.mkdir(parents=True)
    for name in needs.VECTOR_FILES[:-1]:
        (folder / name).touch()
    line = needs.VECTORS.missing()
    assert "cos_sim.p" in line and str(folder) in line and "paragram.npy" not in line
    (folder / "cos_sim.p").touch()
    assert needs.VECTORS.missing() is None


def test_sentence_encoder_needs_its_packages_and_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: None if name == "tensorflow_hub" else object())
    assert "tensorflow_hub" in needs.SENTENCE_ENCODER.missing()
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("TA_CACHE_DIR", raising=False)
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    assert str(needs.cache_folder()) in needs.SENTENCE_ENCODER.missing()  # TextAttack's cache, where none is named
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    assert needs.SENTENCE_ENCODER_FOLDER in needs.SENTENCE_ENCODER.missing()
    (tmp_path / needs.SENTENCE_ENCODER_FOLDER / "variables").mkdir(parents=True)
    (tmp_path / needs.SENTENCE_ENCODER_FOLDER / "saved_model.pb").touch()
    assert needs.SENTENCE_ENCODER.missing() is not None
    (tmp_path / needs.SENTENCE_ENCODER_FOLDER / "variables" / "variables.index").touch()
    assert needs.SENTENCE_ENCODER.missing() is None


def test_masked_lm_in_a_folder_or_the_hub_cache(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    assert "--masked-lm" in needs.masked_lm(None).missing()
    assert str(tmp_path) in needs.masked_lm(tmp_path).missing()
    (tmp_path / "config.json").touch()
    assert needs.masked_lm(tmp_path).missing() is None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: "somewhere")
    assert needs.masked_lm(None).missing() is None
    assert needs.list_missing((needs.masked_lm(tmp_path / "no"), needs.masked_lm(None))) != []
