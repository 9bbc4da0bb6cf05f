"""Models by way of mindnlp, without mindnlp; tests/with_mindnlp/ has the rest (`make test-mindnlp`)."""

import pytest
from tiny_bert import bits, save_tiny_bert

from mindspore_floodx.errors import UserError
from mindspore_floodx.mindnlp_models import _is_installed, find_python
from mindspore_floodx.pretrained import find_model, read_weights

without_mindnlp = pytest.mark.skipif(_is_installed(), reason="mindnlp is installed")


@pytest.fixture
def model(tmp_path):
    return save_tiny_bert(tmp_path / "model")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Makes the environment's Python a shell script: its arguments are -I, the bridge, the source and the target."""
    monkeypatch.setenv("FLOODX_CACHE", str(tmp_path / "cache"))

    def make(script):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setenv("FLOODX_MINDNLP_PYTHON", str(python))

    return make


COPY = 'echo loaded >> "$3.loads" && test "$1" = -I && cp "$3"/* "$4"'


class TestHandingOver:
    def test_a_folder_is_loaded_once_and_again_when_it_has_changed(self, environment, model, tmp_path):
        environment(COPY)
        first = find_model(f"mindnlp:{model}")
        assert bits(read_weights(first)) == bits(read_weights(model))
        assert (first / "tokenizer.json").is_file()
        assert find_model(f"mindnlp:{model}") == first
        (model / "vocab.txt").write_text("other\n")
        assert find_model(f"mindnlp:{model}") != first
        assert (tmp_path / "model.loads").read_text().count("loaded") == 2

    def test_what_the_process_says_is_passed_on_and_nothing_is_kept(self, environment, model, tmp_path):
        environment("echo Warning: noise >&2; echo 'error: the weights are torn' >&2; exit 1")
        with pytest.raises(UserError, match=r"mindnlp could not load .*model: the weights are torn$"):
            find_model(f"mindnlp:{model}")
        environment("echo Killed >&2; exit 9")
        with pytest.raises(UserError, match=r"its process ended with 9 \(Killed\)"):
            find_model(f"mindnlp:{model}")
        assert not list((tmp_path / "cache").iterdir())


class TestWithoutAnEnvironment:
    @without_mindnlp
    def test_the_remedy_is_named(self, monkeypatch, tmp_path):
        monkeypatch.delenv("FLOODX_MINDNLP_PYTHON", raising=False)
        monkeypatch.setattr("mindspore_floodx.mindnlp_models.ENVIRONMENT", ".venv-not-there")
        with pytest.raises(UserError, match=r"make mindnlp.*FLOODX_MINDNLP_PYTHON"):
            find_model("mindnlp:bert-base-uncased")

    def test_a_variable_that_names_no_program(self, monkeypatch, tmp_path):
        monkeypatch.setenv("FLOODX_MINDNLP_PYTHON", str(tmp_path))
        with pytest.raises(UserError, match="is no program"):
            find_python()

    def test_a_name_is_needed(self):
        with pytest.raises(UserError, match="has no name"):
            find_model("mindnlp:")
