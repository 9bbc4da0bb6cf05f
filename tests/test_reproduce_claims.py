"""The claims page: each verdict from runs that are made to support, not to support, or not to test the claim."""

from __future__ import annotations

import json

import pytest
from reproduce_results import write_cell, write_grid, write_timing

from mindspore_floodx.reproduce import claims_of_attacks as attacks
from mindspore_floodx.reproduce import claims_of_training as training
from mindspore_floodx.reproduce.claims import NOT_SUPPORTED, NOT_TESTED, SUPPORTED, Evidence, Part, decide
from mindspore_floodx.reproduce.claims_page import RULES, write_claims
from mindspore_floodx.reproduce.published import SOURCES, beside, read_published
from mindspore_floodx.reproduce.results import read_results, read_timing
from mindspore_floodx.reproduce.rows import lowest_before_flooding
from mindspore_floodx.reproduce.statistics import Outcomes

ALL = ("finetune", "pgd", "freelb", "tavat", "infobert", "flooding", "floodingx")


def kept(count, examples=200):
    """Results of which the first `count` withstood; models with more withstand on the same examples and others."""
    return ["failed"] * count + ["succeeded"] * (examples - count - 20) + ["skipped"] * 20


def write_methods(output, counts, dataset="sst2", seeds=(0,), examples=200, **more):
    """A cell a method and seed, `counts` of its examples withstanding TextFooler."""
    for method, count in counts.items():
        for seed in seeds:
            write_cell(output, dataset, method, seed, attacks={"textfooler": kept(count, examples)}, **more)


def evidence_of(output):
    return Evidence(read_results(output), Outcomes(output), read_timing(output))


def judged(claim):
    return claim.verdict, {part.what: part.verdict for part in claim.parts}


def test_best_on_all_four(tmp_path):
    counts = dict.fromkeys(ALL, 40) | {"pgd": 50, "floodingx": 80}
    for dataset in ("imdb", "ag_news", "sst2", "mrpc"):
        write_methods(tmp_path, counts, dataset)
    claim = attacks.best_under_textfooler(evidence_of(tmp_path))
    assert claim.verdict == SUPPORTED
    part = claim.parts[0]
    assert part.values["next_best"] == "PGD" and part.values["difference"] == pytest.approx(0.15)
    assert part.figure.startswith("Aua% 40.0 against 25.0 of PGD, difference +15.0 points [")


def test_best_but_for_chance_or_without_all_baselines(tmp_path):
    write_methods(tmp_path, dict.fromkeys(ALL, 40) | {"pgd": 79, "floodingx": 80})
    write_methods(tmp_path, {"finetune": 40, "floodingx": 80}, "mrpc")
    write_methods(tmp_path, {"finetune": 40, "floodingx": 30}, "imdb")
    verdict, parts = judged(attacks.best_under_textfooler(evidence_of(tmp_path)))
    assert verdict == NOT_SUPPORTED
    assert parts == {"IMDB": NOT_SUPPORTED, "AG News": NOT_TESTED, "SST-2": NOT_SUPPORTED, "MRPC": NOT_TESTED}


def test_best_needs_all_named_data_sets(tmp_path):
    write_methods(tmp_path, dict.fromkeys(ALL, 40) | {"floodingx": 80})
    claim = attacks.best_under_textfooler(evidence_of(tmp_path))
    assert judged(claim)[0] == NOT_TESTED and claim.reason.startswith("supported: SST-2; IMDB: Flooding-X was not")


@pytest.mark.parametrize(
    "pgd, examples, verdict", [(252, 500, SUPPORTED), (300, 500, NOT_SUPPORTED), (20, 40, NOT_TESTED)]
)
def test_below_pgd_on_qnli(tmp_path, pgd, examples, verdict):
    ours = 18 if examples == 40 else 250
    write_methods(tmp_path, {"pgd": pgd, "floodingx": ours}, "qnli", examples=examples)
    if verdict == NOT_SUPPORTED:  # the differing examples are few enough for a narrow interval
        write_methods(tmp_path, {"floodingx": 292}, "qnli", examples=examples)
    assert attacks.below_pgd_on_qnli(evidence_of(tmp_path)).verdict == verdict


