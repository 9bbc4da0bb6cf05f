"""`attack`: Clean%, Aua%, Suc% and #Query of one model under one attack, with every example's result kept."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .attack_calibration import Calibration, calibrate_halves, calibrate_on_file, check_calibration
from .attack_clean import clean_results
from .attack_fingerprint import sha256_of_content, sha256_of_model
from .attack_job import AttackJob, Example, VictimSettings
from .attack_journal import Journal
from .attack_loop import attack_examples
from .attack_metrics import summarise
from .attack_pool import WorkerPool
from .attack_recipes import (
    BERT_ATTACK_CANDIDATES,
    STANDIN,
    AttackSettings,
    check_settings,
    describe_resources,
    sha256_of_resources,
)
from .attack_savings import Savings
from .attack_source import (
    choose_attackable,
    choose_examples,
    load_evaluation,
    match_columns,
    match_labels,
    model_labels,
    recorded_settings,
)
from .attack_victims import MINDSPORE, PYTORCH, check_victim, demand_no_gradients, find_victim
from .attack_workers import open_workers
from .data import TextDataset, TextSplit
from .errors import UserError
from .files import write_json
from .lock import locked
from .pretrained import check_model_files

_PACKAGES = ("textattack", "torch", "transformers", "nltk")


@dataclasses.dataclass(frozen=True)
class _Examples:
    """What is attacked: data, its evaluation set in the model's order of classes, the chosen ids."""

    data: TextDataset
    split: TextSplit
    labels: list[str]  # the model's
    ids: list[int]
    calibrate: bool
    held_out: TextSplit | None  # of a calibration file

    def __getitem__(self, id: int) -> Example:
        texts, pairs = self.split.texts, self.split.pairs
        return Example(id, (texts[id],) if pairs is None else (texts[id], pairs[id]), int(self.split.labels[id]))


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
    victim: str = PYTORCH,
    calibrate: bool = False,
    calibration_file: str | os.PathLike | None = None,
    threads: int = 1,
    workers: int | str | WorkerPool | None = None,
    ray: str | None = None,
    device: str = "CPU",
    without: Sequence[str] = (),
    output_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Attacks a model on its evaluation set and returns the summary that it also writes.

    Writes ``attacks/<attack>/examples.jsonl`` (one line an example, as soon as it is finished), ``examples.parquet``
    and ``summary.json``; stopped at any moment, the same call goes on where it was. Nothing is downloaded.

    Args:
        run_or_export: a run folder (its config.yaml tells the data) or a model folder.
        attack: a name of `attack_catalogue.NAMES`, or as TextAttack calls it.
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
        victim: ``pytorch``, the exported model, or ``mindspore``, the run's checkpoint itself, whose results go to
            ``attacks/<attack>-mindspore``.
        calibrate: attack logits / T, with T fitted on held-out data (see `attack_calibration`), and write to
            ``attacks/<attack>-calibrated``; the raw figures are those of a call without it.
        calibration_file: labelled text to fit T on; by default the half of the evaluation set that is not attacked.
        threads: CPU threads of PyTorch, and of MindSpore, in each process.
        workers: processes that attack; 1, the default, is this process alone, ``auto`` as many as there are cores.
            Given as `attack_workers.Workers` or `attack_ray.RayWorkers` they are kept for further calls. The results
            do not depend on it.
        ray: address of a Ray cluster (``auto`` or ``host:port``) whose nodes attack, with `workers`
            processes at most; by default with as many as they have CPUs for.
        device: ``CPU`` or ``GPU``, of the attacked model.
        without: names of the savings that are switched off, see `attack_savings`; the results are the same.
        output_dir: the folder that gets ``attacks/``; by default `run_or_export`.
        progress: whether progress bars are shown (on stderr).

    Returns:
        Shares are fractions in [0, 1]: ``clean_accuracy`` on the whole evaluation set, ``accuracy_under_attack``,
        ``attack_success_rate``, ``avg_queries`` and ``avg_words_changed`` (None without an attacked example) as
        `attack_metrics.summarise` defines them, each with its 95% interval under the name with ``_interval``,
        ``num_examples``, ``resources``, and what is needed to repeat the run.

    Raises:
        UserError: any wrong setting or missing resource, before anything runs.
    """
    settings = AttackSettings(attack, resources, neighbours, max_candidates, masked_lm, synonyms)
    check_settings(settings)
    attack = settings.attack  # also where it was given by another of its names
    device = device.upper()
    check_victim(victim, device, threads)
    if neighbours is not None:
        from .attack_standin import read_neighbours

        read_neighbours(neighbours)  # here to be refused before a folder is made; used where the recipe is built
    savings = Savings().without(without)
    pool = workers if isinstance(workers, WorkerPool) else open_workers(workers, threads, device, ray)
    model_folder = find_victim(run_or_export, victim)
    check_model_files(model_folder)
    labels = model_labels(model_folder)
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
    split = match_labels(data, labels, model_folder)
    match_columns(model_folder, split)
    attackable = choose_attackable(attack_column, data.text_columns)
    ids = choose_examples(len(split), num_examples, seed)
    if max_length is not None and max_length < (3 if split.pairs is None else 5):
        raise UserError(f"max_length is {max_length}, which leaves no room for text; leave it out to take the run's")
    label_column = label_column or recorded.get("label_column")
    held_out = check_calibration(calibrate, calibration_file, data, split, labels, label_column)
    model = VictimSettings(model_folder, victim, max_length or recorded.get("max_length"), device, threads, savings)
    job = AttackJob(model, settings, data.text_columns, attackable, seed)
    examples = _Examples(data, split, labels, ids, calibrate, held_out)
    folder = Path(output_dir or run_or_export) / "attacks"
    variant = ("-mindspore" if victim == MINDSPORE else "", "-calibrated" if calibrate else "")
    results = folder / f"{attack}{''.join(variant)}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(results))
        if pool is not None and pool is not workers:
            stack.enter_context(pool)
        return _attack(job, examples, results, folder / f"clean{variant[0]}", pool, progress)


def _attack(
    job: AttackJob, examples: _Examples, results: Path, clean_path: Path, workers: WorkerPool | None, progress: bool
) -> dict[str, Any]:
    """Does what `attack` says, with everything checked and the folder `results` locked."""
    started = time.perf_counter()
    data, split, ids = examples.data, examples.split, examples.ids
    victim = job.victim.load()
    built = job.build(victim)
    demand_no_gradients(built, job.settings.attack, job.victim.kind, examples.calibrate)
    packages = (*_PACKAGES, "mindspore") if job.victim.kind == MINDSPORE else _PACKAGES
    basis = {
        "victim": job.victim.kind,
        "model_sha256": sha256_of_model(job.victim.folder),
        "data_fingerprint": split.fingerprint,
        "max_length": victim.max_tokens,
        "device": job.victim.device,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    clean, logits = clean_results(victim, split, clean_path.parent, sha256_of_content(basis), clean_path.name, progress)
    calibration = _calibrate(victim, examples, logits, job.seed, progress)
    result_settings = {
        "attack": job.settings.attack,
        **describe_resources(job.settings),
        "resource_sha256": sha256_of_resources(job.settings),
        "recipe": str(built).splitlines(),
        "attack_column": job.attackable if split.pairs is not None else None,
        "calibration": None if calibration is None else calibration.settings,
        "seed": job.seed,
        **basis,
    }
    journal = Journal(results, result_settings, sha256_of_content(result_settings), ids)
    note = " (stand-in resources)" if result_settings["resources"] == STANDIN else ""
    parts = (
        [(job, ids)]
        if calibration is None
        else [(dataclasses.replace(job, temperature=part.temperature), part.ids) for part in calibration.parts]
    )
    del built
    by_node: Counter[str] = Counter()
    if workers:
        workers.examples_by_node = by_node
        del victim  # workers have their own, and with many of them memory is short
    for each, chosen in parts:
        attack_with: Any = (workers, each) if workers else each.attacker(each.build(victim))
        attack_examples(attack_with, [examples[id] for id in chosen], journal, job.settings.attack, note, progress)
    summary = {
        "attack": job.settings.attack,
        "clean_accuracy": clean["clean_accuracy"],
        "clean_accuracy_interval": clean["clean_accuracy_interval"],
        **summarise(journal.finish()),
        **result_settings,
        "calibration": None if calibration is None else calibration.describe(logits, split.labels),
        "dataset": data.name,
        "evaluation_source": split.source,
        "evaluation_partial": split.partial,
        "evaluation_examples": len(split),
        "text_columns": list(data.text_columns),
        "label_names": examples.labels,
        "example_ids": ids,
        "threads": job.victim.threads,
        "savings_off": job.victim.savings.off(),
        "workers": workers.count if workers else 1,
        **({"examples_by_node": dict(sorted(by_node.items()))} if by_node else {}),
        "seconds_attacking": round(sum(record["seconds"] or 0.0 for record in journal.done.values()), 3),
        "seconds_clean": clean["seconds"],
        "seconds_starting_workers": round(max(workers.starting_seconds, default=0.0), 3) if workers else 0.0,
        "seconds_this_call": round(time.perf_counter() - started, 3),
    }
    write_json(results / "summary.json", summary)
    return summary


def _calibrate(victim: Any, examples: _Examples, logits: np.ndarray, seed: int, progress: bool) -> Calibration | None:
    if not examples.calibrate:
        return None
    if examples.held_out is not None:
        return calibrate_on_file(victim, examples.held_out, examples.ids, progress)
    return calibrate_halves(logits, examples.split.labels, examples.ids, seed)
