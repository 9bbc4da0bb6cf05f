"""Tables of a grid: recounted from the example files, in four formats, with what is missing shown as missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from reproduce_results import draw_results, write_cell, write_grid

from mindspore_floodx.errors import UserError
from mindspore_floodx.reproduce.render import Table, html_page, latex, markdown, numbers
from mindspore_floodx.reproduce.results import read_examples, read_results, read_timing
from mindspore_floodx.reproduce.rows import best_level, further_rows, main_rows, sweep
from mindspore_floodx.reproduce.statistics import Outcomes
from mindspore_floodx.reproduce.tables import table1, table2, table2b, table2c, table3, table3b, write_all_tables

HELD = ["failed"] * 4 + ["succeeded"] * 12 + ["skipped"] * 4


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return write_grid(tmp_path_factory.mktemp("grid"), examples=60)


@pytest.fixture(scope="module")
def results(grid):
    return read_results(grid)


@pytest.fixture(scope="module")
def written(grid, results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    paths = write_all_tables(results, Outcomes(grid), read_timing(grid), folder)
    assert sorted(folder.iterdir()) == sorted(paths)
    return folder


def recount(grid, cells, attack):
    """Aua%, Suc% and #Query of each cell, straight from its file."""
    figures = []
    for cell in cells:
        lines = (grid / "cells" / cell / f"examples-{attack}.jsonl").read_text().splitlines()
        results = [json.loads(line)["result"] for line in lines]
        queries = [json.loads(line)["queries"] for line in lines if json.loads(line)["result"] != "skipped"]
        succeeded, failed = results.count("succeeded"), results.count("failed")
        figures.append((100 * failed / len(results), 100 * succeeded / (succeeded + failed), np.mean(queries)))
    return np.array(figures)


@pytest.mark.parametrize(
    "method, cells",
    [
        ("fine-tuning", ["sst2-finetune-0", "sst2-finetune-1", "sst2-finetune-2"]),
        ("PGD", ["sst2-pgd-0"]),
        ("flooding (best b)", ["sst2-flooding-b0.1-0", "sst2-flooding-best-1", "sst2-flooding-best-2"]),
        ("iFlood", ["sst2-iflood-0", "sst2-iflood-1", "sst2-iflood-2"]),
    ],
)
def test_table_2_recounted(grid, written, method, cells):
    table = pd.read_csv(written / "table2.csv")
    row = table[(table["table"] == "SST-2") & (table["method"] == method)].iloc[0]
    for attack, called in (("textfooler", "TextFooler"), ("textbugger", "TextBugger"), ("bertattack", "BERT-Attack")):
        figures = recount(grid, cells, attack)
        for place, measure in enumerate(("Aua%", "Suc%", "#Query")):
            assert row[f"{called} {measure}"] == pytest.approx(figures[:, place].mean())
            spread = row[f"{called} {measure} sd"]
            assert np.isnan(spread) if len(cells) == 1 else spread == pytest.approx(figures[:, place].std(ddof=1))
    assert row["seeds"] == len(cells)


def test_rows_and_their_order(results):
    rows = main_rows(results, "sst2")
    expected = ["fine-tuning", "PGD", "FreeLB", "flooding (best b)", "Flooding-X", "iFlood", "SoftAD"]
    assert [row.name for row in rows] == expected
    assert [row.name for row in further_rows(results, "sst2")] == ["fine-tuning, epochs25", "flooding, epochs25"]
    assert not any(cell["tag"] for row in rows for cell in row.cells)
    tagged = table2(results, further=True)[0].frame
    assert list(tagged["", "differs in"]) == ["epochs 25", "epochs 25"]


