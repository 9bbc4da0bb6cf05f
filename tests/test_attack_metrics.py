from __future__ import annotations

import random

import pytest

from mindspore_floodx.attack_metrics import summarise, table_row


def example(result, queries):
    return {"result": result, "queries": queries}


def test_figures_equal_an_independent_recount():
    rng = random.Random(3)
    examples = [example(rng.choice(["succeeded", "failed", "skipped"]), rng.randint(1, 300)) for _ in range(137)]
    figures = summarise(iter(examples))
    # TextAttack's own arithmetic, restated: shares of all, of the attacked, and a mean over the attacked
    still_right = sum(1 for e in examples if e["result"] == "failed")
    fooled = sum(1 for e in examples if e["result"] == "succeeded")
    spent = [e["queries"] for e in examples if e["result"] in ("failed", "succeeded")]
    assert figures["num_examples"] == 137
    assert (figures["num_succeeded"], figures["num_failed"]) == (fooled, still_right)
    assert figures["num_skipped"] == 137 - fooled - still_right
    assert figures["accuracy_under_attack"] == pytest.approx(still_right / 137)
    assert figures["attack_success_rate"] == pytest.approx(fooled / len(spent))
    assert figures["avg_queries"] == pytest.approx(sum(spent) / len(spent))
    assert figures["accuracy_before_attack"] == pytest.approx(len(spent) / 137)


def test_a_skipped_example_counts_as_wrong_but_not_as_attacked():
    figures = summarise([example("skipped", 1), example("failed", 40), example("succeeded", 20), example("skipped", 1)])
    assert figures["accuracy_under_attack"] == 0.25
    assert figures["attack_success_rate"] == 0.5
    assert figures["avg_queries"] == 30.0


def test_nothing_attacked_gives_no_figure_instead_of_a_number():
    figures = summarise([example("skipped", 1)] * 3)
    assert figures["accuracy_under_attack"] == 0.0
    assert figures["attack_success_rate"] is None
    assert figures["avg_queries"] is None
    assert summarise([])["accuracy_under_attack"] is None


def test_an_unknown_result_is_not_counted_silently():
    with pytest.raises(ValueError, match="maximised"):
        summarise([example("maximised", 3)])


def summary(**values):
    row = {"attack": "textfooler", "clean_accuracy": 0.9151, "accuracy_under_attack": 0.25, "resources": "official"}
    return row | {"attack_success_rate": 0.7, "avg_queries": 61.26} | values


def test_table_row_shows_percentages_in_the_order_of_the_paper():
    heading, row = table_row(summary()).split("\n")
    assert [cell.strip() for cell in heading.split("|")][1:] == ["Clean%", "Aua%", "Suc%", "#Query"]
    assert [cell.strip() for cell in row.split("|")] == ["textfooler", "91.5", "25.0", "70.0", "61.3"]


def test_table_row_names_stand_ins_and_missing_figures():
    row = table_row(summary(resources="standin", attack_success_rate=None, avg_queries=None)).split("\n")[1]
    assert "stand-in resources" in row
    assert [cell.strip() for cell in row.split("|")][3:] == ["-", "-"]
    assert "stand-in" not in table_row(summary())
