"""The model card of a run: README.md in its export, made of the run's files, and the way of both to the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .attack_metrics import SHARES, attack_title, figure
from .attack_source import model_labels
from .errors import UserError
from .files import write_text
from .official import OFFICIAL
from .pretrained import BY_MINDNLP, CARD, CARD_MARK
from .run_files import RunFiles, read_run_files

_METHODS = {
    "finetune": "ordinary fine-tuning",
    "flooding": "flooding: above the level b a step descends the loss, below it a step ascends",
    "floodingx": "Flooding-X: flooding at the level that the gradient accordance of the run gave",
}
_SETTINGS = (
    "method",
    "epochs",
    "batch_size",
    "learning_rate",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "max_length",
    "seed",
    "device",
)
_PACKAGES = ("mindspore-floodx", "mindspore", "torch", "transformers")
_USE = """```python
from transformers import pipeline

classify = pipeline("text-classification", model="{name}")  # this folder, or its name on the hub
print(classify({example}))
```"""


def write_model_card(run: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path:
    """Writes README.md into a folder, by default <run>/export, from the run's files as they are now; returns its path.

    It says what the model was made of and how (data, method, flood level, settings, versions), its accuracy, each
    finished attack with its 95% intervals and the resources it had, and the limits of all this. Paths of this machine
    are left out. Written again after an attack, it has that too. The end of a training writes it, and so does
    `ckpt_convert.to_pytorch` of a finished run.

    Args:
        folder: a Hugging Face folder made of the run's last checkpoint.

    Raises:
        UserError: no finished run, a damaged file of it, or a README.md that is somebody's own.
    """
    files = read_run_files(run)
    export = files.path / "export" if folder is None else Path(folder)
    if not files.finished or not files.epochs:
        raise UserError(f"{files.path} is no finished run: export/config.json or epochs.csv is missing; train it first")
    card = export / CARD
    if card.exists() and CARD_MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{card} was not written by this command; move it away")
    write_text(card, f"---\n{_metadata(files)}\n---\n\n{CARD_MARK}\n\n{_body(files, model_labels(export))}")
    return card


def card_or_reason(run: str | os.PathLike, folder: str | os.PathLike | None = None) -> str:
    """Writes the card where that is not what was asked for; returns a line about it and never raises.

    A model that took hours is not lost for its description.
    """
    try:
        return f"wrote the model card {write_model_card(run, folder).name}"
    except Exception as error:  # ours, and those of the hub's library, which knows what a card may say
        return f"no model card: {str(error) or type(error).__name__}"


def push_to_hub(run: str | os.PathLike, repository: str, private: bool = False) -> str:
    """Uploads the export of a run, with its model card, to the Hugging Face hub; returns the repository's address.

    Args:
        repository: its name, ``user/name``; made if it is not there.
        private: whether a new repository is private.

    Raises:
        UserError: as `write_model_card`; not logged in, a name that the hub does not take, or no connection.
    """
    from huggingface_hub import HfApi, get_token

    card = write_model_card(run)
    if get_token() is None:
        raise UserError("not logged in to the Hugging Face hub; run `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(folder_path=card.parent, repo_id=address.repo_id, commit_message="Model of MindSpore-FloodX")
    except (OSError, ValueError) as error:  # those of the hub are of these kinds
        raise UserError(f"{repository} was not uploaded: {str(error).strip().splitlines()[0]}") from error
    return str(address)


def _metadata(files: RunFiles) -> str:
    """The YAML head that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    known = OFFICIAL.get(files.settings.get("dataset", ""))
    name = files.path.resolve().name
    last, result = files.epochs[-1], None
    if known is not None:
        result = [
            EvalResult(
                task_type="text-classification",
                dataset_type=known.hub[0],
                dataset_config=known.hub[1],
                dataset_name=files.settings["dataset"],
                dataset_split=known.evaluation,
                metric_type="accuracy",
                metric_value=round(last["eval_accuracy"], 4),
            )
        ]
    data = ModelCardData(
        model_name=name,
        base_model=_base_model(files.settings.get("model")),
        datasets=None if known is None else [known.hub[0]],
        eval_results=result,
        language="en" if known is not None else None,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["mindspore", "bert", "adversarial-robustness", str(files.settings.get("method"))],
    )
    return str(data.to_yaml()).strip()


def _base_model(model: Any) -> str | None:
    """The hub's name of the model that was trained; None for a folder of one's own."""
    model = str(model).removeprefix(BY_MINDNLP)
    if model == "minilm":
        return "sentence-transformers/all-MiniLM-L6-v2"
    is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) is not None and not Path(model).exists()
    return model if is_name else None


