"""Pictures of a run, from its log files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from .files import replacing


def plot_training(run: str | Path) -> Path:
    """Draws plots/training.png of a run folder: training loss per step, evaluation loss and accuracy per epoch."""
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    run = Path(run)
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    steps, epochs = pd.read_csv(run / "log.csv"), pd.read_csv(run / "epochs.csv")
    per_epoch = len(steps) / max(len(epochs), 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    x = steps["step"] / per_epoch
    left.plot(x, steps["loss"], color="0.8", linewidth=0.8, label="training loss, each step")
    window = max(5, len(steps) // 40)
    smooth = steps["loss"].rolling(window, min_periods=1).mean()
    left.plot(x, smooth, color="C0", label=f"training loss, mean of {window} steps")
    left.plot(epochs["epoch"], epochs["eval_loss"], "o-", color="C1", label="evaluation loss")
    if settings["flood_level"] is not None:
        left.axhline(
            settings["flood_level"], color="C3", linestyle="--", label=f"flood level {settings['flood_level']:g}"
        )
    left.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(epochs["epoch"], 100 * epochs["eval_accuracy"], "o-", color="C2")
    right.set(xlabel="epoch", ylabel="accuracy on the evaluation set (%)")
    right.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(f"{settings['dataset']}, {settings['method']}, {settings['model']}, seed {settings['seed']}")
    target = run / "plots" / "training.png"
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return target
