"""TextAttack 0.3.11 as it comes against this project's attacks: time, work and identity, example by example.

    python benchmarks/attack.py --data-dir DATA --neighbours FILE --sentences EXPORT --pairs EXPORT

Two processes, each held to the same core, have the same attacks on the same models: one is TextAttack's own recipe,
model wrapper and Attacker (tests/stock_attack.py), the other ours. Every example is attacked by one and then the other,
so that a machine whose speed drifts slows both. Resources are the stand-ins on both sides. EXPORT is a trained model's
exported folder, one for SST-2 sentences (which also reads the IMDB reviews) and one for MRPC pairs.

Recorded for each example: whether result, perturbed text and queries are equal, seconds, processor seconds, and the
tokens that victim, sentence encoder and masked LM computed, padding included. Every example is kept in the journal as
soon as it is finished; the same command goes on there.

BERT-Attack has K = 48 on sentences and pairs. Of a word of n sub-words TextAttack then tries 48^n combinations: seconds
for n = 3, minutes for n = 4, hours for n = 5. So sentences with a word of more than three are left out, and pairs with
one of more than two; sentences whose words have at most two are also counted on their own. On reviews BERT-Attack has
TextAttack's own K = 8. Reviews have at most 400 words.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
from tabulate import tabulate
from train_step import Child, write_results

from mindspore_floodx.data import load_dataset
from mindspore_floodx.files import write_text

ATTACKS = ("textfooler", "textbugger", "bertattack")
KINDS = {"sentences": "sst2", "pairs": "mrpc", "reviews": "imdb"}
AIMS = {"textfooler": 20, "textbugger": 15, "bertattack": 20}  # on sentences
AIM_REVIEWS = 4
SHORT_WORDS = "sentences, words of at most two sub-words"
LONGEST_REVIEW = 400  # words
MOST_SUB_WORDS = {"sentences": 3, "pairs": 2}  # of a word, for BERT-Attack
PARTS = ("victim", "encoder", "masked_lm")


def examples_of(kind: str, attack: str, data_dir: Path, count: int) -> list[tuple[int, tuple[str, ...], int, int]]:
    """The first `count` examples of a random order of the evaluation set that suit `kind` and `attack`.

    Each is its position, texts, label, and the sub-words of its longest word.
    """
    from transformers import AutoTokenizer

    from mindspore_floodx.attack_words import words_from_text
    from mindspore_floodx.pretrained import find_model

    where = data_dir / "imdb" if kind == "reviews" else data_dir / "glue"
    split = load_dataset(KINDS[kind], data_dir=where).evaluation
    tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"))
    found = []
    for i in np.random.default_rng(0).permutation(len(split)).tolist():
        if len(found) == count:
            break
        texts = (split.texts[i],) if split.pairs is None else (split.texts[i], split.pairs[i])
        words = [word for text in texts for word in words_from_text(text)]
        if kind == "reviews" and len(words) > LONGEST_REVIEW:
            continue
        longest = max((len(tokenizer.encode(word, add_special_tokens=False)) for word in words), default=0)
        if attack == "bertattack" and longest > MOST_SUB_WORDS.get(kind, longest):
            continue
        found.append((i, texts, int(split.labels[i]), longest))
    return found


def candidates_of(kind: str) -> int:
    return 8 if kind == "reviews" else 48


class Side:
    """One side's attacks on one model, built when they are asked for, with counts of the tokens computed."""

    def __init__(self, side: str, kind: str, options: argparse.Namespace):
        import torch

        torch.set_num_threads(1)
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
        self.side, self.kind, self.options = side, kind, options
        self.folder = options.pairs if kind == "pairs" else options.sentences
        self.attacks: dict = {}
        self.tokens = dict.fromkeys(PARTS, 0)

    def attack_of(self, name: str):
        if name not in self.attacks:
            attack = self._stock(name) if self.side == "stock" else self._ours(name)
            self._count(attack)
            self.attacks[name] = attack
        return self.attacks[name]

    def _stock(self, name: str):
        import stock_attack as stock

        from mindspore_floodx.attack_standin import read_neighbours

        recipe = getattr(stock.RECIPES, stock.CLASSES[name])
        lists = read_neighbours(self.options.neighbours)
        return stock.stock_attack(recipe, self.folder, lists, self.options.masked_lm, candidates_of(self.kind))

    def _ours(self, name: str):
        from mindspore_floodx.attack_recipes import AttackSettings, build_attack
        from mindspore_floodx.attack_savings import Savings
        from mindspore_floodx.attack_victim import Victim

        options = self.options
        settings = AttackSettings(name, "standin", options.neighbours, candidates_of(self.kind), options.masked_lm)
        savings = Savings().without(options.without)
        return build_attack(settings, Victim(self.folder, savings=savings), savings=savings)

    def _count(self, attack) -> None:
        """Has every model of the attack count the tokens that it computes."""
        constraint = attack.constraints[-1]
        victim, encoder = attack.goal_function.model, getattr(constraint, "model", constraint)
        for part, holder, model in (
            ("victim", victim, victim.model),
            ("encoder", encoder, getattr(encoder, "encoder", None) or getattr(encoder, "bert", None)),
            ("masked_lm", attack.transformation, getattr(attack.transformation, "_language_model", None)),
        ):
            packed = getattr(holder, "_packed", None)
            if packed is not None:
                self._count_packed(part, packed)
            elif model is not None:
                model.register_forward_pre_hook(self._counter(part), with_kwargs=True)

    def _counter(self, part: str):
        def count(module, inputs, named):
            self.tokens[part] += named["input_ids"].numel()

        return count

    def _count_packed(self, part: str, packed) -> None:
        original = packed._hidden

        def count(batch, lengths, first_token):
            self.tokens[part] += sum(lengths)
            return original(batch, lengths, first_token)

        packed._hidden = count

    def run(self, name: str, texts: list[str], label: int) -> dict:
        import stock_attack as stock

        attack = self.attack_of(name)
        example = texts[0] if len(texts) == 1 else OrderedDict(zip(("text", "text_pair"), texts, strict=True))
        self.tokens = dict.fromkeys(PARTS, 0)
        began, cpu = time.perf_counter(), time.process_time()
        (essence,) = stock.essence(stock.with_attacker(attack, [example], [label]))
        return {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "result": essence[0].removesuffix("AttackResult").lower(),
            "perturbed": essence[1],
            "queries": essence[2],
            "tokens": self.tokens,
        }

    def serve(self) -> None:
        """Builds each attack that is named and runs it on what follows; one JSON line each way."""
        print(json.dumps({"compile_seconds": 0}), flush=True)
        for line in sys.stdin:
            task, asked = line.split(" ", 1)
            name, texts, label = json.loads(asked)
            if task == "build":
                self.attack_of(name)
                self.run(name, texts, label)  # the first call loads a tagger and warms up
                print("{}", flush=True)
            else:
                print(json.dumps(self.run(name, texts, label)), flush=True)