def _body(files: RunFiles, labels: list[str]) -> str:
    settings, level = files.settings, files.flood_level
    method = _METHODS.get(settings["method"], settings["method"])
    pair = '{"text": "The first text.", "text_pair": "The second text."}'
    use = _USE.format(
        name=files.path.resolve().name, example=pair if _pairs(files) else '"A text of the kind it was trained on."'
    )
    blocks = [
        f"# {files.path.resolve().name}",
        f"BERT that classifies {'pairs of texts' if _pairs(files) else 'texts'} as {' or '.join(labels)}. "
        f"Trained with MindSpore-FloodX, in MindSpore, by {method}. This folder has the same tensors, bit for bit.",
        use,
        "## Training",
        "\n".join(
            [
                f"- Start: {_short(settings.get('model'))}, with a new classifier.",
                "- Flood level b: " + ("none." if level is None else f"{level:.4g} nats{_decision(files)}."),
                *_flooded(files),
            ]
        ),
        _table(["setting", "value"], [[name, settings.get(name)] for name in _SETTINGS]),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in _versions(files).items()) + ".",
        "## Data",
        _table(
            ["part", "source", "examples", "SHA-256 of the text and labels"],
            [
                [name, _source(part), f"{part['examples']:,}", str(part["sha256"])[:16]]
                for name, part in files.environment.get("data", {}).items()
            ],
        ),
        "## Accuracy",
        _table(
            ["", "epoch", "training loss", "evaluation loss", "accuracy %"],
            [
                [title, *_epoch(row)]
                for title, row in (("this model (last epoch)", files.epochs[-1]), ("best epoch", files.best_epoch))
                if row is not None
            ],
        ),
        "On the evaluation data above; losses are mean cross-entropies in nats.",
        "## Robustness",
        *_robustness(files),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(files)),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(heading: list[str], rows: list[list[Any]]) -> str:
    cells = [["-" if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, heading, tablefmt="github", disable_numparse=True)


def _pairs(files: RunFiles) -> bool:
    known = OFFICIAL.get(files.settings.get("dataset", ""))
    return bool(files.settings.get("text_pair_column")) or (known is not None and len(known.text_columns) > 1)


def _short(path: Any) -> str:
    """A name, or what is left of a path when the machine's folders are taken off."""
    path = str(path).removeprefix(BY_MINDNLP)
    return Path(path).name if os.path.isabs(path) else path


def _source(part: dict[str, Any]) -> str:
    return _short(part["source"]) + (" (a part of the official data)" if part.get("partial") else "")


def _versions(files: RunFiles) -> dict[str, Any]:
    packages = files.environment.get("packages", {})
    found = {name: packages[name] for name in _PACKAGES if packages.get(name)}
    return {"Python": files.environment.get("python", "unknown")} | found


def _decision(files: RunFiles) -> str:
    return "" if files.decision is None else f", found by the run ({files.decision.get('reason')})"


def _flooded(files: RunFiles) -> list[str]:
    if files.flood_level is None or files.flooded is None:
        return []
    return [f"- {100 * files.flooded:.0f}% of the steps went uphill, their loss being below b."]


def _epoch(row: dict[str, float]) -> list[str]:
    losses = (f"{row[name]:.4f}" for name in ("train_loss", "eval_loss"))
    return [f"{row['epoch']:.0f}", *losses, f"{100 * row['eval_accuracy']:.2f}"]


def _robustness(files: RunFiles) -> list[str]:
    if not files.attacks:
        return ["This model has not been attacked."]
    rows = [
        [
            attack_title(summary),
            f"{summary['num_examples']} of {summary['evaluation_examples']}",
            *(figure(summary, name, 100) for name in SHARES),
            figure(summary, "avg_queries"),
        ]
        for summary in files.attacks.values()
    ]
    notes = dict.fromkeys(note for summary in files.attacks.values() for note in summary.get("resource_notes") or ())
    return [
        _table(["attack", "examples", "Clean%", "Aua%", "Suc%", "#Query"], rows),
        "Clean%: accuracy on the whole evaluation set. Under attack on a random sample of it: Aua%, still right; Suc%, "
        "of those that were right, fooled; #Query, mean model calls. In brackets: 95% intervals over examples.",
        *(["About these attacks:\n\n" + "\n".join(f"- {note}" for note in notes)] if notes else []),
    ]


def _limits(files: RunFiles) -> list[str]:
    data = files.environment.get("data", {})
    resources = {summary["resources"] for summary in files.attacks.values()}
    known = OFFICIAL.get(files.settings.get("dataset", ""))
    return [
        f"One training run, with seed {files.settings.get('seed')}; other seeds give other figures.",
        "The model is that of the last epoch; nothing was held out to choose it.",
        *(["Not all of the official data was used."] if any(part.get("partial") for part in data.values()) else []),
        *(
            ["Attacks with stand-in resources compare models with each other; their figures do not compare to papers'."]
            if "standin" in resources
            else []
        ),
        *(
            ["The project's own attack is none of the published ones; its figures compare models of this project only."]
            if "built-in" in resources
            else []
        ),
        "Robust against an attack means harder to fool by it; other attacks and people may fool the model more often.",
        f"Trained on {'English text of one kind' if known else 'the text above'}; other kinds were not tried.",
        "Licence: that of the model it started from and of the data; this card does not know them.",
    ]
