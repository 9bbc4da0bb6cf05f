"""Is the stand-in masked language model good enough for BERT-Attack? What it guesses, for a reader to judge.

    python run/standin_mlm.py --output-dir MLM --dataset sst2 mrpc imdb --data-dir DATA
    python run/attack.py RUN --attack bertattack --resources standin --masked-lm MLM --num-examples 15
    python benchmarks/standin_mlm_evidence.py --masked-lm MLM --data-dir DATA --attacked RUN/attacks/bertattack

Writes results/standin_mlm.json and .md: how many hidden held-out words are guessed; the candidates that BERT-Attack
would see, asked of its own word swap, for one word in each of the first ten SST-2 validation sentences; and, with
--attacked, all the sentences of an attack. Words are chosen by a rule, nothing by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mindspore_floodx.attack_library import BUILT_IN_NLTK_DATA, textattack
from mindspore_floodx.attack_swaps import MaskedLMSwap
from mindspore_floodx.data import load_dataset
from mindspore_floodx.files import write_json, write_text
from mindspore_floodx.standin_mlm import RECORD

ROOT = Path(__file__).resolve().parent.parent
SENTENCES, SHOWN, CANDIDATES = 10, 8, 48


def main() -> None:
    """Asks the model, and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masked-lm", type=Path, required=True, help="folder of run/standin_mlm.py")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--attacked", type=Path, help="folder of a finished attack, with summary.json")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "standin_mlm.json")
    arguments = parser.parse_args()
    texts = load_dataset("sst2", arguments.data_dir).evaluation.texts[:SENTENCES]
    found: dict[str, Any] = {"training": json.loads((arguments.masked_lm / RECORD).read_text(encoding="utf-8"))}
    found["candidates"] = candidates(arguments.masked_lm, texts)
    if arguments.attacked:
        found["attack"] = json.loads((arguments.attacked / "summary.json").read_text(encoding="utf-8"))
        lines = (arguments.attacked / "examples.jsonl").read_text(encoding="utf-8").splitlines()
        kept = ("id", "original", "perturbed", "result", "queries", "num_words", "num_words_changed")
        found["attacked"] = [{name: record[name] for name in kept} for record in map(json.loads, lines)]
    write_json(arguments.output, found)
    write_text(arguments.output.with_suffix(".md"), report(found))


def candidates(folder: Path, texts: list[str]) -> list[dict[str, Any]]:
    """For each text the longest word that is one token and the longest of several, with the first candidates of each.

    Stop words and what is not made of letters alone do not count as words; of equally long ones the first is taken.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True)
    swap = MaskedLMSwap("bert-attack", model, tokenizer, max_candidates=CANDIDATES)
    stopwords = set((BUILT_IN_NLTK_DATA / "corpora/stopwords/english").read_text(encoding="utf-8").split())
    rows = []
    for text in texts:
        attacked = textattack.shared.AttackedText(text)
        content = [i for i, word in enumerate(attacked.words) if word.isalpha() and word.lower() not in stopwords]
        for kind in ("one token", "several tokens"):
            of_kind = [i for i in content if (len(tokenizer.tokenize(attacked.words[i])) == 1) == (kind == "one token")]
            if not of_kind:
                continue
            index = max(of_kind, key=lambda i: len(attacked.words[i]))
            swapped = [new.words[index] for new in swap._get_transformations(attacked, [index])]
            row = {"text": text, "word": attacked.words[index], "kind": kind, "candidates": swapped}
            rows.append(row)
    return rows


def report(found: dict[str, Any]) -> str:
    """Returns the page for `found`."""
    training = found["training"]
    before, after = training["before"], training["after"]
    figures = [
        [
            name,
            f"{after[name]['masked_tokens']:,}",
            *(f"{100 * part[name][key]:.1f}" for key in ("top1", "top5") for part in (before, after)),
            *(f"{part[name]['perplexity']:,.0f}" for part in (before, after)),
        ]
        for name in after
    ]
    headers = [
        "text",
        "hidden tokens",
        "top 1 % before",
        "after",
        "top 5 % before",
        "after",
        "perplexity before",
        "after",
    ]
    settings = training["settings"]
    page = [
        "# The stand-in masked language model",
        f"Six layers of MiniLM and a new head, trained on {settings['tokens']:,} tokens of the text named below (equal "
        f"shares) in {training['seconds_training'] / 60:.0f} minutes on {training['threads']} thread(s), on a machine "
        f"that did other work too{', matrices multiplied in bfloat16' if settings['bfloat16'] else ''}. "
        f"{training['note'][0].upper() + training['note'][1:]}.",
        "## Hidden words of held-out text",
        "15% of the words, all their tokens replaced by [MASK]. The text is held out of the training text of each "
        "source, and nothing that shares eight words in a row with it was trained on. *Before*: the encoder as it "
        "comes and an untrained head that knows the frequencies of the tokens.",
        tabulate(figures, headers=headers, tablefmt="github", disable_numparse=True),
        "## What BERT-Attack sees",
        f"The first {SENTENCES} SST-2 validation sentences; in each the longest word that is a single token and, where "
        "there is one, the longest that is several (stop words aside; the first of equally long ones). The sentence is "
        f"shown to the model whole, as BERT-Attack does it, and its own word swap gives the candidates: the first "
        f"{SHOWN} of at most {CANDIDATES}, best first. Candidates for a word of several tokens are products of the "
        "tokens' candidates, in an order that changes the last token first; many are no words.",
    ]
    for kind in ("one token", "several tokens"):
        rows = [
            [row["text"].replace(row["word"], f"**{row['word']}**", 1), ", ".join(row["candidates"][:SHOWN])]
            for row in found["candidates"]
            if row["kind"] == kind
        ]
        page += [tabulate(rows, headers=[f"sentence, **word** of {kind}", "candidates"], tablefmt="github")]
    if "attacked" in found:
        page += attacked_section(found["attack"], found["attacked"])
    page.append(
        "Written by `python benchmarks/standin_mlm_evidence.py --masked-lm MLM --data-dir DATA --attacked RUN/...`."
    )
    return "\n\n".join(page) + "\n"


def attacked_section(summary: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
    """The attack's figures and all of its sentences, in the order of their positions."""
    rows = []
    for record in records:
        (old,), (new,) = record["original"].values(), record["perturbed"].values()
        text = old if record["result"] == "skipped" else marked(old, new)
        rows.append([record["id"], record["result"], record["queries"], text])
    rate = summary["attack_success_rate"]
    figures = [
        f"Clean {100 * summary['clean_accuracy']:.1f}%",
        f"Aua {100 * summary['accuracy_under_attack']:.1f}%",
        *([] if rate is None else [f"Suc {100 * rate:.1f}%", f"{summary['avg_queries']:.0f} queries"]),
    ]
    return [
        "## Sentences under BERT-Attack",
        f"{summary['num_examples']} random {summary['dataset']} validation sentences, stand-in resources "
        f"({'; '.join(summary['resource_notes'])}): {', '.join(figures)}. All sentences; a changed word is shown as "
        "~~old~~ **new**; of a failed attack the best attempt.",
        tabulate(rows, headers=["position", "result", "queries", "sentence"], tablefmt="github"),
    ]


def marked(old: str, new: str) -> str:
    """The old text with each word that differs followed by the new one; words are swapped one for one."""
    pairs = zip(old.split(), new.split(), strict=True)
    return " ".join(a if a == b else f"~~{a}~~ **{b}**" for a, b in pairs)


if __name__ == "__main__":
    main()
