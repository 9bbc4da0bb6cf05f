from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mindspore_floodx.attack_metrics import count_changed_words, mean_interval, share_interval, summarise, table


def example(result, queries, words=10, changed=0):
    return {"result": result, "queries": queries, "num_words": words, "num_words_changed": changed}


def test_figures_equal_an_independent_recount():
    rng = random.Random(3)
    examples = [
        example(
            rng.choice(["succeeded", "failed", "skipped"]), rng.randint(1, 300), rng.randint(5, 30), rng.randint(1, 5)
        )
        for _ in range(137)
    ]
    figures = summarise(iter(examples))
    # TextAttack's own arithmetic, restated: shares of all, of the attacked, and means over the attacked
    still_right = sum(1 for e in examples if e["result"] == "failed")
    fooled = [e["num_words_changed"] / e["num_words"] for e in examples if e["result"] == "succeeded"]
    spent = [e["queries"] for e in examples if e["result"] in ("failed", "succeeded")]
    assert figures["num_examples"] == 137
    assert (figures["num_succeeded"], figures["num_failed"]) == (len(fooled), still_right)
    assert figures["num_skipped"] == 137 - len(fooled) - still_right
    assert figures["accuracy_under_attack"] == pytest.approx(still_right / 137)
    assert figures["attack_success_rate"] == pytest.approx(len(fooled) / len(spent))
    assert figures["avg_queries"] == pytest.approx(sum(spent) / len(spent))
    assert figures["avg_words_changed"] == pytest.approx(sum(fooled) / len(fooled))
    assert figures["accuracy_before_attack"] == pytest.approx(len(spent) / 137)
    # intervals, by the formulas of Wilson (1927) and Student (1908)
    z = stats.norm.ppf(0.975)
    for name, part, whole in [
        ("accuracy_under_attack", still_right, 137),
        ("attack_success_rate", len(fooled), len(spent)),
        ("accuracy_before_attack", len(spent), 137),
    ]:
        share = part / whole
        middle, half = share + z**2 / (2 * whole), z * np.sqrt(share * (1 - share) / whole + (z / (2 * whole)) ** 2)
        expected = [(middle - half) / (1 + z**2 / whole), (middle + half) / (1 + z**2 / whole)]
        assert figures[f"{name}_interval"] == pytest.approx(expected)
    for name, values in [("avg_queries", spent), ("avg_words_changed", fooled)]:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert figures[f"{name}_interval"] == pytest.approx([low, high])


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = [share_interval(int(rng.binomial(200, 0.1)), 200) for _ in range(1500)]
    assert np.mean([low <= 0.1 <= high for low, high in held]) == pytest.approx(0.95, abs=0.02)
    held = [mean_interval(rng.gamma(2.0, 50.0, 60).tolist()) for _ in range(1500)]  # skewed, as queries are
    assert np.mean([low <= 100 <= high for low, high in held]) == pytest.approx(0.95, abs=0.02)


def test_intervals_at_the_edges():
    assert share_interval(0, 0) is None
    assert share_interval(0, 20) == pytest.approx([0, 0.1611], abs=1e-4)
    assert share_interval(20, 20) == pytest.approx([0.8389, 1], abs=1e-4)
    assert mean_interval([]) is mean_interval([3.0]) is None
    assert mean_interval([2.0, 2.0, 2.0]) == [2.0, 2.0]
    assert mean_interval([1.0, 200.0])[0] == 0.0
    assert mean_interval([0.1, 1.0], highest=1.0) == [0.0, 1.0]


def test_an_input_without_words_counts_everywhere_but_in_the_changed_words():
    figures = summarise([example("failed", 1, 0, 0), example("succeeded", 9, 1, 1), example("succeeded", 1, 0, 0)])
    assert figures["accuracy_under_attack"] == pytest.approx(1 / 3)
    assert figures["avg_queries"] == pytest.approx(11 / 3)
    assert figures["avg_words_changed"] == 1.0


def test_a_skipped_example_counts_as_wrong_but_not_as_attacked():
    figures = summarise([example("skipped", 1), example("failed", 40), example("succeeded", 20), example("skipped", 1)])
    assert figures["accuracy_under_attack"] == 0.25
    assert figures["attack_success_rate"] == 0.5
    assert figures["avg_queries"] == 30.0


def test_nothing_attacked_gives_no_figure_instead_of_a_number():
    figures = summarise([example("skipped", 1)] * 3)
    assert figures["accuracy_under_attack"] == 0.0
    assert figures["attack_success_rate"] is None
    assert figures["avg_queries"] is figures["avg_words_changed"] is None
    assert figures["attack_success_rate_interval"] is figures["avg_queries_interval"] is None
    assert figures["accuracy_under_attack_interval"][0] == 0.0
    assert summarise([])["accuracy_under_attack"] is summarise([])["accuracy_under_attack_interval"] is None


def test_an_unknown_result_is_not_counted_silently():
    with pytest.raises(ValueError, match="maximised"):
        summarise([example("maximised", 3)])


def summary(**values):
    row = {"attack": "textfooler", "clean_accuracy": 0.9151, "accuracy_under_attack": 0.25, "resources": "official"}
    return row | {"attack_success_rate": 0.7, "avg_queries": 61.26, "avg_words_changed": 0.1234} | values


def cells(line):
    return [cell.strip() for cell in line.split("|")]


def test_table_shows_percentages_in_the_order_of_the_paper_and_intervals_where_they_are_known():
    intervals = {"accuracy_under_attack_interval": [0.2, 0.311], "avg_queries_interval": [50.0, 72.55]}
    heading, _, row = table([summary(**intervals)]).split("\n")
    assert cells(heading)[1:] == ["Clean%", "Aua%", "Suc%", "#Query", "changed%"]
    assert cells(row) == ["textfooler", "91.5", "25.0 [20.0, 31.1]", "70.0", "61.3 [50.0, 72.5]", "12.3"]


