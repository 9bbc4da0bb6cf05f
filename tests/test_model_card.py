"""The model card says what the run's files say, and goes to the hub with the export."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from doc_blocks import blocks
from run_files import write_attack, write_run_files

from mindspore_floodx.cli.model_card import main
from mindspore_floodx.errors import UserError
from mindspore_floodx.model_card import card_or_reason, push_to_hub, write_model_card

RUN = "runs/mrpc-flooding-0"  # in the documentation


@pytest.fixture
def run(tmp_path):
    folder = write_run_files(tmp_path / "sst2-flooding-0", 0.1)
    write_attack(folder, "deepwordbug", ["failed", "failed", "succeeded", "skipped"])
    return folder


def metadata_and_text(card):
    _, head, text = card.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_tells_data_method_figures_and_limits(run):
    metadata, text = metadata_and_text(write_model_card(run))
    assert metadata["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert metadata["datasets"] == ["nyu-mll/glue"]
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.8125}]
    assert result["dataset"]["config"] == "sst2"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    for row in (
        ["method", "flooding"],
        ["seed", "0"],
        ["train", "SST-2/train.tsv (a part of the official data)", "4,000", "a" * 16],
        ["this model (last epoch)", "2", "0.2000", "0.4500", "81.25"],
        ["best epoch", "1", "0.6000", "0.4000", "87.50"],
        ["deepwordbug (stand-in resources)", "4 of 872", "75.0 [30.1, 95.4]", "50.0 [15.0, 85.0]"],
    ):
        assert any(each[: len(row)] == row for each in rows), row
    for words in (
        "classifies texts as negative or positive",
        "Flood level b: 0.1 nats.",
        "25% of the steps went uphill",
        "MiniLM sentence encoder in the place",
        "stand-in resources compare models with each other",
        "Not all of the official data",
        "mindspore 2.10.0",
        "with seed 0",
        'model="sst2-flooding-0"',
    ):
        assert words in text, words


def test_a_level_that_the_run_found_and_a_run_without_attack(tmp_path):
    run = write_run_files(tmp_path / "run", None, method="floodingx")
    decision = {"level": 0.2431, "reason": "accordance left its plateau", "runs": 1}
    (run / "flood_level.json").write_text(json.dumps(decision))
    _, text = metadata_and_text(write_model_card(run))
    assert "Flood level b: 0.2431 nats, found by the run (accordance left its plateau)." in text
    assert "This model has not been attacked." in text
    assert "stand-in" not in text


def test_paths_of_this_machine_stay_here(tmp_path):
    settings = {"dataset": "reviews", "model": str(tmp_path / "models" / "mine"), "train_file": str(tmp_path / "a.csv")}
    run = write_run_files(tmp_path / "own", 0.1, text_column="review", **settings)
    environment = json.loads((run / "environment.json").read_text())
    environment["data"]["train"]["source"] = str(tmp_path / "secret" / "train.csv")
    (run / "environment.json").write_text(json.dumps(environment))
    metadata, text = metadata_and_text(write_model_card(run))
    assert str(tmp_path) not in text + json.dumps(metadata)
    assert "Start: mine, with" in text and "| train.csv (a part" in text
    assert not {"base_model", "datasets", "model-index", "language"} & set(metadata)


def test_a_card_of_ones_own_stays_and_ours_is_written_again(run):
    card = write_model_card(run)
    before = card.read_text()
    write_attack(run, "synonym", ["failed"] * 4, "built-in", resource_notes=[])
    write_model_card(run)
    assert "synonym (the project's own attack)" in card.read_text() and "synonym" not in before
    card.write_text("# mine\n")
    with pytest.raises(UserError, match=r"README\.md was not written by this command"):
        write_model_card(run)
    assert card.read_text() == "# mine\n"


def test_an_unfinished_run_has_no_card(tmp_path):
    run = write_run_files(tmp_path / "young", 0.1, finished=False)
    with pytest.raises(UserError, match="is no finished run"):
        write_model_card(run)


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub: notes what is asked of it."""
    asked = []

    class Api:
        def create_repo(self, repository, private, exist_ok):
            asked.append(("create", repository, private, exist_ok))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repository}")

        def upload_folder(self, folder_path, repo_id, commit_message):
            asked.append(("upload", sorted(path.name for path in folder_path.iterdir()), repo_id))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_a")
    return SimpleNamespace(asked=asked, api=Api)


def test_where_it_was_not_asked_for_it_fails_nobody(run, monkeypatch):
    assert card_or_reason(run) == "wrote the model card README.md"
    (run / "export" / "README.md").write_text("# mine")
    assert card_or_reason(run).startswith("no model card: ") and (run / "export" / "README.md").read_text() == "# mine"
    assert card_or_reason(run / "absent").startswith("no model card: there is no folder")
    monkeypatch.setattr(huggingface_hub, "ModelCardData", lambda **given: 1 / 0)
    assert card_or_reason(run, run) == "no model card: division by zero"


def test_a_model_by_way_of_mindnlp_is_named_as_without(tmp_path):
    folder = write_run_files(tmp_path / "run", None, model="mindnlp:google-bert/bert-base-uncased")
    metadata, text = metadata_and_text(write_model_card(folder))
    assert metadata["base_model"] == "google-bert/bert-base-uncased"
    assert "Start: google-bert/bert-base-uncased," in text


def test_the_documented_commands_write_and_upload(run, hub, capsys):
    (block,) = blocks("ecosystems.md", "bash", "Hugging Face")
    for line in block.replace(RUN, str(run)).splitlines():
        python, script, *words = shlex.split(line)
        assert (python, script) == ("python", "run/model_card.py")
        assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {run / 'export' / 'README.md'}",
        "uploaded to https://huggingface.co/USER/NAME",
    ]
    assert hub.asked == [("create", "USER/NAME", True, True), ("upload", ["README.md", "config.json"], "USER/NAME")]


def test_uploads_that_fail_are_told_in_a_sentence(run, hub, monkeypatch):
    def refused(self, *args, **options):
        raise huggingface_hub.errors.HFValidationError("Repo id must be in the form 'namespace/name'\nmore")

    def unreachable(self, *args, **options):
        raise ConnectionError("no route to the hub")

    for failure, said in ((refused, "Repo id must be"), (unreachable, "no route")):
        monkeypatch.setattr(hub.api, "create_repo", failure)
        with pytest.raises(UserError, match=f"^a/b was not uploaded: {said}[^\n]*$"):
            push_to_hub(run, "a/b")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="not logged in"):
        push_to_hub(run, "a/b")
    with pytest.raises(UserError, match="--private is of an upload"):
        main([str(run), "--private"])