@pytest.mark.parametrize("ours, verdict", [(80, SUPPORTED), (55, NOT_SUPPORTED)])
def test_points_above_the_adversarial_baselines(tmp_path, ours, verdict):
    write_methods(tmp_path, {"pgd": 60, "freelb": 40, "floodingx": ours})
    write_methods(tmp_path, {"finetune": 40}, "mrpc")
    claim = attacks.above_adversarial(evidence_of(tmp_path))
    assert claim.verdict == verdict
    mean = next(part for part in claim.parts if part.decides)
    assert mean.values["difference"] == pytest.approx((ours - 50) / 200) and mean.values["datasets"] == 1
    assert "TAVAT, InfoBERT were not run" in mean.reason
    assert "calibrated" not in str(claim.parts)


def test_average_over_data_sets(tmp_path):
    for dataset, ours in (("sst2", 60), ("mrpc", 90)):
        write_methods(tmp_path, {"pgd": 50, "floodingx": ours}, dataset)
    mean = next(part for part in attacks.above_adversarial(evidence_of(tmp_path)).parts if part.decides)
    assert mean.values["difference"] == pytest.approx((0.05 + 0.2) / 2)
    # the standard error of the mean of two independent differences
    error = ((0.05 * 0.95 + 0.2 * 0.8) / 200) ** 0.5 / 2
    assert mean.values["high"] - mean.values["low"] == pytest.approx(2 * 1.96 * error, rel=0.06)


@pytest.mark.parametrize("ours, verdict", [(90, SUPPORTED), (70, NOT_SUPPORTED)])
def test_gain_over_finetuning(tmp_path, ours, verdict):
    write_methods(tmp_path, {"finetune": 40, "floodingx": ours}, seeds=(0, 1))
    claim = attacks.gain_over_finetuning(evidence_of(tmp_path))
    assert claim.verdict == verdict
    mean = next(part for part in claim.parts if part.decides)
    assert mean.values["gain"] == pytest.approx(ours / 40 - 1)


def test_gain_from_nothing_is_none(tmp_path):
    write_methods(tmp_path, {"finetune": 0, "floodingx": 10})
    claim = attacks.gain_over_finetuning(evidence_of(tmp_path))
    assert claim.verdict == NOT_TESTED and "withstood no attack" in claim.parts[0].reason


def test_what_does_not_outlast_calibration_is_told(tmp_path):
    for method, raw, calibrated in (("finetune", 40, 40), ("floodingx", 90, 40)):
        write_cell(
            tmp_path, "sst2", method, attacks={"textfooler": kept(raw)}, calibrated={"textfooler": kept(calibrated)}
        )
    claim = attacks.gain_over_finetuning(evidence_of(tmp_path))
    assert claim.verdict == SUPPORTED
    assert {part.what: part.verdict for part in claim.parts}["mean over the data sets, calibrated"] == NOT_SUPPORTED


@pytest.mark.parametrize(
    "levels, verdict",
    [
        ({0.1: 40, 0.11: 60, 0.2: 41}, SUPPORTED),
        ({0.1: 40, 0.11: 43, 0.2: 80}, NOT_SUPPORTED),  # what differs is not slightly apart
        ({0.1: 40, 0.2: 41, 0.3: 42}, NOT_SUPPORTED),  # not even far levels differ
        ({0.1: 40, 0.2: 80}, NOT_TESTED),  # far levels differ; near ones are not there
        ({0.1: 40}, NOT_TESTED),
    ],
)
def test_sensitivity_to_the_level(tmp_path, levels, verdict):
    for level, count in levels.items():
        write_methods(tmp_path, {"flooding": count}, variant=f"b{level:g}", level=level)
    assert attacks.sensitive_to_level(evidence_of(tmp_path)).verdict == verdict


def test_a_handful_of_examples_decides_nothing(tmp_path):
    write_methods(tmp_path, dict.fromkeys(ALL, 5) | {"floodingx": 20}, examples=45)
    for level in (0.1, 0.11):
        write_methods(tmp_path, {"flooding": 5}, variant=f"b{level:g}", level=level, examples=45)
    evidence = evidence_of(tmp_path)
    for rule in (*RULES[:4], attacks.sensitive_to_level):
        claim = rule(evidence)
        assert claim.verdict == NOT_TESTED, claim.id
    assert "fewer than 50 examples" in claim.reason


