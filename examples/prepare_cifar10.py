"""Prepare CIFAR-10 once, for `examples.datasets.cifar10` to read without TensorFlow.

    python -m examples.prepare_cifar10 --data_dir DIR

tensorflow-datasets does the work, and needs TensorFlow for it. The archive is taken
from `DIR/manual/cifar-10-binary.tar.gz` if it is there, else from the network.
"""

import argparse
import importlib
import importlib.util
import pathlib
import queue
import sys
import threading
from collections.abc import Sequence

from examples import datasets

ARCHIVE = "cifar-10-binary.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"

_PACKAGES = ("tensorflow", "tensorflow_datasets", "array_record", "importlib_resources")
_NETWORK_TIMEOUT_S = 5.0


def obstacle(data_dir: pathlib.Path) -> str | None:
    """Return what prevents the preparation and what to do, or None.

    It takes seconds: TensorFlow is looked for but not loaded, and the network is
    asked once, because tensorflow-datasets itself retries for minutes.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"Preparing CIFAR-10 needs {', '.join(missing)}, not installed here. Run\n"
            "    pip install 'population-jax[cifar-prepare]'\n"
            "and start this again. Reading the prepared files needs no TensorFlow."
        )
    if any(data_dir.glob("cifar10/*/*.tfrecord*")):
        return (
            f"{data_dir / 'cifar10'} holds CIFAR-10 as tfrecord files, beside which "
            "tensorflow-datasets puts no array_record files. Choose another --data_dir."
        )
    archive = data_dir / "manual" / ARCHIVE
    if archive.exists():
        return None
    problem = network_problem(URL, _NETWORK_TIMEOUT_S)
    if problem is None:
        return None
    return (
        f"{archive} is not there, and the network does not give it: {problem}\n"
        f"Copy it there from a machine with a network ({URL})\n"
        "and start this again."
    )


def network_problem(url: str, timeout_s: float) -> str | None:
    """Return why `url` cannot be had, after at most about `timeout_s`; else None."""
    # requests, as in tensorflow-datasets: same proxies, same certificates.
    requests = importlib.import_module("requests")
    answers: queue.Queue[str | None] = queue.Queue()

    def ask() -> None:
        try:
            with requests.get(url, stream=True, timeout=timeout_s) as response:
                response.raise_for_status()
            answers.put(None)
        except requests.RequestException as error:
            answers.put(f"{type(error).__name__}: {error}")

    # A silent name server ignores the timeout above; a daemon thread may be left.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=timeout_s + 1)
    except queue.Empty:
        return f"no answer from {url} within {timeout_s:g} s"


def prepare(data_dir: pathlib.Path) -> None:
    """Write CIFAR-10 as array_record files into `data_dir/cifar10`.

    Raises:
        NotReadyError: The archive is not CIFAR-10's.
    """
    tfds = importlib.import_module("tensorflow_datasets")
    download = importlib.import_module(
        "tensorflow_datasets.core.download.download_manager"
    )
    builder = tfds.builder("cifar10", data_dir=data_dir, file_format="array_record")
    manual = data_dir / "manual"
    config = tfds.download.DownloadConfig(
        manual_dir=manual if manual.is_dir() else None
    )
    try:
        builder.download_and_prepare(download_config=config)
    except download.NonMatchingChecksumError as error:
        raise datasets.NotReadyError(
            f"The archive is damaged or another one: {error}\n"
            f"Replace {manual / ARCHIVE} by the one from {URL}, or delete it."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the data set unless it is there; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True, metavar="DIR")
    data_dir = parser.parse_args(argv).data_dir.expanduser()
    if datasets.prepared_cifar10(data_dir) is None:
        problem = obstacle(data_dir)
        if problem is not None:
            print(problem, file=sys.stderr)
            return 1
        try:
            prepare(data_dir)
        except datasets.NotReadyError as error:
            print(error, file=sys.stderr)
            return 1
    print(f"CIFAR-10 is ready in {datasets.prepared_cifar10(data_dir)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