def test_table_names_stand_ins_and_missing_figures():
    nothing = {"attack_success_rate": None, "avg_queries": None, "avg_words_changed": None}
    row = table([summary(resources="standin", **nothing)]).split("\n")[2]
    assert "stand-in resources" in row
    assert cells(row)[3:] == ["-", "-", "-"]
    assert "stand-in" not in table([summary()])


def test_table_tells_raw_calibrated_and_mindspore_rows_apart():
    rows = table(
        [summary(calibration=None), summary(calibration={"temperatures": [2.346, 0.5]}), summary(victim="mindspore")]
    ).split("\n")[2:]
    assert [cells(row)[0] for row in rows] == [
        "textfooler",
        "textfooler, logits / 2.35 and 0.5",
        "textfooler, MindSpore",
    ]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """The folder and the summaries of real attacks on ordinary, empty and one-word inputs, some of them skipped."""
    from test_attacks import dataset
    from tiny_victim import NEIGHBOURS, SENTENCES, export_tiny

    from mindspore_floodx.attacks import attack

    folder = tmp_path_factory.mktemp("attacked")
    export_tiny(folder / "model")
    texts = [*SENTENCES, "", "Bad", "!", "the", "Wonderful film"]
    summaries = {}
    for name in ("synonym", "deepwordbug"):
        given = {"synonyms": NEIGHBOURS} if name == "synonym" else {"resources": "standin"}
        summaries[name] = attack(
            folder / "model", name, "all", data=dataset(texts), output_dir=folder, progress=False, **given
        )
    return folder, summaries


@pytest.mark.parametrize("name", ["synonym", "deepwordbug"])
def test_summary_equals_a_recount_of_the_per_example_file_in_pandas(name, attacked):
    folder, summaries = attacked
    summary = summaries[name]
    lines = pd.read_json(folder / "attacks" / name / "examples.jsonl", lines=True, precise_float=True)
    rows = pd.read_parquet(folder / "attacks" / name / "examples.parquet")
    assert rows["id"].tolist() == lines["id"].tolist() == summary["example_ids"]
    for column in ("result", "queries", "label", "num_words", "num_words_changed", "original", "perturbed"):
        assert rows[column].tolist() == lines[column].tolist()
    for column in ("original_scores", "perturbed_scores"):
        assert [list(row) for row in rows[column]] == lines[column].tolist()
    assert {0, 1} <= set(rows["num_words"])  # empty and one-word inputs
    assert set(rows["result"]) == {"succeeded", "failed", "skipped"}
    # from labels and outputs, without the column `result`
    right = rows["original_output"] == rows["label"]
    held = right & (rows["perturbed_output"] == rows["label"])
    assert summary["accuracy_before_attack"] == pytest.approx(right.mean())
    assert summary["accuracy_under_attack"] == pytest.approx(held.mean())
    assert summary["attack_success_rate"] == pytest.approx(1 - held[right].mean())
    assert summary["avg_queries"] == pytest.approx(rows.loc[right, "queries"].mean())
    fooled = rows[right & ~held]
    assert summary["avg_words_changed"] == pytest.approx((fooled["num_words_changed"] / fooled["num_words"]).mean())
    assert summary["clean_accuracy"] == pytest.approx(right.mean())  # the whole set was attacked
    assert summary["clean_accuracy_interval"] == summary["accuracy_before_attack_interval"]


def test_changed_words_equal_those_of_textattack_where_words_are_swapped(tmp_path):
    from tiny_victim import NEIGHBOURS, SENTENCES, export_tiny

    from mindspore_floodx.attack_library import textattack
    from mindspore_floodx.attack_recipes import AttackSettings, build_attack
    from mindspore_floodx.attack_victim import Victim

    victim = Victim(export_tiny(tmp_path))
    built = build_attack(AttackSettings("synonym", synonyms=NEIGHBOURS), victim)
    results = [built.attack(text, int(victim([text]).argmax())) for text in SENTENCES]
    theirs = textattack.metrics.attack_metrics.WordsPerturbed().calculate(results)["avg_word_perturbed_perc"]
    records = [
        {
            "result": "succeeded" if isinstance(result, textattack.attack_results.SuccessfulAttackResult) else "failed",
            "queries": result.num_queries,
            "num_words": result.original_result.attacked_text.num_words,
            "num_words_changed": count_changed_words(result.perturbed_result.attacked_text.attack_attrs),
        }
        for result in results
    ]
    assert {record["result"] for record in records} == {"succeeded", "failed"}
    assert round(100 * summarise(records)["avg_words_changed"], 2) == theirs


def test_changed_words_are_words_of_the_original_also_where_words_are_split_removed_or_added():
    from mindspore_floodx.attack_library import textattack

    text = textattack.shared.AttackedText("a great film with good music")
    assert count_changed_words(text.attack_attrs) == 0
    split = text.replace_word_at_index(1, "gr eat")
    assert count_changed_words(split.attack_attrs) == 1
    again = split.replace_word_at_index(3, "fi lm")  # "film" has moved from place 2 to 3
    assert again.words == ["a", "gr", "eat", "fi", "lm", "with", "good", "music"]
    assert count_changed_words(again.attack_attrs) == 2
    assert len(text.all_words_diff(again)) == 5  # what TextAttack counts
    assert count_changed_words(again.replace_word_at_index(7, "song").attack_attrs) == 3
    assert count_changed_words(text.delete_word_at_index(0).attack_attrs) == 1
    assert count_changed_words(text.insert_text_before_word_index(2, "new").attack_attrs) == 1
