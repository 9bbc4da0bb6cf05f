"""The report's page without a browser: what is in it, that data stays text, that nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import gzip
import html
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reproduce_results import LABELS, write_cell
from reproduce_results import cell_id as id_of

from mindspore_floodx.attack_metrics import FAILED, SKIPPED, SUCCEEDED
from mindspore_floodx.errors import UserError
from mindspore_floodx.reproduce.claims import Part, decide
from mindspore_floodx.reproduce.render import write_tables
from mindspore_floodx.reproduce.report import write_report
from mindspore_floodx.reproduce.report_rows import FIGURES, MAIN, SWEEP, attack_rows
from mindspore_floodx.reproduce.report_samples import COLUMNS
from mindspore_floodx.reproduce.report_tables import read_tables
from mindspore_floodx.reproduce.results import read_results
from mindspore_floodx.reproduce.tables import table2
from mindspore_floodx.reproduce.word_changes import apply_changes, word_changes

OUTCOMES = [SUCCEEDED] * 4 + [FAILED] * 5 + [SKIPPED]
HOSTILE = "a </script><script>window.hacked = 1</script> & <img src=x onerror='window.hacked = 1'> film"


def index_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="index">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


def block_of(page: str, number: int) -> list[Any]:
    found = re.search(rf'<script type="text/plain" id="block-{number}">([^<]*)</script>', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found.group(1))))


def as_records(page: str, number: int = 0) -> tuple[list[dict[str, Any]], list[Any]]:
    """The examples of a set, and the texts they point to."""
    index = index_of(page)
    chosen = index["sets"][number]
    rows = block_of(page, chosen["block"])
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows], block_of(page, index["texts"][chosen["dataset"]])


def report_of(output: Path) -> str:
    return write_report(output).read_text(encoding="utf-8")


def test_examples_come_back_as_they_were(tmp_path: Path) -> None:
    write_cell(tmp_path, "mrpc", "finetune", attacks={"textfooler": OUTCOMES})
    lines = (tmp_path / "cells" / id_of("mrpc", "finetune", 0) / "examples-textfooler.jsonl").read_text()
    records, texts = as_records(report_of(tmp_path))
    assert len(records) == len(OUTCOMES)
    for line, record in zip(map(json.loads, lines.splitlines()), records, strict=True):
        originals = texts[record["text"]]
        assert originals == list(line["original"].values()) and len(originals) == 2
        for number, perturbed in enumerate(line["perturbed"].values()):
            changes = [tuple(change) for column, *change in record["changes"] if column == number]
            assert apply_changes(originals[number], changes) == perturbed  # type: ignore[arg-type]
        assert record["result"] == {"succeeded": "s", "failed": "f", "skipped": "k"}[line["result"]]
        assert (record["label"], record["before"], record["after"], record["queries"]) == (
            line["label"],
            line["original_output"],
            line["perturbed_output"],
            line["queries"],
        )
        assert record["score_before"] == round(100 * line["original_scores"][line["original_output"]])


def test_left_out_texts_are_a_hash_and_the_replaced_words(tmp_path: Path) -> None:
    write_cell(tmp_path, attacks={"textfooler": OUTCOMES}, keep_texts=False)
    lines = (tmp_path / "cells" / id_of("sst2", "finetune", 0) / "examples-textfooler.jsonl").read_text()
    records, texts = as_records(report_of(tmp_path))
    assert texts == []
    for line, record in zip(map(json.loads, lines.splitlines()), records, strict=True):
        assert (record["text"], record["changes"]) == (line["original_sha256"], line["changes"])


def test_a_text_is_held_once_for_all_methods(tmp_path: Path) -> None:
    for method in ("finetune", "pgd"):
        write_cell(tmp_path, "sst2", method, attacks={"textfooler": OUTCOMES}, calibrated={"textfooler": OUTCOMES})
    page = report_of(tmp_path)
    index = index_of(page)
    assert len(index["sets"]) == 4
    texts = [tuple(text) for text in block_of(page, index["texts"]["SST-2"])]
    assert len(texts) == len(set(texts)) <= len(OUTCOMES)


def make_hostile(output: Path) -> None:
    """A cell whose labels, texts and settings are markup, and a failed one whose message is."""
    cell = write_cell(output, attacks={"textfooler": OUTCOMES}, label_names=[HOSTILE, "positive"], text_columns=["<b>"])
    cell["settings"] |= {"model": f"models/{HOSTILE.replace('/', '|')}", "comment": HOSTILE}
    cell["data"]["train"]["source"] = HOSTILE
    folder = output / "cells" / cell["id"]
    (folder / "result.json").write_text(json.dumps(cell))
    path = folder / "examples-textfooler.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["original"] = {"<b>": HOSTILE}
        changed = HOSTILE if record["result"] != SUCCEEDED else HOSTILE.replace("film", "<i>movie</i>")
        record["perturbed"] = {"<b>": changed}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    (output / "cells" / "broken").mkdir()
    (output / "cells" / "broken" / "failed.json").write_text(json.dumps({"step": "train", "message": HOSTILE}))


def test_markup_in_data_stays_text(tmp_path: Path) -> None:
    make_hostile(tmp_path)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table9.html").write_text(
        f"<h2>x</h2><table onclick='window.hacked = 1'><caption>{html.escape(HOSTILE)}</caption>"
        f"<tr><td><script>window.hacked = 1</script>{html.escape(HOSTILE)}</td></tr></table>"
    )
    part = Part(HOSTILE, "supported", HOSTILE, HOSTILE)
    write_claims(tmp_path, [decide("x", HOSTILE, HOSTILE, HOSTILE, [part]).content()])
    page = report_of(tmp_path)
    assert "window.hacked" in page  # as text
    assert len(re.findall(r"<script\b", page)) == page.count("</script>") == 2 + len(index_of(page)["sets"]) + 1
    assert "<img src=x" not in page and "onclick" not in page and "<i>movie" not in page
    assert as_records(page)[1] == [[HOSTILE]]
    assert index_of(page)["cells"][0]["labels"] == [HOSTILE, "positive"]
    shown = read_tables((tmp_path / "tables" / "table9.html").read_text())
    assert (shown[0].caption, [[cell.text for cell in row] for row in shown[0].body]) == (HOSTILE, [[HOSTILE]])


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    write_cell(tmp_path, attacks={"textfooler": OUTCOMES})
    write_figures(tmp_path)
    page = report_of(tmp_path)
    places = re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']([^"']*)""", page)
    assert places and all(place.startswith(("data:", "#")) for place in places)
    assert not re.search(r"@import|url\(|//[a-z]", re.sub(r">[A-Za-z0-9+/=\s]{200,}<|base64,[^\"]*", "", page))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in html.unescape(policy.group(1))
    assert not re.search(r"\sstyle=|\son[a-z]+=", page.split("<script")[0])  # what the policy would not allow