def test_one_seed_has_no_deviation_and_the_best_are_bold(written):
    lines = (written / "table2.md").read_text(encoding="utf-8").split("## ")[1].splitlines()
    rows = {cells[0]: cells[1:] for line in lines if len(cells := [c.strip() for c in line.strip("|").split("|")]) > 3}
    assert all("±" not in cell for cell in rows["PGD"])
    assert all("±" in cell for cell in rows["fine-tuning"][2:])
    headings, methods = rows.pop("method"), [name for name in rows if "-" * 5 not in name]
    for column, heading in enumerate(headings):
        measure = heading.split()[-1]
        if measure not in ("Clean%", "Aua%", "Suc%", "#Query"):
            continue
        values = {name: float(rows[name][column].strip("*").split(" ±")[0]) for name in methods}
        best = min(values.values()) if measure == "Suc%" else max(values.values())
        assert {name for name in methods if rows[name][column].startswith("**")} == {
            name for name, value in values.items() if value == best
        }


def test_captions_tell_the_conditions(written):
    for stem in ("table2", "table2b", "table2c", "table2-further", "table2c-further"):
        text = (written / f"{stem}.md").read_text(encoding="utf-8")
        for said in ("Encoder MiniLM", "4,000 training examples", "a part of the data set", "stand-in", "on 60 random"):
            assert said in text, (stem, said)
    first = (written / "table2.md").read_text(encoding="utf-8").split("## ")[1]
    assert "Seeds 0, 1, 2" in first and "were not run: TAVAT, InfoBERT." in first
    assert "b = 0.1. It was chosen on the attacked examples themselves" in first


def test_paired_differences_recounted(grid, written):
    table = pd.read_csv(written / "table2c.csv")
    chosen = (table["table"] == "SST-2") & (table["method"] == "Flooding-X") & (table["attack"] == "TextFooler")
    for kind, suffix in (("raw", ""), ("calibrated", "-calibrated")):
        row = table[chosen & (table["logits"] == kind)].iloc[0]
        by_seed, only = [], [0, 0]
        for seed in (0, 1, 2):
            held = []
            for method in ("floodingx", "finetune"):
                path = grid / "cells" / f"sst2-{method}-{seed}" / f"examples-textfooler{suffix}.jsonl"
                held.append([json.loads(line)["result"] == "failed" for line in path.read_text().splitlines()])
            by_seed.append(100 * (np.mean(held[0]) - np.mean(held[1])))
            only[0] += sum(a and not b for a, b in zip(*held, strict=True))
            only[1] += sum(b and not a for a, b in zip(*held, strict=True))
        assert row["difference"] == pytest.approx(np.mean(by_seed))
        assert row["low"] < row["difference"] < row["high"]
        assert row["by seed"] == ", ".join(f"{each:+.1f}" for each in by_seed)
        assert [row["only method"], row["only other"], row["examples"]] == [*only, 60]
    one_seed = table[(table["table"] == "SST-2") & (table["method"] == "PGD")].iloc[0]
    assert "," not in one_seed["by seed"]  # fine-tuning has three seeds, PGD one: paired with the same one
    further = pd.read_csv(written / "table2c-further.csv")
    assert set(further[further["method"] == "flooding, epochs25"]["against"]) == {"fine-tuning, epochs25"}
    assert set(further[further["method"] == "fine-tuning, epochs25"]["against"]) == {"fine-tuning"}


def test_calibration_beside_raw(grid, results):
    frame = table2b(results)[0].frame
    raw, calibrated = frame["TextFooler", "Aua% raw"], frame["TextFooler", "Aua% calibrated"]
    assert raw["PGD"] == pytest.approx(recount(grid, ["sst2-pgd-0"], "textfooler")[0, 0])
    assert calibrated["PGD"] == pytest.approx(recount(grid, ["sst2-pgd-0"], "textfooler-calibrated")[0, 0])
    assert frame["calibration", "ECE before"]["PGD"] == pytest.approx(0.101)
    assert len(table2b(results)) == 1  # MRPC and AG News were not attacked with calibrated logits


def test_tables_1_and_3(results, grid):
    frame = table1(results)[0].frame
    assert list(frame.index)[:3] == [("SST-2", "train"), ("SST-2", "evaluation"), ("MRPC", "train")]
    assert frame.loc[("AG News", "train")]["", "class shares"] == "25.0%, 25.0%, 25.0%, 25.0%"
    assert list(frame["", "whole data set"])[:2] == ["a part", "yes"]
    frame = table3(read_timing(grid))[0].frame
    assert frame["SST-2", "ratio"]["PGD"] == 5.4 and frame["SST-2", "s/epoch"]["fine-tuning"] == 62.5
    runs = table3b(results)[0].frame["SST-2", "ratio"]
    assert runs["PGD"] == pytest.approx(360 / 60) and runs["Flooding-X"] == pytest.approx(1.0)
    assert table3({}) == []


