"""The loop over the examples: those that the journal lacks are attacked, here or by workers, and added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from .attack_job import Example
from .attack_journal import Journal
from .attack_metrics import FAILED
from .attack_pool import ExampleError, Job, WorkerPool, describe_failure
from .errors import UserError


def attack_examples(
    attack: Callable[[Example], dict[str, Any]] | tuple[WorkerPool, Job],
    examples: Sequence[Example],
    journal: Journal,
    title: str = "attack",
    note: str = "",
    progress: bool = True,
) -> None:
    """Attacks the examples that are not in the journal yet; each is on disk before the next is counted.

    Args:
        attack: what attacks an example in this process, or workers with the job that they are given.
        note: is shown after the running Aua%.

    Raises:
        UserError: an example failed, workers end again and again, or the disk is full; what is finished is kept.
    """
    todo = [example for example in examples if example.id not in journal.done]
    robust = sum(record["result"] == FAILED for record in journal.done.values())
    bar = tqdm(total=len(examples), initial=len(examples) - len(todo), desc=title, unit="ex", disable=not progress)
    with bar:
        if isinstance(attack, tuple):
            records = _by_workers(*attack, todo, bar)
        else:
            records = _here(attack, todo)
        try:
            for record in records:
                journal.add(record)
                robust += record["result"] == FAILED
                bar.set_postfix_str(f"Aua {100 * robust / len(journal.done):.1f}%{note}", refresh=False)
                bar.update()
        except ExampleError as error:
            raise UserError(f"{error}; the results of {len(journal.done)} examples are kept") from error.__cause__


def _here(attack: Callable[[Example], dict[str, Any]], examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    for example in examples:
        try:
            yield attack(example)
        except Exception as error:
            raise ExampleError(example.id, f"failed: {describe_failure(error)}") from error


def _by_workers(workers: WorkerPool, job: Job, examples: Sequence[Example], bar: tqdm) -> Iterator[dict[str, Any]]:
    if examples:
        bar.set_postfix_str("starting the workers")
        workers.start(job, wanted=len(examples))
        bar.unpause()  # the time left is told by the examples, not by the start
        yield from workers.run(fair_order(examples))


def fair_order(examples: Sequence[Example]) -> list[Example]:
    """Returns the examples with the shortest quarter put last, longest first, so that all workers end together.

    The other ones stay in their order: the running Aua% and the time left are those of a mixture.
    """
    by_length = sorted(examples, key=lambda example: sum(len(text) for text in example.texts), reverse=True)
    last = by_length[len(examples) - len(examples) // 4 :]
    held_back = {example.id for example in last}
    return [example for example in examples if example.id not in held_back] + last