def test_stand_ins_partial_data_and_single_seeds_are_said(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cell(tmp_path, "sst2", "finetune", seed, attacks={"textfooler": OUTCOMES[seed:]})
    write_cell(tmp_path, "sst2", "pgd", attacks={"textfooler": OUTCOMES, "textbugger": OUTCOMES})
    rows = attack_rows(read_results(tmp_path))
    assert [(row.method, row.attack, row.seeds) for row in rows] == [
        ("fine-tuning", "TextFooler", "2 seeds"),
        ("PGD", "TextFooler", "one seed"),
        ("PGD", "TextBugger", "one seed"),
    ]
    assert {row.resources for row in rows} == {"stand-in resources"}
    assert {row.data_note for row in rows} == {"trained on 4,000, partial"}
    aua = [heading for heading, *_ in FIGURES].index("Aua%")
    shares = [5 / 10, 5 / 9]
    mean, deviation = sum(shares) / 2, abs(shares[0] - shares[1]) / 2**0.5  # of two values, in closed form
    assert rows[0].figures[aua].text == f"{100 * mean:.1f} ± {100 * deviation:.1f}"
    assert rows[1].figures[aua].text == "50.0" and " to " in rows[1].figures[aua].below
    page = report_of(tmp_path)
    assert "All attacks were run with stand-in resources" in page
    assert "SST-2: only part of the training data was used (4,000 examples)." in page


def test_the_sweep_has_rows_of_its_own(tmp_path: Path) -> None:
    write_cell(tmp_path, "sst2", "flooding", 0, variant="b0.1", level=0.1, attacks={"textfooler": OUTCOMES})
    write_cell(tmp_path, "sst2", "flooding", 0, variant="b0.2", level=0.2, attacks={"textfooler": OUTCOMES[:6]})
    write_cell(tmp_path, "sst2", "flooding", 1, variant="best", level=0.1, attacks={"textfooler": OUTCOMES})
    write_cell(tmp_path, "sst2", "finetune", 0, tag="epochs25", epochs=25, attacks={"textfooler": OUTCOMES})
    rows = [(row.part, row.method, len(row.cells)) for row in attack_rows(read_results(tmp_path))]
    assert rows == [
        (MAIN, "flooding (best b)", 2),
        (SWEEP, "flooding (b = 0.1)", 1),
        (SWEEP, "flooding (b = 0.2)", 1),
        ("further experiments", "fine-tuning, epochs25", 1),
    ]
    names = {each["cell"]: each["method"] for each in index_of(report_of(tmp_path))["sets"]}
    assert sorted(names.values()) == [
        "fine-tuning, epochs25",
        "flooding (b = 0.1)",
        "flooding (b = 0.1)",
        "flooding (b = 0.2)",
    ]


def test_the_best_of_a_data_set_and_attack_is_bold(tmp_path: Path) -> None:
    weak, strong = [SUCCEEDED] * 8 + [FAILED] * 2, [SUCCEEDED] * 2 + [FAILED] * 8
    write_cell(tmp_path, "sst2", "finetune", attacks={"textfooler": weak, "textbugger": strong})
    write_cell(tmp_path, "sst2", "pgd", attacks={"textfooler": strong, "textbugger": strong})
    aua = [heading for heading, *_ in FIGURES].index("Aua%")
    best = {(row.method, row.attack): row.figures[aua].best for row in attack_rows(read_results(tmp_path))}
    assert not best["fine-tuning", "TextFooler"] and best["PGD", "TextFooler"]
    assert best["fine-tuning", "TextBugger"] and best["PGD", "TextBugger"]  # equals


def test_a_written_table_is_read_back(tmp_path: Path) -> None:
    for method, held in (("finetune", 2), ("pgd", 7)):
        outcomes = [FAILED] * held + [SUCCEEDED] * (10 - held)
        write_cell(tmp_path, "sst2", method, attacks={"textfooler": outcomes})
    tables = table2(read_results(tmp_path))
    write_tables("table2", tables, tmp_path / "tables")
    (found,) = read_tables((tmp_path / "tables" / "table2.html").read_text())
    assert (found.title, found.caption) == (tables[0].title, tables[0].caption)
    texts = tables[0].texts()
    assert [[cell.text for cell in row] for row in found.body] == [[name, *texts.loc[name]] for name in texts.index]
    bold = [[cell.bold for cell in row[1:]] for row in found.body]
    assert bold == tables[0].bold().to_numpy().tolist() and any(map(any, bold))
    assert [cell.text for cell in found.head[-1]] == ["", *(measure for _, measure in texts.columns)]
    assert [(cell.text, cell.columns) for cell in found.head[0]][-1] == ("TextFooler", 3)
    page = report_of(tmp_path)
    assert f'<p class="caption">{html.escape(found.caption)}'.replace("&#x27;", "&#39;") in page
    assert "<strong>70.0</strong>" in page


def write_figures(output: Path) -> None:
    folder = output / "figures"
    folder.mkdir()
    (folder / "figure1-sst2.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="400" height="200"/>')
    (folder / "figure1-sst2.csv").write_text("x,y\n1,2\n")
    listed = {"figure": "figure1", "dataset": "sst2", "stem": "figure1-sst2", "caption": "Figure 1, SST-2: a <curve>."}
    left_out = {"figure": "figure4", "dataset": "sst2", "reason": "nothing was attacked by epoch"}
    (folder / "figures.json").write_text(json.dumps({"figures": [listed], "left_out": [left_out]}))


def write_claims(output: Path, claims: list[dict[str, Any]]) -> None:
    row = dict.fromkeys(("clean_pct", "aua_pct", "ours_clean_pct", "ours_aua_pct", "ours_seeds"))
    row |= {"dataset": "SST-2", "attack": "TextFooler", "method": "Fine-tune", "source": "elsewhere", "aua_pct": 5.0}
    published = {"sources": {"elsewhere": "Another paper <2022>"}, "rows": [row]}
    content = {"conditions": "Encoder MiniLM.", "claims": claims, "published": published}
    (output / "claims.json").write_text(json.dumps(content))


def test_figures_and_claims_are_embedded(tmp_path: Path) -> None:
    write_cell(tmp_path, attacks={"textfooler": OUTCOMES})
    write_figures(tmp_path)
    parts = [Part("SST-2", "not supported", "+1.0 points", "less than chance gives"), Part("MRPC", "supported")]
    write_claims(tmp_path, [decide("best", "It is <best>.", "the rule", "the test", parts).content()])
    page = report_of(tmp_path)
    svg = base64.b64encode((tmp_path / "figures" / "figure1-sst2.svg").read_bytes()).decode()
    assert f'src="data:image/svg+xml;base64,{svg}"' in page
    assert 'alt="Figure 1, SST-2: a &lt;curve&gt;."' in page
    assert "Figure 4, SST-2" in page and "left out, nothing was attacked by epoch" in page
    assert 'It is &lt;best&gt;. <span class="verdict unsupported">not supported</span>' in page
    assert "less than chance gives" in page and "Another paper &lt;2022&gt;" in page


def test_without_a_finished_cell_the_page_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "cells" / "sst2-pgd-0"
    folder.mkdir(parents=True)
    (folder / "failed.json").write_text(json.dumps({"step": "train", "message": "out of memory", "time": "-"}))
    page = report_of(tmp_path)
    assert "No cell is finished yet." in page and "1 cell failed" in page and "out of memory" in page
    assert index_of(page)["sets"] == []


def test_a_cell_without_attacks_has_a_page(tmp_path: Path) -> None:
    write_cell(tmp_path, attacks={})
    assert index_of(report_of(tmp_path))["cells"][0]["labels"] == LABELS["sst2"]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("claims.json", "{", "claims.json"),
        ("claims.json", '{"claims": [{"verdict": "perhaps"}]}', "claims.json"),
        ("figures/figures.json", '{"figures": [1]}', "figures.json"),
        (
            "figures/figures.json",
            '{"figures": [{"figure": "figure1", "dataset": "a", "stem": "b", "caption": ""}]}',
            "b.png",
        ),
        ("cells/sst2-finetune-0/examples-textfooler.jsonl", '{"id": 1, "result": "succeeded"}\n', "sst2-finetune-0"),
        ("cells/sst2-finetune-0/examples-textfooler.jsonl", "[]\n", "examples-textfooler.jsonl"),
        ("cells/x/failed.json", "no JSON", "failed.json"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str, word: str) -> None:
    write_cell(tmp_path, attacks={"textfooler": OUTCOMES})
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=word):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


WORDS = st.lists(
    st.sampled_from(["good", "bad", "a", "film", "don't", "o\U0001f600", ",", ".", "  ", "g", "ood", "\n"])
)


@given(WORDS, WORDS, st.none() | st.integers(0, 9))
def test_changes_give_the_perturbed_text(before: list[str], after: list[str], expected: int | None) -> None:
    original, perturbed = " ".join(before), " ".join(after)
    changes = word_changes(original, perturbed, expected)
    assert apply_changes(original, changes) == perturbed
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(changes))