def test_levels_need_examples_enough(tmp_path):
    for level, first in ((0.1, 0), (0.11, 12)):  # as many withstand, but others: the interval is wide
        held = ["succeeded"] * first + ["failed"] * 30 + ["succeeded"] * (38 - first)
        write_cell(tmp_path, "sst2", "flooding", variant=f"b{level:g}", level=level, attacks={"textfooler": held})
    claim = attacks.sensitive_to_level(evidence_of(tmp_path))
    assert claim.verdict == NOT_TESTED and "too few examples" in claim.reason


@pytest.mark.parametrize(
    "ratios, as_finetuning, as_adversarial",
    [
        ({"flooding": 1.02, "floodingx": 1.08, "pgd": 5.0, "freelb": 3.0}, SUPPORTED, SUPPORTED),
        ({"flooding": 1.02, "floodingx": 1.3, "pgd": 5.0, "freelb": 2.5}, NOT_SUPPORTED, NOT_SUPPORTED),
        ({"flooding": 1.02, "pgd": 5.0}, NOT_TESTED, NOT_TESTED),
    ],
)
def test_times(tmp_path, ratios, as_finetuning, as_adversarial):
    write_cell(tmp_path)
    write_timing(tmp_path, "sst2", {"finetune": 1.0, **ratios})
    evidence = evidence_of(tmp_path)
    assert training.time_of_finetuning(evidence).verdict == as_finetuning
    assert training.time_of_adversarial(evidence).verdict == as_adversarial


def test_the_clocks_of_the_runs_decide_nothing(tmp_path):
    for method in ("finetune", "floodingx", "pgd"):
        write_cell(tmp_path, "sst2", method)
    evidence = evidence_of(tmp_path)
    for rule, figure in ((training.time_of_finetuning, "Flooding-X 1.00"), (training.time_of_adversarial, "PGD 6.00")):
        claim = rule(evidence)
        assert claim.verdict == NOT_TESTED and figure in claim.parts[0].figure and "own clocks" in claim.parts[0].reason


@pytest.mark.parametrize(
    "ours, epoch_5, rise",
    [
        ([0.2] * 6 + [0.3, 0.4, 0.5, 0.6], SUPPORTED, SUPPORTED),
        ([0.01] * 10, NOT_SUPPORTED, NOT_SUPPORTED),
        ([0.05, 0.1, 0.15, 0.18, 0.18, 0.35, 0.4, 0.5, 0.55, 0.56], NOT_TESTED, NOT_SUPPORTED),  # no faster than before
        (None, NOT_TESTED, NOT_TESTED),
    ],
)
def test_robustness_by_epoch(tmp_path, ours, epoch_5, rise):
    write_cell(tmp_path, "sst2", "finetune", by_epoch=[0.3] * 9 + [0.2])
    write_cell(tmp_path, "sst2", "floodingx", by_epoch=ours)
    evidence = evidence_of(tmp_path)
    assert training.robust_at_epoch_5(evidence).verdict == epoch_5
    assert training.steep_rise(evidence).verdict == rise


def test_flooding_stands_in_by_epoch(tmp_path):
    write_cell(tmp_path, "sst2", "finetune", by_epoch=[0.2] * 10)
    write_cell(tmp_path, "sst2", "flooding", level=0.1, by_epoch=[0.3] * 10)
    claim = training.robust_at_epoch_5(evidence_of(tmp_path))
    assert claim.verdict == SUPPORTED and claim.parts[0].figure.startswith("flooding after epoch 5 30.0%")


@pytest.mark.parametrize("ours, verdict", [(0.5, SUPPORTED), (1.5, NOT_SUPPORTED)])
def test_flatness(tmp_path, ours, verdict):
    for place, method in enumerate(ALL):
        write_cell(tmp_path, "sst2", method, 0, smoothness=ours if method == "floodingx" else 1.0 + 0.1 * place)
    claim = training.flatter_loss(evidence_of(tmp_path))
    assert claim.verdict == verdict
    mean_square = sum((0.05 * step) ** 2 for step in range(1, 11)) / 10
    assert claim.parts[0].values["Flooding-X"] == pytest.approx(ours * mean_square)
    (tmp_path / "cells" / "sst2-tavat-0" / "result.json").unlink()
    expected = NOT_TESTED if verdict == SUPPORTED else NOT_SUPPORTED  # one that is flatter is enough against it
    assert training.flatter_loss(evidence_of(tmp_path)).verdict == expected


