"""The recipes of the page on logging: what they write can be read back.

Their packages are large, and want other versions of what the tests use: they are in an
environment of their own, which CI makes. `make .venv-recipes/installed` makes it
elsewhere, and `POPULATION_RECIPES_PYTHON` names another one.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess

import pytest

from tests.helpers import missing

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = os.environ.get(
    "POPULATION_RECIPES_PYTHON", str(ROOT / ".venv-recipes/bin/python")
)
PAGE = ROOT / "docs" / "loggers-and-progress.md"
READ_WANDB = """
import glob, json
from wandb.proto import wandb_internal_pb2
found = []
for path in glob.glob("runs/wandb/offline-run-*/*.wandb"):
    with open(path, "rb") as file:
        data = file.read()
    place, record = 7, b""  # The records are those of a log of LevelDB.
    while place + 7 < len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        size = int.from_bytes(data[place + 4 : place + 6], "little")
        kind = data[place + 6]
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # It is whole.
            read = wandb_internal_pb2.Record.FromString(record)
            items = {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in read.history.item
            }
            record = b""
            for name in [name for name in items if name.endswith("/value")]:
                member = name.removesuffix("value")
                rest = (items[member + leaf] for leaf in LEAVES)
                found.append([member[:-1], items["row"], items[name], *rest])
"""
READ_MLFLOW = """
from mlflow import MlflowClient
client, found = MlflowClient("sqlite:///mlflow.db"), []
experiment = client.get_experiment_by_name("population").experiment_id
for run in client.search_runs([experiment]):
    names = ("value", *LEAVES)
    columns = [client.get_metric_history(run.info.run_id, name) for name in names]
    for row in zip(*columns, strict=True):
        figures = [metric.value for metric in row]
        found.append([run.info.run_name, row[0].step, *figures])
"""
READ_TRACKIO = """
from trackio.sqlite_storage import SQLiteStorage
found = []
for items in SQLiteStorage.get_logs("population", "logged"):
    for name in [name for name in items if name.endswith("/value")]:
        member = name.removesuffix("value")
        rest = (items[member + leaf] for leaf in LEAVES)
        found.append([member[:-1], items["step"], items[name], *rest])
"""
READ = {"wandb": READ_WANDB, "mlflow": READ_MLFLOW, "trackio": READ_TRACKIO}
HEAD = 'LEAVES = ("step", "metrics/weight", "meta_params/learning_rate")\n'
TAIL = '\nprint("FOUND", json.dumps(found))\n'
EXPECTED = """
import json, population
read = population.PopulationController([None] * 4, MUTATOR, "runs/logged")
found = [
    [f"worker_{c.worker_id}", c.row, c.value, c.step, c.metrics["weight"],
     c.meta_params["learning_rate"]]
    for c in read.history() if c.value is not None
]
read.close()
""".replace(
    "MUTATOR",
    "TwoSpeedPBT(Perturb(space, share=0.5), steps_per_exploit=10, horizon=40)",
)


def blocks(kind: str) -> list[str]:
    """The code blocks of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def printed(code: str, folder: pathlib.Path) -> list[list[object]]:
    """What a program finds, sorted."""
    environment = {**os.environ, "TRACKIO_DIR": str(folder / "trackio")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [PYTHON, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return sorted(json.loads(lines[-1].removeprefix("FOUND "))) if lines else []


@pytest.mark.parametrize("package", READ)
def test_a_recipe_logs_each_report(package: str, tmp_path: pathlib.Path) -> None:
    """Also after the run was continued: each report is there once."""
    if not pathlib.Path(PYTHON).exists():
        missing(f"{PYTHON}, for the recipes of {PAGE.name},")
    (recipe,) = blocks(f"python {package}")
    common = blocks("python")[0]
    printed(common + recipe, tmp_path)
    again = re.sub(rf"train\(to_{package}\)", f"train(to_{package}, steps=60)", recipe)
    assert again != recipe
    printed(common + again, tmp_path)
    expected = printed(common + EXPECTED + TAIL, tmp_path)
    assert len(expected) >= 4 * 6
    found = printed(f"import json\n{HEAD}{READ[package]}{TAIL}", tmp_path)
    assert found == expected


def test_each_recipe_of_the_page_has_a_test() -> None:
    """A recipe that nobody runs will be wrong one day."""
    assert set(re.findall(r"```python (\w+)\n", PAGE.read_text())) == set(READ)
