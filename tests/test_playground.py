"""The parts of the playground that need neither a page nor a model: words, tables, history, what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from test_plots import run_folder

from mindspore_floodx.attack_metrics import FAILED, SKIPPED, SUCCEEDED
from mindspore_floodx.cli import playground as command
from mindspore_floodx.errors import UserError
from mindspore_floodx.playground import view
from mindspore_floodx.playground.examples import load_examples
from mindspore_floodx.playground.history import draw_history
from mindspore_floodx.playground.live_attack import FINISHED, REFUSED, RUNNING, WAITING, LiveAttack, OneAttack, offered
from mindspore_floodx.playground.models import PlayModel, Prediction, check_texts, open_models
from mindspore_floodx.playground.server import bind

HOSTILE = "<img src=x onerror=\"window.hacked=1\"> & '${1}' {{this}}"


def model(names: list[str], order: list[int] | None = None, title: str = "run", **given) -> PlayModel:
    return PlayModel(title, "", Path("export"), None, {}, names, order or list(range(len(names))), None, **given)


class Texts(HTMLParser):
    """What a browser makes of a text with marks: the text before and after, and whether there is any other element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inside, self.before, self.after, self.others = "", "", "", []
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag in ("del", "ins") and not attributes and not self.inside:
            self.inside = tag
        else:
            self.others.append(tag)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.before += data if self.inside != "ins" else ""
        self.after += data if self.inside != "del" else ""


def test_changed_words_are_marked():
    marked = view.marked_words("The plot is clever & new.", "The pl0t is clever & not new.", 2)
    assert marked == "The <del>plot</del><ins>pl0t</ins> is clever &amp; <ins>not </ins>new."
    assert view.marked_words("<b>&", "<b>&") == "&lt;b&gt;&amp;"


WORDS = ["plot", "<b>", "&amp;", "😀", "</del>", "is", "\n", '"x"', " "]


@given(st.lists(st.sampled_from(WORDS), max_size=8), st.data())
def test_a_browser_reads_both_texts_in_the_marks(words, data):
    changed = [data.draw(st.sampled_from([word, "", "<ins>", "film", "😀😀"])) for word in words]
    original, perturbed = " ".join(words), " ".join(changed)
    read = Texts(view.marked_words(original, perturbed, len(words)))
    assert (read.before, read.after, read.others) == (original, perturbed, [])


def cells(html: str) -> list[list[str]]:
    """The rows of the only table, as text; raises where the HTML is not well-formed."""
    rows = ElementTree.fromstring(f"<div>{html}</div>").findall(".//tr")
    return [["".join(cell.itertext()) for cell in row] for row in rows]


def test_the_table_has_each_models_answer_side_by_side():
    pair = [model(["no", "yes"], title="a"), model(["yes", "no"], [1, 0], title="b")]
    predictions = [Prediction(np.array([0.25, 0.75]), 9, 9), Prediction(np.array([0.9996, 0.0004]), 9, 9)]
    html = view.prediction_table(pair, predictions)
    assert cells(html) == [
        ["", "a", "b"],
        ["answer", "yes 75.0%", "no >99.9%"],
        ["no", "25.0%", ">99.9%"],
        ["yes", "75.0%", "<0.1%"],
    ]
    assert "width: 75.0%" in html and "tokens" not in html


def test_of_many_classes_the_likeliest_are_shown_and_cut_texts_are_told():
    names = [f"class {i}" for i in range(30)]
    first, second = np.linspace(0, 1, 30), np.linspace(1, 0, 30)
    predictions = [Prediction(each / each.sum(), 99, 64) for each in (first, second)]
    html = view.prediction_table([model(names), model(names)], predictions)
    assert [row[0] for row in cells(html)[2:]] == [names[i] for i in (0, 1, 2, 3, 4, 25, 26, 27, 28, 29)]
    assert html.count("Only the first 64 of the 99 tokens are read") == 1


@pytest.mark.parametrize(
    "share, said", [(1, "100.0%"), (0.99951, ">99.9%"), (0.9994, "99.9%"), (0.0004, "<0.1%"), (0, "0.0%")]
)
def test_percent(share, said):
    assert view.percent(share) == said


def test_markup_stays_text_wherever_it_comes_from(tmp_path):
    hostile = model([HOSTILE, "other"], title=HOSTILE)
    live = LiveAttack(HOSTILE, (HOSTILE,), [OneAttack(hostile, REFUSED, reason=HOSTILE)])
    live.parts.append(OneAttack(hostile))
    record = {"result": SUCCEEDED, "label": 0, "queries": 5, "num_words": 4, "num_words_changed": 1}
    record |= {"original": {"text": HOSTILE}, "perturbed": {"text": "<script>"}, "original_output": 0}
    record |= {"perturbed_output": 1, "original_scores": [0.9, 0.1], "perturbed_scores": [0.4, 0.6]}
    live.parts[1].end(FINISHED, record)
    shown = [
        view.heading([hostile]),
        view.sentence(HOSTILE),
        view.prediction_table([hostile], [Prediction(np.array([0.5, 0.5]), 1, 1)]),
        view.attack_cards(live, 0),
        view.history_html([hostile], [([], HOSTILE)]),
    ]
    for html in shown:
        assert str(escape(HOSTILE)) in html
        assert "<img" not in html and "<script" not in html
        ElementTree.fromstring(f"<div>{html}</div>")