def test_the_level_with_the_best_mean_is_chosen(tmp_path):
    for level, kept in ((0.05, (6, 2)), (0.1, (4, 5)), (0.2, (5, 4)), (0.3, (8, 0))):
        attacks = {name: HELD[4:] + ["failed"] * n for name, n in zip(("textfooler", "textbugger"), kept, strict=True)}
        write_cell(tmp_path, "sst2", "flooding", 0, variant=f"b{level:g}", level=level, attacks=attacks)
    write_cell(tmp_path, "sst2", "flooding", 1, variant="best", level=0.1, attacks={"textfooler": HELD})
    write_cell(tmp_path, "sst2", "flooding", 2, variant="best", level=0.3, attacks={"textfooler": HELD})
    results = read_results(tmp_path)
    assert best_level(sweep(results, "sst2")) == 0.1  # equal to 0.2: the lower one
    assert [cell["id"] for cell in main_rows(results, "sst2")[0].cells] == [
        "sst2-flooding-b0.1-0",
        "sst2-flooding-best-1",
    ]
    assert "no longer the best: sst2-flooding-best-2" in table2(results)[0].caption


def test_missing_figures_are_dashes(tmp_path):
    write_cell(tmp_path, "sst2", "finetune", 0, attacks={"textfooler": HELD, "bertattack": ["skipped"] * 3})
    write_cell(tmp_path, "sst2", "pgd", 0, attacks={"textfooler": HELD})
    write_cell(tmp_path, "sst2", "freelb", 1)
    tables = table2(read_results(tmp_path))
    texts = tables[0].texts()
    assert texts["BERT-Attack", "Aua%"].tolist() == ["0.0", "-", "-"]
    assert texts["BERT-Attack", "Suc%"].tolist() == ["-", "-", "-"]  # nothing was attacked
    assert texts["TextFooler", "Aua%"].tolist() == ["20.0", "20.0", "-"]
    assert texts["", "Clean%"].tolist() == ["80.0", "80.0", "85.0"]  # without an attack, the last epoch's accuracy
    (tmp_path / "cells" / "sst2-pgd-0" / "examples-textfooler.jsonl").unlink()
    assert table2c(read_results(tmp_path), Outcomes(tmp_path)) == []


def odd_table():
    index = pd.Index(["a_b & 50% <i>", "x|y #1 $"], name="method")
    columns = pd.MultiIndex.from_tuples([("Group_1", "Aua%"), ("Group_1", "note"), ("", "Suc%")])
    frame = pd.DataFrame([[12.34, "~{}^\\", None], [56.789, None, 3.0]], index, columns, dtype=object)
    spread = pd.DataFrame([[0.5], [None]], index, columns[:1], dtype=object)
    return Table("T_1", "50% of #1 & <b>", frame, spread, {"Aua%": "max"})


def test_special_characters_in_every_format():
    table = odd_table()
    assert "x\\|y #1 $" in markdown([table]) and "**56.8**" in markdown([table]) and "12.3 ± 0.5" in markdown([table])
    text = latex([table], "t")
    assert r"a\_b \& 50\% <i>" in text and r"x|y \#1 \$" in text and r"\caption{50\% of \#1 \& <b>}" in text
    assert r"12.3 $\pm$ 0.5" in text and r"\textbf{56.8}" in text and r"Group\_1" in text
    page = html_page([table], "t")
    assert "a_b &amp; 50% &lt;i&gt;" in page and "50% of #1 &amp; &lt;b&gt;" in page
    frame = numbers([table])
    assert frame["Group_1 Aua%"].tolist() == [12.34, 56.789] and frame["Group_1 Aua% sd"].tolist()[0] == 0.5


