"""Data sets by name and from files: official layouts in miniature, the hub, every kind of bad row, the command."""

from __future__ import annotations

import csv
import json
import types

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindspore_floodx import hub
from mindspore_floodx.cli.data import main
from mindspore_floodx.data import DATASETS, describe, load_dataset, load_files
from mindspore_floodx.errors import UserError

MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
MRPC_ROWS = ['1\t1\t2\t" one opens\tand two .', "0\t3\t4\tthree , four\tfive"]


@pytest.fixture
def glue(tmp_path):
    """A folder glue/ with SST-2, MRPC and QNLI of two or three rows each."""
    files = {
        "SST-2/train.tsv": ["sentence\tlabel", "hide new secretions \t0", "a gem\t1", "long enough to be kept here\t1"],
        "SST-2/dev.tsv": ["sentence\tlabel", "it 's charming . \t1", "bleak\t0"],
        "MRPC/train.tsv": [MRPC_HEADER, *MRPC_ROWS],
        "MRPC/dev.tsv": [MRPC_HEADER, *reversed(MRPC_ROWS)],
        "QNLI/train_partial.tsv": [
            "index\tquestion\tsentence\tlabel",
            "0\tq?\ts\tentailment",
            "1\tw?\ts\tnot_entailment",
        ],
        "QNLI/dev.tsv": ["index\tquestion\tsentence\tlabel", "0\tx?\ty\tnot_entailment", "1\tz?\ty\tentailment"],
    }
    for name, lines in files.items():
        put(tmp_path / "glue" / name, lines)
    return tmp_path / "glue"