def test_cards_say_how_an_attack_stands():
    one = OneAttack(model(["no", "yes"]))
    live = LiveAttack("deepwordbug", ("x y",), [one])
    assert "Waiting for another attack" in view.attack_cards(live, 1)
    assert "Waiting for 3 other attacks" in view.attack_cards(live, 3)
    assert one.state == WAITING
    one.state = RUNNING
    assert "Running" in view.attack_cards(live, 0)
    record = {"label": 1, "queries": 1234, "num_words": 2, "num_words_changed": 1, "original_output": 0}
    record |= {"original": {"text": "x y"}, "perturbed": {"text": "x z"}, "perturbed_output": 0}
    record |= {"original_scores": [0.9, 0.1], "perturbed_scores": [0.8, 0.2]}
    one.end(FINISHED, record | {"result": FAILED})
    held = view.attack_cards(live, 0)
    assert "Held" in held and "<b>1,234</b> queries" in held and "Its best attempt: 1 of 2 words changed" in held
    one.end(FINISHED, record | {"result": SKIPPED})
    assert "Wrong already, without an attack: the true class is yes" in view.attack_cards(live, 0)


def pixels(address: str) -> np.ndarray:
    kind, _, content = address.partition(",")
    assert kind == "data:image/png;base64"
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(content)))


def test_the_history_has_the_flood_level_and_accordance(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)  # keeps the figures, to look at them
    run = run_folder(tmp_path / "run", 40, 4, method="flooding", flood_level=0.1)
    before = sorted(run.iterdir())
    pictures, why_not = draw_history(run)
    assert len(pictures) == 1 and not why_not and sorted(run.iterdir()) == before  # nothing is written there
    lines = {line.get_label(): line.get_ydata() for line in drawn[0].axes[0].get_lines()}
    assert list(lines["training loss, each step"]) == pytest.approx([1 / step for step in range(1, 41)], rel=1e-6)
    assert list(lines["flood level 0.1"]) == [0.1, 0.1]
    light, dark = pixels(pictures[0].light), pixels(pictures[0].dark)
    assert light.shape == dark.shape and light.shape[1] > 1000
    ink = [image[image[..., 3] > 0.9][:, :3] for image in (light, dark)]
    assert (ink[0] < 0.1).all(1).any() and not (ink[0] > 0.9).all(1).any()  # black on clear ground
    assert (ink[1] > 0.9).all(1).any() and not (ink[1] < 0.1).all(1).any()  # white on clear ground
    (run / "accordance.csv").write_text(
        "step,epoch,accordance,train_loss,eval_loss,snapshot\n10,1,-0.5,0.6,0.6,\n20,2,-0.1,0.4,0.5,\n"
    )
    (run / "accordance_classes.csv").write_text("measured,sub_epoch,class_a,class_b,accordance\nonline,1,0,1,-0.5\n")
    pictures, why_not = draw_history(run)
    assert [each.what for each in pictures] == [
        "loss and accuracy of the training",
        "gradient accordance of the training",
    ]
    assert list(drawn[-2].axes[0].get_lines()[0].get_ydata()) == [-0.5, -0.1]
    monkeypatch.undo()
    plt.close("all")


def test_without_a_history_a_sentence_says_why(tmp_path):
    assert draw_history(None) == ([], "No history: this is an exported model without the run it came from.")
    run = run_folder(tmp_path / "run", 4, 1)
    (run / "log.csv").write_text("step,loss\n1,high\n")
    pictures, why_not = draw_history(run)
    assert not pictures and "The history cannot be drawn" in why_not and "log.csv" in why_not
    run = run_folder(tmp_path / "other", 4, 1, method="flooding", flood_level=0.1)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("flood_level: 0.1", "flood_level: high"))
    assert "do not fit together" in draw_history(run)[1]


@pytest.mark.parametrize(
    "first, second, columns, problem",
    [
        ("", "", None, "Type a sentence"),
        (" \n\u00a0", "", ("text",), "Type a sentence"),
        ("", "b", ("q", "s"), "Type two texts"),
        ("a", " ", ("q", "s"), "fill in 's' as well"),
        ("a", "b", ("text",), "leave the second empty"),
        ("a " * 5001, "", None, "5,001 words; at most 5,000"),
        ("a" * 100_001, "", None, "100,001 characters; at most 100,000"),
        ("a", "\ud800", None, "surrogate"),
    ],
)
def test_what_cannot_be_read_is_said(first, second, columns, problem):
    with pytest.raises(UserError, match=problem):
        check_texts(first, second, columns)


