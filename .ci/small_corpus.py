"""Writes a generated corpus as a user's own files: `python .ci/small_corpus.py FOLDER` makes train.csv and test.csv."""

import csv
import sys
from pathlib import Path

from mindspore_floodx.demo_corpus import generate

corpus = generate(seed=1, n_train=96, n_eval=60)
for split, name in ((corpus.train, "train.csv"), (corpus.evaluation, "test.csv")):
    with open(Path(sys.argv[1]) / name, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("review", "stars"))
        rows.writerows(zip(split.texts, (("one", "five")[label] for label in split.labels), strict=True))