def test_flatness_must_hold_for_every_seed(tmp_path):
    for method in ALL:
        for seed in (0, 1):
            steepness = (0.9 if seed else 0.2) if method == "floodingx" else (0.8 if seed else 1.0)
            write_cell(tmp_path, "sst2", method, seed, smoothness=steepness)
    assert training.flatter_loss(evidence_of(tmp_path)).verdict == NOT_SUPPORTED


@pytest.mark.parametrize(
    "turn, fired, verdict", [(9, True, SUPPORTED), (20, True, NOT_SUPPORTED), (9, False, NOT_SUPPORTED)]
)
def test_turn_and_test_loss(tmp_path, turn, fired, verdict):
    level = {"level": 0.2, "rule": "change-point", "sub_epoch": turn, "fired": fired, "reason": "-"}
    write_cell(tmp_path, "sst2", "floodingx", accordance=True, flood_level=level)
    assert training.turn_and_test_loss(evidence_of(tmp_path)).verdict == verdict


def test_only_the_losses_before_flooding_count():
    rows = [(1, -0.9, 0.5), (2, -0.5, 0.4), (3, None, 0.3)]
    names = ("sub_epoch", "accordance", "eval_loss")
    cell = {"accordance": [dict(zip(names, row, strict=True)) for row in rows]}
    assert lowest_before_flooding(cell) == 2
    assert lowest_before_flooding({"accordance": cell["accordance"][2:]}) is None


def test_one_part_against_it_is_enough():
    parts = [
        Part("A", SUPPORTED),
        Part("B", NOT_SUPPORTED),
        Part("C", NOT_TESTED),
        Part("D", NOT_SUPPORTED, decides=False),
    ]
    assert decide("i", "c", "r", "t", parts).verdict == NOT_SUPPORTED
    assert decide("i", "c", "r", "t", [parts[0], parts[2], parts[3]]).verdict == SUPPORTED
    assert decide("i", "c", "r", "t", [parts[0], parts[2]], named=True).verdict == NOT_TESTED
    assert decide("i", "c", "r", "t", []).verdict == NOT_TESTED


def test_the_page(tmp_path):
    write_grid(tmp_path, examples=40)
    evidence = evidence_of(tmp_path)
    page, data = write_claims(evidence, tmp_path)
    text, content = page.read_text(encoding="utf-8"), json.loads(data.read_text(encoding="utf-8"))
    assert len(content["claims"]) == len(RULES) == 11
    for claim in content["claims"]:
        assert claim["verdict"] in (SUPPORTED, NOT_SUPPORTED, NOT_TESTED) and claim["reason"] and claim["parts"]
        assert f"Rule: {claim['rule']}" in text and f"Test: {claim['test']}" in text
        assert text.count(f"(#{claim['id']})") == text.count(f'<a id="{claim["id"]}">') == 1
    assert "stand-in resources" in text and "Encoder MiniLM" in content["conditions"]
    assert {row["source"] for row in content["published"]["rows"]} <= set(SOURCES)
    assert "None is of the Flooding-X paper's own tables" in text


def test_published_figures_beside_ours(tmp_path):
    write_methods(tmp_path, {"finetune": 40, "floodingx": 80}, seeds=(0, 1))
    rows = beside(read_results(tmp_path))
    assert {row["attack"] for row in rows} == {"TextFooler"}  # nothing of attacks and data sets that were not run
    assert {row["dataset"] for row in rows} == {"SST-2", "SST-2 (6,920 sentences)"}
    found = {(row["method"], row["source"]): row for row in rows}
    ours = found["Fine-tune", "robust-tickets-2022"]
    assert (ours["aua_pct"], ours["ours_aua_pct"], ours["ours_seeds"]) == (5.0, pytest.approx(20.0), 2)
    assert found["FreeLB++", "rmlm-2023"]["ours_aua_pct"] is None  # another method than FreeLB
    assert found["Flooding-X", "rmlm-2023"]["ours_aua_pct"] == pytest.approx(40.0)
    table = read_published()
    assert set(table["source"]) == set(SOURCES) and table["aua_pct"].between(0, 100).all()
