"""How the gradient rules compare where memory over time is needed: `python -m bench.sequential_digits`.

Trains `fastsnn train --data sequential-digits --rule R --seed S` for every rule and five seeds and writes
sequential_digits.csv (one row a run) and sequential_digits.md (mean and spread) into bench/results.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fastsnn import experiment
from fastsnn.ops.types import RULES

SEEDS = range(5)
OUT = Path(__file__).parent / "results"


def run(rule: str, seed: int, data: str = "sequential-digits") -> dict[str, object]:
    """Final accuracy of one run with the command's defaults."""
    with tempfile.TemporaryDirectory() as folder:
        config = experiment.Config.of(data=data, rule=rule, seed=seed)
        trained = experiment.Experiment(config, Path(folder))
        trained.run()
    last = trained.progress.epochs[-1]
    row = {"rule": rule, "mode": config.mode, "seed": seed, "epochs": config.epochs}
    return row | {name: round(last[name], 6) for name in ("train_accuracy", "test_accuracy")}


def table(rows: list[dict[str, object]]) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    lines = ["| rule | mode | test accuracy (%) | worst - best seed | train accuracy (%) |", "|---|---|---|---|---|"]
    for rule in dict.fromkeys(row["rule"] for row in rows):
        mine = [row for row in rows if row["rule"] == rule]
        test, train = ([100 * float(str(row[f"{split}_accuracy"])) for row in mine] for split in ("test", "train"))
        lines.append(
            f"| {rule} | {mine[0]['mode']} | {statistics.mean(test):.2f} ± {statistics.stdev(test):.2f} "
            f"| {min(test):.2f} - {max(test):.2f} | {statistics.mean(train):.2f} ± {statistics.stdev(train):.2f} |"
        )
    return "\n".join(lines) + "\n"


def compare(rules: Iterable[str], data: str, name: str) -> None:
    """Runs every rule with every seed and writes NAME.csv and NAME.md."""
    rows = []
    for rule in rules:
        for seed in SEEDS:
            rows.append(run(rule, seed, data))
            print(rows[-1], flush=True)
    OUT.mkdir(exist_ok=True)
    with (OUT / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (OUT / f"{name}.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    compare(RULES, "sequential-digits", "sequential_digits")