def test_what_can_be_read():
    assert check_texts("a " * 5000, "", None) == ("a " * 5000,)
    assert check_texts("a", "b", None) == check_texts("a", "b", ("q", "s")) == ("a", "b")


def export(folder: Path, labels: list[str] | None, **settings) -> Path:
    """A run of which only the configuration is there: enough to be refused."""
    (folder / "export").mkdir(parents=True)
    config = {"model_type": "bert"} | ({"id2label": dict(enumerate(labels))} if labels else {"num_labels": 2})
    (folder / "export" / "config.json").write_text(json.dumps(config))
    if settings:
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_models_that_do_not_go_together_are_refused(tmp_path):
    sentiment = export(tmp_path / "a", ["negative", "positive"], dataset="sst2")
    news = export(tmp_path / "b", ["World", "Sports", "Business", "Sci/Tech"], dataset="ag_news")
    pair = export(tmp_path / "c", ["negative", "positive"], dataset="mrpc")
    own = export(tmp_path / "d", ["negative", "positive"], text_column="q", text_pair_column="s", label_column="l")
    with pytest.raises(UserError, match=r"has the classes negative, positive, but .* has World, .*same classes"):
        open_models([sentiment, news])
    for other in (pair, own):
        with pytest.raises(UserError, match=f"{other}/export reads pairs of texts and {sentiment}/export single texts"):
            open_models([sentiment, other])
    with pytest.raises(UserError, match="one model or two side by side, not 3"):
        open_models([sentiment] * 3)
    with pytest.raises(UserError, match="there is no folder"):
        open_models([tmp_path / "nothing"])


def test_sentences_to_pick(tmp_path):
    found, note = load_examples([model(["negative", "positive"])])
    assert not found and note == (
        "There are no sentences to pick: give the data's folder with --data-dir, and its name with --dataset where no "
        "run tells it."
    )
    (tmp_path / "config.json").write_text("{}")
    other = replace(model(["positive", "negative"], [1, 0]), folder=tmp_path)
    found, note = load_examples([other], "demo")
    assert len(found) == 50 and not note and all(len(each.texts) == 1 and len(each.short) <= 90 for each in found)
    from mindspore_floodx.data import load_dataset

    demo = load_dataset("demo").evaluation
    assert all(demo.labels[demo.texts.index(each.texts[0])] == each.true_class for each in found)
    with pytest.raises(UserError, match="no data set 'sst'"):
        load_examples([model(["negative", "positive"])], "sst", str(tmp_path))


def test_attacks_are_offered_where_their_resources_are(tmp_path):
    names = [settings.attack for settings in offered(resources="standin")]
    assert names[:2] == ["deepwordbug", "synonym"] and "pruthi" in names and "textfooler" not in names
    with pytest.raises(UserError, match="official"):
        offered(resources="none")
    with pytest.raises(UserError, match="does not exist"):
        offered(resources="standin", neighbours=tmp_path / "absent.json")


def test_a_port_that_is_taken_or_is_none():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"^port \d+ is taken by another program; choose another with --port$"):
            command.main(["runs/none", "--port", str(other.getsockname()[1])])
    for port in (-1, 70_000):
        with pytest.raises(UserError, match="--port is"):
            bind(port)
    with bind(0) as held:
        assert held.getsockname()[0] == "127.0.0.1"


SERVE = """
import sys
from pathlib import Path
from unittest import mock
from mindspore_floodx.cli import playground
from mindspore_floodx.errors import run_command
from mindspore_floodx.playground.models import PlayModel
model = PlayModel("run", "", Path("export"), None, {}, ["no", "yes"], [0, 1], None)
with mock.patch("mindspore_floodx.playground.models.open_models", lambda *given: [model]):
    run_command(lambda: playground.main(["run", "--port", "0", "--no-browser", "--resources", "standin"]))
"""


@pytest.mark.parametrize("sent, said, status", [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_the_command_serves_until_it_is_stopped(sent, said, status):
    pytest.importorskip("gradio", reason="gradio is not installed; it comes with the extra 'playground'")
    hostile = {"GRADIO_SHARE": "true", "GRADIO_SERVER_NAME": "0.0.0.0", "HTTP_PROXY": "http://127.0.0.1:9"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | hostile,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, process.stderr.read()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address[0], timeout=60) as page:
            assert b"MindSpore-FloodX playground" in page.read()
        process.send_signal(sent)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status and rest == ""
    note, last = errors.strip().split("\n")
    assert note.startswith("There are no sentences to pick") and last == f"stopped by {said}"


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"needs the package gradio; pip install .*\[playground\]"):
        command.main(["runs/none", "--port", "0"])