@settings(max_examples=30)
@given(st.text(max_size=20), st.text(max_size=20))
def test_changes_of_any_text(original: str, perturbed: str) -> None:
    assert apply_changes(original, word_changes(original, perturbed)) == perturbed


@pytest.mark.parametrize(
    ("original", "perturbed", "expected", "changes"),
    [
        ("a good film", "a great film", 1, [(2, 6, "great")]),
        ("a good, old film", "a great, new film", 2, [(2, 6, "great"), (8, 11, "new")]),
        ("a good film", "a g ood film", 1, [(2, 6, "g ood")]),  # TextBugger splits a word
        ("\U0001f600 good", "\U0001f600 bad", 1, [(3, 7, "bad")]),  # JavaScript counts two units before the blank
        ("a b c d .", "x a b c .", 1, [(0, 0, "x "), (6, 8, "")]),  # shifted, not four words replaced
        ("same", "same", 0, []),
    ],
)
def test_changes_word_by_word(original: str, perturbed: str, expected: int, changes: list[Any]) -> None:
    assert word_changes(original, perturbed, expected) == changes


def test_changes_of_a_long_text_are_its_changed_words() -> None:
    rng = random.Random(0)
    words = [rng.choice(["the", "a", "of", "and", *(f"word{number}" for number in range(40))]) for _ in range(230)]
    places = sorted(rng.sample(range(0, 230, 2), 25))  # no two side by side
    after = [f"sp lit{at}" if at in places else word for at, word in enumerate(words)]
    changes = word_changes(" ".join(words), " ".join(after), len(places))
    assert [(" ".join(words)[start:end], new) for start, end, new in changes] == [
        (words[at], f"sp lit{at}") for at in places
    ]
