"""`attack`: Clean%, Aua%, Suc% and #Query of one exported model under one attack, with every example's result kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .attack_fingerprint import sha256_of_content, sha256_of_model
from .attack_journal import Journal
from .attack_metrics import FAILED, SKIPPED, SUCCEEDED, summarise
from .attack_recipes import (
    BERT_ATTACK_CANDIDATES,
    AttackSettings,
    build_attack,
    check_settings,
    describe_resources,
    sha256_of_resources,
)
from .attack_source import (
    choose_attackable,
    choose_examples,
    find_export,
    load_evaluation,
    match_columns,
    match_labels,
    model_labels,
    recorded_settings,
)
from .data import TextDataset, TextSplit
from .errors import UserError, nearest
from .files import write_json

_DEVICES = {"CPU": "cpu", "GPU": "cuda"}
_PACKAGES = ("textattack", "torch", "transformers", "nltk")


def attack(
    run_or_export: str | os.PathLike,
    attack: str = "textfooler",
    num_examples: int | str = 100,
    *,
    seed: int = 0,
    resources: str = "official",
    neighbours: str | os.PathLike | None = None,
    synonyms: dict[str, list[str]] | None = None,
    max_candidates: int = BERT_ATTACK_CANDIDATES,
    masked_lm: str | os.PathLike | None = None,
    attack_column: str | None = None,
    data: TextDataset | None = None,
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    eval_file: str | os.PathLike | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
    threads: int = 1,
    device: str = "CPU",
    output_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Attacks a model on its evaluation set and returns the summary that it also writes.

    Writes ``attacks/<attack>/examples.jsonl`` (one line an example, as soon as it is finished) and ``summary.json``;
    stopped at any moment, the same call goes on where it was. Nothing is downloaded.

    Args:
        run_or_export: a run folder (its config.yaml tells the data) or an exported Hugging Face folder.
        attack: a name of `attack_recipes.NAMES`.
        num_examples: how many random examples of the evaluation set are attacked, or ``all``.
        seed: of the sample, and of the attacks that draw random numbers (seeded anew for each example).
        resources: ``official``, or ``standin`` for figures that compare models with each other, not with papers.
        neighbours: a JSON file word -> near words; for ``standin``, and for the attack ``synonym``.
        synonyms: the same as a dict, for the attack ``synonym``; by default those of the demo corpus.
        max_candidates: BERT-Attack's K.
        masked_lm: folder of BERT-Attack's masked language model.
        attack_column: which text of a pair may be changed, see `attack_source.choose_attackable`.
        data: the data set itself; otherwise `dataset` ... `label_column` replace what config.yaml tells.
        max_length: longest input in tokens; by default the run's, and never more than the model takes.
        threads: CPU threads of PyTorch.
        device: ``CPU`` or ``GPU``, of the attacked model.
        output_dir: the folder that gets ``attacks/``; by default `run_or_export`.
        progress: whether progress bars are shown (on stderr).

    Returns:
        Shares are fractions in [0, 1]: ``clean_accuracy`` on the whole evaluation set, ``accuracy_under_attack``,
        ``attack_success_rate`` and ``avg_queries`` (None without an attacked example) as `attack_metrics.summarise`
        defines them, ``num_examples``, ``resources``, and what is needed to repeat the run.

    Raises:
        UserError: any wrong setting or missing resource, before anything runs.
    """
    settings = AttackSettings(attack, resources, neighbours, max_candidates, masked_lm, synonyms)
    check_settings(settings)
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    device = device.upper()
    if device not in _DEVICES:
        raise UserError(f"the device must be CPU or GPU, not {device}{nearest(device, _DEVICES)}")
    export = find_export(run_or_export)
    labels = model_labels(export)
    recorded = recorded_settings(run_or_export)
    if data is None:
        given = {
            "dataset": dataset,
            "data_dir": data_dir,
            "eval_file": eval_file,
            "text_column": text_column,
            "text_pair_column": text_pair_column,
            "label_column": label_column,
        }
        data = load_evaluation(recorded, given)
    split = match_labels(data, labels, export)
    match_columns(export, split)
    attackable = choose_attackable(attack_column, data.text_columns)
    ids = choose_examples(len(split), num_examples, seed)

    from .attack_victim import Victim  # imports PyTorch and TextAttack: seconds, so only after the checks

    started = time.perf_counter()
    victim = Victim(export, max_length or recorded.get("max_length"), _DEVICES[device], threads)
    built = build_attack(settings, victim, attackable)
    basis = {
        "model_sha256": sha256_of_model(export),
        "data_fingerprint": split.fingerprint,
        "max_length": victim.max_tokens,
        "device": device,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    result_settings = {
        "attack": attack,
        **describe_resources(settings),
        "resource_sha256": sha256_of_resources(settings),
        "recipe": str(built).splitlines(),
        "attack_column": attackable if split.pairs is not None else None,
        "seed": seed,
        **basis,
    }
    folder = Path(output_dir or run_or_export) / "attacks"
    journal = Journal(folder / attack, result_settings, sha256_of_content(result_settings), ids)
    clean = _clean_accuracy(victim, split, folder / "clean.json", sha256_of_content(basis), progress)
    _attack_examples(built, split, ids, seed, journal, settings, data.text_columns, progress)
    figures = summarise(journal.finish())
    summary = {
        "attack": attack,
        "clean_accuracy": clean["clean_accuracy"],
        **{name: figures[name] for name in ("accuracy_under_attack", "attack_success_rate", "avg_queries")},
        **{name: value for name, value in figures.items() if name.startswith("num_") or name.endswith("before_attack")},
        **result_settings,
        "dataset": data.name,
        "evaluation_source": split.source,
        "evaluation_partial": split.partial,
        "evaluation_examples": len(split),
        "text_columns": list(data.text_columns),
        "label_names": labels,
        "example_ids": ids,
        "threads": threads,
        "seconds_attacking": round(sum(record["seconds"] for record in journal.done.values()), 3),
        "seconds_clean": clean["seconds"],
        "seconds_this_call": round(time.perf_counter() - started, 3),
    }
    write_json(folder / attack / "summary.json", summary)
    return summary


def _attack_examples(
    built: Any,
    split: TextSplit,
    ids: Sequence[int],
    seed: int,
    journal: Journal,
    settings: AttackSettings,
    columns: tuple[str, ...],
    progress: bool,
) -> None:
    """Attacks the examples that are not in the journal yet, in the order of their ids."""
    note = {"standin": " (stand-in resources)"}.get(settings.resources if settings.attack != "synonym" else "", "")
    todo = [id for id in ids if id not in journal.done]
    with tqdm(total=len(ids), initial=len(journal.done), desc=settings.attack, unit="ex", disable=not progress) as bar:
        for id in todo:
            texts = (split.texts[id],) if split.pairs is None else (split.texts[id], split.pairs[id])
            journal.add(_attack_one(built, id, texts, int(split.labels[id]), seed, columns))
            robust = sum(record["result"] == FAILED for record in journal.done.values())
            bar.set_postfix_str(f"Aua {100 * robust / len(journal.done):.1f}%{note}", refresh=False)
            bar.update()


def _attack_one(
    built: Any, id: int, texts: tuple[str, ...], label: int, seed: int, columns: tuple[str, ...]
) -> dict[str, Any]:
    """Attacks one example and returns its record for the results file."""
    import torch

    # A recipe that draws random numbers gives the same result for an example in whatever order examples are attacked.
    own_seed = int(np.random.SeedSequence([seed, id]).generate_state(1)[0])
    random.seed(own_seed)
    np.random.seed(own_seed)
    torch.manual_seed(own_seed)
    # The names are ours, never premise/hypothesis, by which recipes would freeze a column on their own.
    example = OrderedDict(zip(("text", "text_pair"), texts, strict=False))
    started = time.perf_counter()
    try:
        result = built.attack(example, label)
    except Exception as error:
        raise RuntimeError(f"TextAttack failed on example {id} of the evaluation set") from error
    seconds = time.perf_counter() - started
    before, after = result.original_result, result.perturbed_result
    kind = {"SuccessfulAttackResult": SUCCEEDED, "FailedAttackResult": FAILED, "SkippedAttackResult": SKIPPED}
    inputs = [_as_tuple(goal.attacked_text.tokenizer_input) for goal in (before, after)]
    return {
        "id": id,
        "original": dict(zip(columns, inputs[0], strict=True)),
        "perturbed": dict(zip(columns, inputs[1], strict=True)),
        "label": label,
        "original_output": before.output,
        "perturbed_output": after.output,
        "original_scores": [round(float(score), 6) for score in before.raw_output],
        "perturbed_scores": [round(float(score), 6) for score in after.raw_output],
        "queries": result.num_queries,
        "result": kind[type(result).__name__],
        "num_words": before.attacked_text.num_words,
        "num_words_changed": len(after.attacked_text.attack_attrs["modified_indices"]),
        "seconds": round(seconds, 4),
    }


def _clean_accuracy(victim: Any, split: TextSplit, path: Path, fingerprint: str, progress: bool) -> dict[str, Any]:
    """Accuracy on the whole evaluation set; read from `path` where an earlier attack on the same model left it."""
    from .attack_victim import predict

    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["fingerprint"] == fingerprint:
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not readable: measured now
    started = time.perf_counter()
    inputs: Sequence[Any] = split.texts if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))
    correct = predict(victim, inputs, progress=progress) == split.labels
    clean = {
        "fingerprint": fingerprint,
        "clean_accuracy": float(correct.mean()),
        "num_examples": len(split),
        "seconds": round(time.perf_counter() - started, 3),
    }
    write_json(path, clean)
    return clean


def _as_tuple(texts: str | tuple[str, ...]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else texts