class Journal:
    """Finished examples, one JSON line each."""

    def __init__(self, path: Path, basis: str):
        self.path, self.basis = path, basis
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows = [row for row in map(_row_of, lines) if row and row["basis"] == basis]

    def has(self, kind: str, attack: str, id: int) -> bool:
        return any((row["kind"], row["attack"], row["id"]) == (kind, attack, id) for row in self.rows)

    def add(self, row: dict) -> None:
        row = {"basis": self.basis, **row}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)


def _row_of(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None  # the line that was being written when the run was stopped


def measure(kind: str, counts: dict[str, int], options: argparse.Namespace, journal: Journal) -> None:
    """Attacks the examples of one kind that are not in the journal yet, the attacks in turn."""
    named = ("data_dir", "neighbours", "masked_lm", "sentences", "pairs")
    passed = [word for name in named for word in (f"--{name.replace('_', '-')}", getattr(options, name))]
    if options.without:
        passed += ["--without", *options.without]
    todo = []
    for attack in options.attacks:
        examples = examples_of(kind, attack, options.data_dir, counts[kind])
        todo += [
            (place, attack, *example)
            for place, example in enumerate(examples)
            if not journal.has(kind, attack, example[0])
        ]
    todo.sort(key=lambda task: task[0])
    if not todo:
        return
    sides = {side: Child(side, kind, 1, __file__, tuple(map(str, passed))) for side in ("stock", "ours")}
    built = set()
    for place, attack, id, texts, label, longest in todo:
        for child in sides.values():
            if attack not in built:
                child.ask("build", json.dumps([attack, ["a good film"] * len(texts), 1]))
        built.add(attack)
        order = list(sides) if place % 2 else list(sides)[::-1]
        answers = {side: sides[side].ask("run", json.dumps([attack, texts, label])) for side in order}
        equal = all(answers["stock"][name] == answers["ours"][name] for name in ("result", "perturbed", "queries"))
        journal.add(
            {
                "kind": kind,
                "attack": attack,
                "id": id,
                "words": sum(len(text.split()) for text in texts),
                "sub_words": longest,
                "equal": equal,
            }
            | answers
        )
        ratio = answers["stock"]["seconds"] / answers["ours"]["seconds"]
        print(
            f"{kind} {attack:10} {id:5}: {answers['ours']['result']}, {answers['ours']['queries']} queries, "
            f"{answers['stock']['seconds']:.1f} s and {answers['ours']['seconds']:.2f} s, x{ratio:.1f}"
            + ("" if equal else " NOT EQUAL"),
            flush=True,
        )
    for child in sides.values():
        child.close()


def summaries_of(rows: list[dict]) -> list[dict]:
    """One row for each kind and attack; times are of attacked examples (skipped ones are a single query)."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["kind"], row["attack"]].append(row)
        if row["attack"] == "bertattack" and row["kind"] == "sentences" and row["sub_words"] <= 2:
            groups[SHORT_WORDS, "bertattack"].append(row)
    summaries = []
    places = [*KINDS, SHORT_WORDS]
    for (kind, attack), group in sorted(groups.items(), key=lambda item: (places.index(item[0][0]), item[0][1])):
        attacked = [row for row in group if row["stock"]["result"] != "skipped"]
        aim = {"sentences": AIMS[attack], "reviews": AIM_REVIEWS}.get(kind)
        summary = {
            "kind": kind, "attack": attack, "examples": len(group), "equal": sum(row["equal"] for row in group),
            "attacked": len(attacked), "aim": aim,
        }  # fmt: skip
        if attacked:
            for unit in ("seconds", "cpu_seconds"):
                ratios = [row["stock"][unit] / row["ours"][unit] for row in attacked]
                totals = [sum(row[side][unit] for row in attacked) for side in ("stock", "ours")]
                summary[f"{unit}_ratio_median"] = statistics.median(ratios)
                summary[f"{unit}_ratio_total"] = totals[0] / totals[1]
            summary["queries"] = sum(row["ours"]["queries"] for row in attacked)
            summary["words_median"] = statistics.median(row["words"] for row in attacked)
            for side in ("stock", "ours"):
                summary[f"{side}_seconds_median"] = statistics.median(row[side]["seconds"] for row in attacked)
                for part in PARTS:
                    summary[f"{side}_{part}_tokens"] = sum(row[side]["tokens"][part] for row in attacked)
        summaries.append(summary)
    return summaries


def _tokens(row: dict, side: str) -> str:
    return " / ".join(f"{row[f'{side}_{part}_tokens'] / row['queries']:.0f}" for part in PARTS)


def write_markdown(path: Path, summaries: list[dict], equal: str, note: str) -> None:
    timed = [row for row in summaries if row["attacked"]]
    names = ("texts", "attack", "attacked", "words", "TextAttack", "ours", "ratio", "of totals", "CPU", "aim")
    heads = [*names, "TextAttack: tokens a query", "ours: tokens a query"]
    table = [
        [
            row["kind"],
            row["attack"],
            row["attacked"],
            f"{row['words_median']:.0f}",
            f"{row['stock_seconds_median']:.1f} s",
            f"{row['ours_seconds_median']:.2f} s",
            f"x{row['seconds_ratio_median']:.1f}",
            f"x{row['seconds_ratio_total']:.1f}",
            f"x{row['cpu_seconds_ratio_total']:.1f}",
            f"x{row['aim']}" if row["aim"] else "-",
            _tokens(row, "stock"),
            _tokens(row, "ours"),
        ]
        for row in timed
    ]
    write_text(
        path,
        "# Attacks: TextAttack 0.3.11 as it comes, and ours (stand-in resources)\n\n"
        + tabulate(table, heads, tablefmt="github", disable_numparse=True)
        + "\n\nTimes, words and the ratio: medians of the attacked examples; of totals: sum of TextAttack's seconds "
        "over sum of ours; CPU: the same in processor seconds, which other work on the machine touches less. Tokens a "
        "query: tokens computed by victim / sentence encoder / masked LM, padding included, for each model query that "
        "the attack counts. Skipped examples, a single query each, are left out here. "
        f"Equal in result, perturbed text and queries: {equal} (attack_identity.json). " + note,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with glue/ and imdb/")
    parser.add_argument("--neighbours", type=Path, required=True, help="JSON, word -> near words")
    parser.add_argument("--sentences", type=Path, required=True, help="export of an SST-2 model")
    parser.add_argument("--pairs", type=Path, required=True, help="export of an MRPC model")
    parser.add_argument("--masked-lm", type=Path, help="by default the MiniLM encoder with an untrained head")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS)
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="savings switched off on our side")
    parser.add_argument("--counts", type=int, nargs=3, default=[60, 20, 6], metavar=("SENTENCES", "PAIRS", "REVIEWS"))
    parser.add_argument("--journal", type=Path, default=Path("attack-benchmark.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("results/attack_speed.json"))
    parser.add_argument("--report-only", action="store_true", help="write the results of what the journal has")
    parser.add_argument("--serve", choices=["stock", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--models", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        Side(options.serve, options.models, options).serve()
        return
    from mindspore_floodx.attack_fingerprint import sha256_of_content, sha256_of_model
    from mindspore_floodx.files import write_json

    trained_lm = options.masked_lm is not None
    with tempfile.TemporaryDirectory() as folder:
        if not trained_lm:
            sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
            from stock_attack import write_masked_lm

            options.masked_lm = write_masked_lm(Path(folder))
        models = [options.sentences, options.pairs, *([options.masked_lm] if trained_lm else [])]
        basis = sha256_of_content([*map(sha256_of_model, models), options.neighbours.name, options.without])[:16]
        journal = Journal(options.journal, basis)
        for kind, count in zip(KINDS, () if options.report_only else options.counts, strict=not options.report_only):
            measure(kind, {kind: count}, options, journal)
    summaries = summaries_of(journal.rows)
    wanted = {
        (kind, attack): count for kind, count in zip(KINDS, options.counts, strict=True) for attack in options.attacks
    }
    have = {(row["kind"], row["attack"]): row["examples"] for row in summaries}
    lacking = [
        f"{have.get(key, 0)} of {count} {' '.join(key)}" for key, count in wanted.items() if have.get(key, 0) < count
    ]
    note = f"Masked LM: {'the one given' if trained_lm else 'the MiniLM encoder with an untrained, tied head'}.\n"
    if lacking:
        note += f"\n**Not complete yet**, the same command goes on: {', '.join(lacking)}.\n"
    options.threads = 1
    places = {"--neighbours": "FILE", "--journal": "FILE", "--masked-lm": "FOLDER", "--output": "FILE"}
    places |= {"--sentences": "EXPORT", "--pairs": "EXPORT"}
    sys.argv[1:] = [places.get(before, word) for before, word in itertools.pairwise(sys.argv)]  # no one's own folders
    write_results(options, summaries, masked_lm=note.splitlines()[0], lacking=lacking)
    equal = f"{sum(row['equal'] for row in journal.rows)} of {len(journal.rows)} examples"
    write_markdown(options.output.with_suffix(".md"), summaries, equal, note)
    identity = [
        {"kind": row["kind"], "attack": row["attack"], "id": row["id"], "equal": row["equal"]}
        | {side: {name: row[side][name] for name in ("result", "queries", "perturbed")} for side in ("stock", "ours")}
        for row in journal.rows
    ]
    write_json(
        options.output.parent / "attack_identity.json",
        {"all_equal": all(row["equal"] for row in identity), "examples": len(identity), "rows": identity},
    )


if __name__ == "__main__":
    main()
