"""`attack`: Clean%, Aua%, Suc% and #Query of one exported model under one attack, with every example's result kept."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .attack_fingerprint import sha256_of_content, sha256_of_model
from .attack_job import AttackJob, Example, VictimSettings
from .attack_journal import Journal
from .attack_loop import attack_examples
from .attack_metrics import summarise
from .attack_recipes import (
    BERT_ATTACK_CANDIDATES,
    STANDIN,
    AttackSettings,
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
from .attack_workers import Workers, number_of_workers
from .data import TextDataset, TextSplit
from .errors import UserError, nearest
from .files import write_json
from .lock import locked

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
    workers: int | str | Workers = 1,
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
        threads: CPU threads of PyTorch, in each process.
        workers: processes that attack; 1 is this process alone, ``auto`` as many as there are cores. Given as
            `attack_workers.Workers` they are kept for further calls. The results do not depend on it.
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
    count = workers.count if isinstance(workers, Workers) else number_of_workers(workers, threads)
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

    victim_settings = VictimSettings(export, max_length or recorded.get("max_length"), _DEVICES[device], threads)
    job = AttackJob(victim_settings, settings, data.text_columns, attackable, seed)
    folder = Path(output_dir or run_or_export) / "attacks"
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder / attack))
        if count > 1 and not isinstance(workers, Workers):
            workers = stack.enter_context(Workers(count))
        return _attack(
            job, data, split, ids, labels, folder, workers if isinstance(workers, Workers) else None, progress
        )


def _attack(
    job: AttackJob,
    data: TextDataset,
    split: TextSplit,
    ids: list[int],
    labels: list[str],
    folder: Path,
    workers: Workers | None,
    progress: bool,
) -> dict[str, Any]:
    """Does what `attack` says, with everything checked and the folder locked."""
    started = time.perf_counter()
    settings, attack = job.settings, job.settings.attack
    victim = job.victim.load()
    built = job.build(victim)
    basis = {
        "model_sha256": sha256_of_model(job.victim.export),
        "data_fingerprint": split.fingerprint,
        "max_length": victim.max_tokens,
        "device": {value: name for name, value in _DEVICES.items()}[job.victim.device],
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    result_settings = {
        "attack": attack,
        **describe_resources(settings),
        "resource_sha256": sha256_of_resources(settings),
        "recipe": str(built).splitlines(),
        "attack_column": job.attackable if split.pairs is not None else None,
        "seed": job.seed,
        **basis,
    }
    journal = Journal(folder / attack, result_settings, sha256_of_content(result_settings), ids)
    clean = _clean_accuracy(victim, split, folder / "clean.json", sha256_of_content(basis), progress)
    note = " (stand-in resources)" if result_settings["resources"] == STANDIN else ""
    attack_with: Any = (workers, job) if workers else job.attacker(built)
    del victim, built  # workers have their own, and with many of them memory is short
    attack_examples(attack_with, _examples(split, ids), journal, attack, note, progress)
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
        "threads": job.victim.threads,
        "workers": workers.count if workers else 1,
        "seconds_attacking": round(sum(record["seconds"] or 0.0 for record in journal.done.values()), 3),
        "seconds_clean": clean["seconds"],
        "seconds_starting_workers": round(max(workers.starting_seconds, default=0.0), 3) if workers else 0.0,
        "seconds_this_call": round(time.perf_counter() - started, 3),
    }
    write_json(folder / attack / "summary.json", summary)
    return summary


def _examples(split: TextSplit, ids: list[int]) -> list[Example]:
    pairs = split.pairs
    return [
        Example(id, (split.texts[id],) if pairs is None else (split.texts[id], pairs[id]), int(split.labels[id]))
        for id in ids
    ]


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