def test_equal_values_are_not_bold():
    frame = pd.DataFrame([[1.01], [1.02]], pd.Index(["a", "b"], name="method"), [("", "Aua%")], dtype=object)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    assert not Table("t", "c", frame, None, {"Aua%": "max"}).bold().to_numpy().any()


def test_latex_is_balanced(written):
    for path in written.glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"\\begin\{(.+?)\}", text).count("tabular") == text.count(r"\end{tabular}") > 0
        assert text.count(r"\begin{") == text.count(r"\end{")
        assert (
            text.count(r"\toprule")
            == text.count(r"\midrule")
            == text.count(r"\bottomrule")
            == text.count("tabular}") / 2
        )
        bare = re.sub(r"\\[\\&%$#_{}]", "", text)
        assert bare.count("{") == bare.count("}")
        body = re.sub(r"^%.*$|\\label\{.*?\}|\$\\pm\$", "", bare, flags=re.MULTILINE)
        assert not re.search(r"[%$#_^~]", body), path
        for tabular in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
            for line in tabular[1].splitlines():
                if line.endswith(r"\\"):
                    spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
                    assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == len(tabular[0])


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.open = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta",):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_html_shows_what_markdown_shows(written):
    for path in written.glob("*.html"):
        reader = Cells()
        reader.feed(path.read_text(encoding="utf-8"))
        assert reader.open == []
        lines = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
        rows = [line.strip("|").split("|") for line in lines if line.startswith("|") and "---" not in line]
        body = [cell.strip().strip("*") for row in rows if row[0].strip() not in ("method", "data set") for cell in row]
        shown = iter(reader.cells)
        assert all(cell in shown for cell in body), path  # in this order


def test_results_are_sorted(results):
    ids = [result["id"] for result in results]
    assert ids[:3] == ["sst2-finetune-0", "sst2-finetune-1", "sst2-finetune-2"]
    levels = [id for id in ids if "flooding-b" in id and "best" not in id]
    assert levels == [f"sst2-flooding-b{level}-0" for level in ("0.05", "0.06", "0.1", "0.2")]
    assert ids.index("sst2-softad-2") < ids.index("sst2-finetune-epochs25-0") < ids.index("mrpc-finetune-0")
    assert [each["dataset"] for each in results if each["seed"] == 0][-1] == "ag_news"


@pytest.mark.parametrize(
    "content, said",
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ('{"id": "a"}', "lacks dataset, method"),
        (None, "its variant or an attack's raw figures"),
    ],
)
def test_a_broken_result_is_named(tmp_path, content, said):
    good = write_cell(tmp_path, attacks={"textfooler": HELD})
    path = tmp_path / "cells" / "broken" / "result.json"
    path.parent.mkdir()
    path.write_text(json.dumps(good | {"variant": "bad"}) if content is None else content)
    with pytest.raises(UserError, match=said) as error:
        read_results(tmp_path)
    assert str(path) in str(error.value) and "run the grid again" in str(error.value)


def test_broken_examples_are_named(tmp_path):
    write_cell(tmp_path, attacks={"textfooler": draw_results(5, 0.9, 0.2, 0)})
    path = tmp_path / "cells" / "sst2-finetune-0" / "examples-textfooler.jsonl"
    whole = path.read_text()
    assert len(read_examples(tmp_path, "sst2-finetune-0", "textfooler")) == 5
    assert read_examples(tmp_path, "sst2-finetune-0", "pso") == []
    for more, said in (('{"id": 7\n', "line 6 is no record"), (whole.splitlines()[0] + "\n", "example 0 for a second")):
        path.write_text(whole + more)
        with pytest.raises(UserError, match=said) as error:
            read_examples(tmp_path, "sst2-finetune-0", "textfooler")
        assert str(path) in str(error.value)


def test_nothing_finished(tmp_path):
    with pytest.raises(UserError, match="has no finished cell"):
        read_results(tmp_path)
    (tmp_path / "timing").mkdir()
    (tmp_path / "timing" / "sst2.json").write_text('{"rows": [{"method": "pgd"}]}')
    with pytest.raises(UserError, match=r"sst2\.json is no result of the timing"):
        read_timing(tmp_path)
