"""The command line that the CNNs' programs share, and what they show at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

import jax

from examples import datasets
from examples.simple_cnn import model
from population import PopulationController
from population.report import pictures, table


def parser(
    description: str, names: Sequence[str] = ("digits", "cifar10")
) -> argparse.ArgumentParser:
    """The flags of all programs; the first dataset named is the default."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--log_dir", help="the run folder; run again to go on there")
    found.add_argument("--dataset", choices=names, default=names[0])
    found.add_argument("--data_dir", help="where CIFAR-10 was prepared")
    found.add_argument("--steps", type=int, help="training steps of each worker")
    found.add_argument("--every", type=int, help="steps between two reports")
    found.add_argument("--width", type=int, default=32, help="channels")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--quiet", action="store_true", help="show no progress")
    return found


def load(arguments: argparse.Namespace) -> datasets.Dataset:
    """The data; if there is none, say what to do and end."""
    try:
        return datasets.load(arguments.dataset, arguments.data_dir)
    except (datasets.NotReadyError, ValueError) as error:
        sys.exit(str(error))


def show(
    controller: PopulationController,
    functions: model.Functions,
    dataset: datasets.Dataset,
    log: Iterable[str] | None = ("learning_rate",),
) -> None:
    """The final table, and the pictures in the run folder.

    Args:
        controller: The run.
        functions: The model.
        dataset: Its test set is looked at here, and nowhere else.
        log: The hyperparameters with logarithmic axes; None: as the run's space says.
    """
    accuracies = model.test_accuracy(controller, functions, dataset)
    show_results(controller, dataset, accuracies, log)


def show_results(
    controller: PopulationController,
    dataset: datasets.Dataset,
    accuracies: Sequence[float | None],
    log: Iterable[str] | None,
) -> None:
    """The final table and the pictures, from known accuracies on the test set."""
    title = f"{dataset.name} on {jax.devices()[0]}"
    table.print_workers(
        controller,
        {"test accuracy": accuracies},
        value="validation loss",
        title=title,
    )
    if controller.log_dir is None:
        return
    files = pictures.save(
        controller.history(),
        controller.log_dir / "plots",
        value="validation loss",
        log_value=True,
        log=log,
    )
    print("pictures:", *files, sep="\n  ")