def put(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refused(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


class TestGlue:
    @pytest.mark.parametrize("data_dir", ["", "glue", "glue/SST-2"])
    def test_sst2_from_every_folder(self, glue, data_dir):
        data = load_dataset("sst2", glue.parent / data_dir)
        assert data.train.texts[0] == "hide new secretions " and data.train.pairs is None
        assert data.train.labels.tolist() == [0, 1, 1] and data.train.labels.dtype == np.int32
        assert (data.evaluation.name, data.evaluation.texts[1]) == ("validation", "bleak")
        assert data.label_names == ["negative", "positive"] and data.num_labels == 2
        assert (data.train.source, data.evaluation.source) == ("SST-2/train.tsv", "SST-2/dev.tsv")

    def test_mrpc_keeps_quotation_marks_and_both_texts(self, glue):
        data = load_dataset("mrpc", glue)
        assert (data.train.texts, data.train.pairs) == (['" one opens', "three , four"], ["and two .", "five"])
        assert data.train.labels.tolist() == [1, 0] and data.text_columns == ("sentence1", "sentence2")

    def test_mrpc_as_microsoft_ships_it_never_meets_glues_dev_file(self, glue):
        for part in ("train", "test"):
            put(glue / "MRPC" / f"msr_paraphrase_{part}.txt", ["\ufeff" + MRPC_HEADER, *MRPC_ROWS])
        asked = load_dataset("mrpc", glue, train_file="msr_paraphrase_train.txt")
        assert load_dataset("mrpc", glue).evaluation.source == "MRPC/dev.tsv"
        (glue / "MRPC" / "train.tsv").unlink()
        for data in (asked, load_dataset("mrpc", glue)):
            assert data.train.source.endswith("train.txt") and data.evaluation.source.endswith("test.txt")

    def test_qnli_labels_are_the_hubs(self, glue):
        data = load_dataset("qnli", glue, train_file="train_partial.tsv")
        assert data.label_names == ["entailment", "not_entailment"]
        assert data.train.labels.tolist() == [0, 1] and data.evaluation.labels.tolist() == [1, 0]
        assert (data.train.texts[0], data.train.pairs[0]) == ("q?", "s")

    def test_fewer_rows_than_the_official_file_are_partial(self, glue, monkeypatch):
        data = load_dataset("sst2", glue)
        assert data.train.partial and data.evaluation.partial

    def test_partial_file_is_used_only_when_asked_for(self, glue):
        message = refused(load_dataset, "qnli", glue)
        assert "train_partial.tsv" in message and "--train train_partial.tsv" in message
        for options in ({"train_file": "train_partial.tsv"}, {"allow_partial": True}):
            train = load_dataset("qnli", glue, **options).train
            assert train.partial and train.source == "QNLI/train_partial.tsv"

    def test_allow_partial_prefers_the_whole_file(self, glue):
        put(glue / "SST-2" / "train_partial.tsv", ["sentence\tlabel", "x\t0", "y\t1"])
        assert load_dataset("sst2", glue, allow_partial=True).train.source == "SST-2/train.tsv"

    def test_missing_files(self, glue, tmp_path):
        assert "did you mean 'train.tsv'" in refused(load_dataset, "sst2", glue, train_file="trian.tsv")
        (glue / "SST-2" / "dev.tsv").unlink()
        message = refused(load_dataset, "sst2", glue)
        assert "SST-2/dev.tsv: no such file" in message and "train.tsv" in message
        assert "no mrpc files" in refused(load_dataset, "mrpc", put(tmp_path / "e" / "x", []).parent)
        assert "no such folder" in refused(load_dataset, "mrpc", tmp_path / "absent")

    def test_bad_rows_name_line_field_and_count(self, glue):
        put(glue / "SST-2" / "train.tsv", ["sentence\tlabel", "a\t0", "b\t2", "\t1", "c", "d\t1"])
        message = refused(load_dataset, "sst2", glue)
        assert "SST-2/train.tsv, line 3: column 'label' has the unknown label '2'; use one of '0', '1'" in message
        assert "first of 3 bad rows" in message


class TestAgNews:
    @pytest.fixture
    def folder(self, tmp_path):
        rows = ['"3","Wall ""St""","falls, again"', '"1","World","news\\today"', '"4","Sci","tech"', '"2","S","t"']
        put(tmp_path / "ag_news" / "train.csv", rows)
        put(tmp_path / "ag_news" / "test.csv", rows[:2])
        return tmp_path

    def test_title_and_description_are_one_text(self, folder):
        data = load_dataset("ag_news", folder)
        assert data.train.texts[:2] == ['Wall "St" falls, again', "World news\\today"]
        assert data.train.pairs is None and data.text_columns == ("text",)
        assert data.train.labels.tolist() == [2, 0, 3, 1]
        assert data.label_names == ["World", "Sports", "Business", "Sci/Tech"]
        assert data.evaluation.name == "test"

    def test_partial_json_lines(self, folder):
        lines = [{"text": "a", "label": 0}, {"text": "b", "label": "Business"}]
        put(folder / "ag_news" / "train_partial.jsonl", map(json.dumps, lines))
        train = load_dataset("ag_news", folder, train_file="train_partial.jsonl").train
        assert train.labels.tolist() == [0, 2] and train.partial
        assert load_dataset("ag_news", folder, allow_partial=True).train.source == "ag_news/train.csv"

    def test_bad_class(self, folder):
        put(folder / "ag_news" / "train.csv", ['"1","a","b"', '"5","a","b"'])
        assert "train.csv, line 2: column 'class' has the unknown label '5'" in refused(load_dataset, "ag_news", folder)


class TestCuts:
    def test_words_are_counted_before_examples(self, glue):
        train = load_dataset("sst2", glue, min_words=2, max_train_examples=2).train
        assert train.texts == ["hide new secretions ", "a gem"]
        assert train.source == "SST-2/train.tsv, of at least 2 words, first 2"
        data = load_dataset("sst2", glue, min_words=3)
        assert data.train.texts == ["hide new secretions ", "long enough to be kept here"]
        assert len(data.evaluation) == 2

    def test_cut_to_one_class(self, glue):
        message = refused(load_dataset, "sst2", glue, max_train_examples=1)
        assert "all 1 examples of the train split have the label 'negative'" in message
        assert "no examples are left" in refused(load_dataset, "sst2", glue, min_words=100)

    @pytest.mark.parametrize("option", ["max_train_examples", "min_words"])
    def test_not_positive(self, glue, option):
        assert f"{option} is 0" in refused(load_dataset, "sst2", glue, **{option: 0})

    def test_fingerprint_is_the_content(self, glue, tmp_path):
        data = load_dataset("sst2", glue)
        assert data.train.fingerprint != load_dataset("sst2", glue, max_train_examples=2).train.fingerprint
        lines = [f"{text}\t{label}" for text, label in zip(data.train.texts, data.train.labels, strict=True)]
        put(tmp_path / "copy.tsv", ["t\tl", *lines])
        same = load_files(tmp_path / "copy.tsv", tmp_path / "copy.tsv", text_column="t", label_column="l")
        assert same.train.fingerprint == data.train.fingerprint
        assert load_dataset("mrpc", glue).train.fingerprint != load_dataset("mrpc", glue).evaluation.fingerprint


class TestNames:
    def test_unknown_name(self):
        assert "did you mean 'mrpc'" in refused(load_dataset, "mprc")

    def test_demo_is_generated(self, tmp_path):
        data = load_dataset("demo", max_train_examples=100)
        assert (len(data.train), len(data.evaluation)) == (100, 400)
        assert "generated" in refused(load_dataset, "demo", tmp_path)

    def test_files_without_a_folder(self):
        assert "--data-dir" in refused(load_dataset, "mrpc", train_file="train_partial.tsv")


class TestHub:
    @pytest.fixture
    def library(self, monkeypatch):
        """The `datasets` library with a hub that holds two rows a split; collects what it is asked for."""
        import datasets
        from huggingface_hub import constants

        asked = []

        def load(repository, config, split):
            asked.append((repository, config, split, constants.HF_HUB_OFFLINE))
            columns = {"sentence1": ["b", "a"], "sentence2": ["c", "d"], "label": [1, 0]}
            if "imdb" in repository:  # the other way round: "b" has the smaller SHA-256
                columns = {"text": ["a", "b"], "label": [0, 1]}
            return datasets.Dataset.from_dict(columns)

        monkeypatch.setattr(datasets, "load_dataset", load)
        monkeypatch.setattr(hub, "_reachable", lambda repository: True)
        return types.SimpleNamespace(asked=asked, datasets=datasets)

    def test_repository_configuration_and_split(self, library):
        data = load_dataset("mrpc")
        assert [call[:3] for call in library.asked] == [
            ("nyu-mll/glue", "mrpc", "train"),
            ("nyu-mll/glue", "mrpc", "validation"),
        ]
        assert (data.train.texts, data.train.pairs, data.train.labels.tolist()) == (["b", "a"], ["c", "d"], [1, 0])
        assert data.evaluation.name == "validation" and not data.train.partial

    def test_imdb_has_the_order_of_the_folder(self, library, tmp_path):
        for name, text in (("neg/0_1", "a"), ("pos/0_9", "b")):
            for part in ("train", "test"):
                put(tmp_path / "aclImdb" / part / f"{name}.txt", [text])
                (tmp_path / "aclImdb" / part / f"{name}.txt").write_text(text)
        from_hub, from_folder = load_dataset("imdb"), load_dataset("imdb", tmp_path)
        assert from_hub.train.texts == ["b", "a"] and from_hub.train.labels.tolist() == [1, 0]
        assert from_hub.train.fingerprint == from_folder.train.fingerprint
        assert from_hub.evaluation.name == "test"

    def test_without_network_the_librarys_cache_is_used_offline(self, library, monkeypatch):
        from huggingface_hub import constants

        before = constants.HF_HUB_OFFLINE
        monkeypatch.setattr(hub, "_reachable", lambda repository: False)
        load_dataset("mrpc")
        assert all(offline for *_, offline in library.asked)
        assert constants.HF_HUB_OFFLINE == before

    @pytest.mark.parametrize("reachable, said", [(False, "cannot be reached"), (True, "could not deliver it (broken)")])
    def test_failure_is_one_sentence_with_the_remedy(self, library, monkeypatch, reachable, said):
        def fail(*_, **__):
            raise ConnectionError("broken\nin many lines")

        monkeypatch.setattr(library.datasets, "load_dataset", fail)
        monkeypatch.setattr(hub, "_reachable", lambda repository: reachable)
        message = refused(load_dataset, "qnli")
        assert said in message and "--data-dir" in message and "QNLI" in message and "\n" not in message

    def test_the_hub_is_asked_once_with_a_time_limit(self, monkeypatch):
        import requests
        from huggingface_hub import constants

        asked = []

        def head(url, *, timeout):
            asked.append((url, timeout))
            raise requests.ConnectionError

        monkeypatch.setattr(requests, "head", head)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        assert hub._reachable("nyu-mll/glue") is False
        assert len(asked) == 1 and max(asked[0][1]) <= 10
        for status, expected in ((403, False), (200, True)):
            answer = requests.Response()
            answer.status_code = status
            monkeypatch.setattr(requests, "head", lambda *_, answer=answer, **__: answer)
            assert hub._reachable("nyu-mll/glue") is expected
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hub._reachable("nyu-mll/glue") is False


class TestOwnFiles:
    def load(self, train, evaluation=None, **options):
        return load_files(train, evaluation, **{"text_column": "text", "label_column": "label", **options})

    def test_string_labels_sorted(self, tmp_path):
        train = put(tmp_path / "my reviews.csv", ["label,text", "pos,a", "neg,b", " pos ,c"])
        test = put(tmp_path / "t.jsonl", ['{"text": "x", "label": "pos"}', '{"text": "y", "label": "neg"}'])
        data = self.load(train, test)
        assert data.label_names == ["neg", "pos"] and data.train.labels.tolist() == [1, 0, 1]
        assert data.evaluation.labels.tolist() == [1, 0] and data.evaluation.source == "t.jsonl"
        assert (data.name, data.text_columns) == ("my-reviews", ("text",))
        assert not data.train.partial

    def test_numbers_are_sorted_by_value(self, tmp_path):
        train = put(tmp_path / "a.csv", ["text,label", "a,10", "b,-1", "c,2.5", "d,2"])
        assert self.load(train, train).label_names == ["-1", "2", "2.5", "10"]

    def test_json_numbers_and_booleans_are_labels(self, tmp_path):
        rows = [{"text": "a", "label": 1}, {"text": "b", "label": 0}, {"text": "c", "label": "1"}]
        train = put(tmp_path / "a.jsonl", map(json.dumps, rows))
        assert self.load(train, train).train.labels.tolist() == [1, 0, 1]
        train = put(tmp_path / "f.jsonl", ['{"text": "a", "label": 1.5}', '{"text": "b", "label": 1}'])
        assert self.load(train, train).label_names == ["1", "1.5"]
        train = put(tmp_path / "g.jsonl", ['{"text": "a", "label": 1%s}' % ("0" * 400), '{"text": "b", "label": 1}'])
        assert self.load(train, train).label_names == ["1", "1" + "0" * 400]
        train = put(tmp_path / "b.jsonl", ['{"text": "a", "label": true}', '{"text": "b", "label": false}'])
        assert self.load(train, train).label_names == ["false", "true"]

    def test_pairs(self, tmp_path):
        train = put(tmp_path / "a.tsv", ["a\tb\tlabel", "x\ty\t0", "z\tw\t1"])
        data = self.load(train, train, text_column="b", text_pair_column="a")
        assert (data.train.texts, data.train.pairs, data.text_columns) == (["y", "w"], ["x", "z"], ("b", "a"))
        assert data.train.word_counts().tolist() == [2, 2]

    @pytest.mark.parametrize(
        "row, said",
        [
            ('{"text": "", "label": "a"}', "column 'text' is empty"),
            ('{"text": " \\n", "label": "a"}', "column 'text' is empty"),
            ('{"text": null, "label": "a"}', "column 'text' is empty (null)"),
            ('{"text": 5, "label": "a"}', "column 'text' is not text"),
            ('{"text": "a\\u0000", "label": "a"}', "column 'text' holds a NUL"),
            ('{"text": "a\\ud800", "label": "a"}', "surrogate"),
            ('{"text": "x", "label": ""}', "column 'label' has no label"),
            ('{"text": "x", "label": null}', "column 'label' has no label"),
            ('{"text": "x", "label": [1]}', "column 'label' has no label"),
            ('{"text": "x", "label": NaN}', "column 'label' has no label"),
            ('{"text": "x", "label": "\\ud800"}', "column 'label' has no label"),
        ],
    )
    def test_bad_row(self, tmp_path, row, said):
        good = ['{"text": "x", "label": "a"}', '{"text": "y", "label": "b"}']
        train = put(tmp_path / "a.jsonl", [*good, row])
        message = refused(self.load, train, train)
        assert f"{train}, line 3:" in message and said in message and "bad rows" not in message

    def test_evaluation_labels_are_the_training_files(self, tmp_path):
        train = put(tmp_path / "a.csv", ["text,label", "x,a", "y,b"])
        test = put(tmp_path / "b.csv", ["text,label", "x,a", "y,c"])
        message = refused(self.load, train, test)
        assert "b.csv, line 3: column 'label' has the label 'c', unknown in a.csv; use one of 'a', 'b'" in message

    def test_one_class(self, tmp_path):
        one, two = (
            put(tmp_path / "1.csv", ["text,label", "x,a", "y,a"]),
            put(tmp_path / "2.csv", ["text,label", "x,a", "y,b"]),
        )
        assert "1.csv: all 2 examples of the train split have the label 'a'" in refused(self.load, one, two)
        assert "1.csv: all 2 examples of the test split have the label 'a'" in refused(self.load, two, one)
        assert "no examples" in refused(self.load, put(tmp_path / "0.csv", ["text,label"]), two)

    def test_evaluation_is_one_file_or_a_share(self, tmp_path):
        train = put(tmp_path / "a.csv", ["text,label", "x,a", "y,b"])
        assert "--eval-file FILE" in refused(self.load, train)
        assert "not both" in refused(self.load, train, train, eval_fraction=0.5)
        for share in (0.0, 1.0, -1, float("nan")):
            assert "between 0 and 1" in refused(self.load, train, eval_fraction=share)
        assert "leaves training or evaluation without any" in refused(self.load, train, eval_fraction=0.1)

    def test_share_is_stratified_and_seeded(self, tmp_path):
        rows = [f"text {i},{'a' if i % 5 else 'b'}" for i in range(100)]
        train = put(tmp_path / "a.csv", ["text,label", *rows])
        data = self.load(train, eval_fraction=0.2)
        assert (len(data.train), len(data.evaluation), data.evaluation.name) == (80, 20, "test")
        assert np.bincount(data.evaluation.labels).tolist() == [16, 4]
        assert {*data.train.texts, *data.evaluation.texts} == {f"text {i}" for i in range(100)}
        for split in (data.train, data.evaluation):  # both in the order of the file
            positions = [int(text.split()[1]) for text in split.texts]
            assert positions == sorted(positions)
        assert data.evaluation.texts == self.load(train, eval_fraction=0.2).evaluation.texts
        assert data.evaluation.texts != self.load(train, eval_fraction=0.2, seed=1).evaluation.texts

    def test_same_column_twice(self, tmp_path):
        train = put(tmp_path / "a.csv", ["text,label", "x,a", "y,b"])
        assert "must differ" in refused(self.load, train, train, text_pair_column="text")

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
    @given(
        content=st.binary(max_size=80) | st.lists(st.sampled_from('ab\t,\n"{}[]:10.e\\ud8'), max_size=80).map("".join)
    )
    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_content_is_data_or_a_user_error(self, tmp_path, suffix, content):
        head = b"" if suffix == ".jsonl" else b"text%slabel\n" % (b"," if suffix == ".csv" else b"\t")
        rows = [b'{"text": "x", "label": 0}'] if suffix == ".jsonl" else []
        body = content if isinstance(content, bytes) else content.encode()
        path = tmp_path / f"any{suffix}"
        path.write_bytes(head + b"\n".join([*rows, body]))
        try:
            data = self.load(path, path)
        except UserError:
            return
        assert all(text.strip() for text in data.train.texts) and data.num_labels >= 2


class TestCommand:
    def test_table_for_everything_there(self, glue, capsys):
        assert main(["--stats", "--data-dir", str(glue.parent)]) == 0
        printed = capsys.readouterr()
        assert "| sst2" in printed.out and "3*" in printed.out and "| demo" in printed.out
        assert "partial: sst2 train is SST-2/train.tsv" in printed.out
        assert "left out:" in printed.err and "train_partial.tsv" in printed.err and "no IMDB reviews" in printed.err
        assert "--allow-partial includes" in printed.err
        assert main(["--stats", "--data-dir", str(glue.parent), "--allow-partial"]) == 0
        printed = capsys.readouterr()
        assert "| qnli" in printed.out and "train_partial" not in printed.err

    def test_output_files(self, glue, tmp_path, capsys):
        command = ["--stats", "--dataset", "sst2", "mrpc", "--data-dir", str(glue), "--output"]
        for name in ("table.csv", "table.json"):
            assert main([*command, str(tmp_path / name)]) == 0
        rows = json.loads((tmp_path / "table.json").read_text())
        assert rows == [describe(load_dataset(name, glue)) for name in ("sst2", "mrpc")]
        assert [row["train_examples"] for row in rows] == [3, 2]
        assert rows[0]["train_mean_words"] == round((3 + 2 + 6) / 3, 2) and rows[1]["train_mean_words"] == 5
        with open(tmp_path / "table.csv", newline="") as file:
            assert [row["dataset"] for row in csv.DictReader(file)] == ["sst2", "mrpc"]

    def test_own_files_with_examples(self, tmp_path, capsys):
        train = put(tmp_path / "my.csv", ["a,b,label", "first text,second,yes", "x,y,no"])
        columns = ["--text-column", "a", "--text-pair-column", "b", "--label-column", "label"]
        assert main(["--train", str(train), "--eval-file", str(train), *columns, "--show", "1"]) == 0
        printed = capsys.readouterr().out
        assert "[yes] first text" in printed and "second" in printed and "no 1, yes 1" in printed

    @pytest.mark.parametrize(
        "arguments, said",
        [
            (["--dataset", "mprc"], "did you mean 'mrpc'"),
            (["--stats", "--data-dir", "no/such/folder"], "no such folder"),
            (["--dataset", "all", "sst2"], "already stands for"),
            (["--train", "a.csv", "--label-column", "l"], "--text-column is missing"),
            (["--train", "a.csv", "--text-column", "t"], "--label-column is missing"),
            (["--train", "a.csv", "--text-column", "t", "--label-column", "l", "--data-dir", "d"], "--data-dir is for"),
            (["--dataset", "sst2", "--text-column", "t"], "--text-column is for your own files"),
            (["--dataset", "sst2", "mrpc", "--train", "x.tsv"], "one --dataset"),
            (["--dataset", "all", "--eval-file", "x.tsv"], "one --dataset"),
            (["--dataset", "demo", "--output", "x.txt"], "end it in .csv or .json"),
        ],
    )
    def test_wrong_arguments(self, arguments, said):
        assert said in refused(main, arguments)

    def test_help_teaches(self, capsys):
        with pytest.raises(SystemExit):
            main(["--help"])
        printed = capsys.readouterr().out
        assert all(name in printed for name in DATASETS) and "--text-pair-column b" in printed


class TestRealData:
    @pytest.mark.parametrize(
        "name, sizes, first, labels",
        [
            ("sst2", (67349, 872), "hide new secretions from the parental units ", [0, 0, 1]),
            (
                "mrpc",
                (3668, 408),
                'Amrozi accused his brother , whom he called " the witness " , of deliberately',
                [1, 0, 1],
            ),
            ("qnli", (19441, 5463), "Who did not connect with the soldier?", [0, 1, 1]),
            ("ag_news", (48236, 7600), "Bangladesh paralysed by strikes Opposition activists have", [0, 1, 0]),
        ],
    )
    def test_sizes_and_first_rows(self, shared_data, name, sizes, first, labels):
        data = load_dataset(name, shared_data, allow_partial=True)
        assert (len(data.train), len(data.evaluation)) == sizes
        assert data.train.texts[0].startswith(first) and data.train.labels[:3].tolist() == labels
        assert data.train.partial == (name in ("qnli", "ag_news")) and not data.evaluation.partial

    def test_every_quotation_mark_is_kept(self, shared_data):
        data = load_dataset("mrpc", shared_data / "glue")
        in_file = (shared_data / "glue/MRPC/train.tsv").read_text(encoding="utf-8").count('"')
        assert sum(text.count('"') for text in data.train.texts + data.train.pairs) == in_file > 1000

    def test_subset_of_the_evidence_runs(self, shared_data):
        train = load_dataset("sst2", shared_data, min_words=5, max_train_examples=4000).train
        assert len(train) == 4000 and train.word_counts().min() == 5
