"""The picture of a run, from its files alone."""

import matplotlib.image
import pytest
import yaml

from mindspore_floodx.plots import plot_training
from mindspore_floodx.settings import TrainSettings


def run_folder(path, steps, epochs, **given):
    path.mkdir()
    (path / "config.yaml").write_text(yaml.safe_dump(TrainSettings(**given).to_dict()))
    (path / "log.csv").write_text(
        "step,epoch,loss,flooded,learning_rate,tokens_per_second\n"
        + "".join(f"{step},{1 + (step - 1) * epochs // steps},{1 / step},0,2e-5,100\n" for step in range(1, steps + 1))
    )
    (path / "epochs.csv").write_text(
        "epoch,train_loss,eval_loss,eval_accuracy,seconds\n"
        + "".join(f"{epoch},0.5,{0.5 + 0.1 * epoch},0.8,1\n" for epoch in range(1, epochs + 1))
    )
    return path


@pytest.mark.parametrize(
    "steps, epochs, given",
    [
        (400, 10, {"method": "flooding", "flood_level": 0.1}),
        (1, 1, {}),
    ],
)
def test_a_picture_is_drawn(tmp_path, monkeypatch, steps, epochs, given):
    import matplotlib.pyplot as plt

    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)  # keeps the figure, to look at it
    folder = run_folder(tmp_path / "run", steps, epochs, **given)
    target = plot_training(folder)
    assert target == folder / "plots" / "training.png" and list(target.parent.iterdir()) == [target]
    pixels = matplotlib.image.imread(target)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 900 and pixels.std() > 0.05
    left, right = drawn[0].axes
    lines = {line.get_label(): line for line in left.get_lines()}
    assert lines["training loss, each step"].get_xdata()[-1] == epochs  # both curves on one axis of epochs
    assert list(lines["evaluation loss"].get_xdata()) == list(range(1, epochs + 1))
    assert ("flood level 0.1" in lines) == bool(given)
    assert max(right.get_lines()[0].get_ydata()) == 80
    monkeypatch.undo()
    plt.close(drawn[0])
