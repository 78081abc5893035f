"""Image data for the examples: three disjoint sets and reproducible minibatches.

Decisions of a population use `validation`; `test` is only for the final table.

`digits` comes with scikit-learn and needs nothing else; `colour_digits` are the same in
colour and of CIFAR-10's size. `cifar10` reads files that
`python -m examples.prepare_cifar10` wrote once; reading them needs no TensorFlow and
never touches the network.
"""

import importlib
import importlib.util
import pathlib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

NAMES = ("cifar10", "colour_digits", "digits")

_DIGITS_HELD_OUT = 300  # For validation, and as many again for the test set.
_LARGER = 4  # Times as high and as wide as a digit: CIFAR-10's 32x32 pixels.
_LEAST_CONTRAST = 0.3  # Between the mean colour of a digit and of its background.
_CIFAR10_HELD_OUT = 5_000  # The usual cut of its 50,000 training images.
_CIFAR10_CLASSES = 10
_READERS = ("tensorflow_datasets", "array_record", "importlib_resources", "PIL")
_READ_AT_ONCE = 1_000


class NotReadyError(RuntimeError):
    """Data or a package is missing; the message says which commands help."""


class Split(NamedTuple):
    """Images with their labels.

    Attributes:
        images: float32 `[N, H, W, C]`, from 0 to 1.
        labels: int32 `[N]`, from 0 to the number of classes - 1.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]


class Dataset(NamedTuple):
    """Three disjoint sets of images.

    Attributes:
        name: What `load` calls it.
        train: For training the weights.
        validation: For the decisions of the population.
        test: For the final table only.
        num_classes: How many different labels there are.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int


def load(name: str, data_dir: str | pathlib.Path | None = None) -> Dataset:
    """Return the data set of that name.

    Args:
        name: One of `NAMES`.
        data_dir: Where `cifar10` was prepared; the others need none.

    Raises:
        ValueError: The name is unknown, or `cifar10` came without a folder.
        NotReadyError: Data or a package is missing.
    """
    if name == "digits":
        return digits()
    if name == "colour_digits":
        return colour_digits()
    if name != "cifar10":
        raise ValueError(f"Unknown dataset {name!r}; known are {', '.join(NAMES)}.")
    if data_dir is None:
        raise ValueError(
            "The dataset 'cifar10' needs the folder it was prepared in, got None. "
            "Pass --data_dir DIR (in code: data_dir=DIR)."
        )
    return cifar10(data_dir)


def digits(seed: int = 0) -> Dataset:
    """Return 1,797 handwritten digits of 8x8 pixels, cut into 1,197, 300 and 300.

    Args:
        seed: Decides which image goes into which set.

    Raises:
        NotReadyError: scikit-learn, which contains the images, is not installed.
    """
    _require(["sklearn"], extra="examples")
    bunch = importlib.import_module("sklearn.datasets").load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    everything = Split(
        images=(bunch.images[order, :, :, np.newaxis] / 16).astype(np.float32),
        labels=bunch.target[order].astype(np.int32),
    )
    rest, test = _cut(everything, _DIGITS_HELD_OUT)
    train, validation = _cut(rest, _DIGITS_HELD_OUT)
    return Dataset("digits", train, validation, test, num_classes=10)


def colour_digits(seed: int = 0) -> Dataset:
    """Return the digits as 32x32 colour images, cut like those of `digits`.

    Each image has two colours of its own, which never change and say nothing of the
    digit: the lighter one is the digit's, the other one the background's.

    Args:
        seed: Decides which image goes into which set, and the colours.

    Raises:
        NotReadyError: As `digits`.
    """
    grey = digits(seed)
    rng = np.random.default_rng([seed, 1])
    train, validation, test = (
        _coloured(split, rng) for split in (grey.train, grey.validation, grey.test)
    )
    return Dataset("colour_digits", train, validation, test, grey.num_classes)


def cifar10(data_dir: str | pathlib.Path) -> Dataset:
    """Return CIFAR-10 as `examples.prepare_cifar10` left it in `data_dir`.

    The validation set is the end of the prepared training set: 5,000 images, or a
    tenth where there are fewer than CIFAR-10's 50,000.

    Args:
        data_dir: The folder that was given to `examples.prepare_cifar10`.

    Raises:
        NotReadyError: Nothing is prepared there, or a package for reading is missing.
    """
    folder = prepared_cifar10(data_dir)
    if folder is None:
        raise NotReadyError(_how_to_prepare(data_dir))
    _require(_READERS, extra="cifar")
    tfds = importlib.import_module("tensorflow_datasets")
    # The version is named so that tfds opens the very folder that was found.
    sources = tfds.data_source(
        f"cifar10:{folder.name}", data_dir=folder.parents[1], download=False
    )
    rest = _read(sources["train"])
    train, validation = _cut(rest, min(_CIFAR10_HELD_OUT, len(rest.labels) // 10))
    test = _read(sources["test"])
    return Dataset("cifar10", train, validation, test, _CIFAR10_CLASSES)


def prepared_cifar10(data_dir: str | pathlib.Path) -> pathlib.Path | None:
    """Return the newest folder of array_record files in `data_dir`, or None."""
    found = [
        folder
        for folder in pathlib.Path(data_dir).expanduser().glob("cifar10/*")
        # A preparation that was killed leaves `incomplete.*`, which does not match.
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
        and (folder / "dataset_info.json").is_file()
        and any(folder.glob("cifar10-train.array_record*"))
    ]
    return max(found, key=_version, default=None)


def batch(split: Split, size: int, seed: int, worker_id: int, step: int) -> Split:
    """Return the minibatch of one training step.

    It depends on the arguments alone: a worker that is killed and started again sees
    the images that it would have seen, and two workers see different ones.

    Args:
        split: Where the images are drawn from, each at most once a minibatch.
        size: How many; at most the size of the split.
        seed: The experiment's seed; not negative, like the two that follow.
        worker_id: The slot that trains.
        step: The training step.

    Raises:
        ValueError: The split has no such number of images.
    """
    available = len(split.labels)
    if not 1 <= size <= available:
        raise ValueError(
            f"size must be between 1 and the {available} images of the split, "
            f"got {size!r}. Choose a smaller batch or a larger split."
        )
    rng = np.random.default_rng([seed, worker_id, step])
    rows = rng.choice(available, size, replace=False, shuffle=False)
    return Split(split.images[rows], split.labels[rows])


def _coloured(split: Split, rng: np.random.Generator) -> Split:
    """Return grey images enlarged, each in two random colours."""
    size = len(split.labels)
    one, other = rng.random((2, size, 1, 1, 3), np.float32)
    gap = (one - other).mean(axis=-1, keepdims=True)
    digit, background = np.where(gap > 0, one, other), np.where(gap > 0, other, one)
    # Two equally light colours would hide the digit.
    lacking = np.maximum(_LEAST_CONTRAST - abs(gap), 0) / 2
    digit, background = (digit + lacking).clip(0, 1), (background - lacking).clip(0, 1)
    ink = split.images.repeat(_LARGER, axis=1).repeat(_LARGER, axis=2)
    return Split(background + ink * (digit - background), split.labels)


def _cut(split: Split, held_out: int) -> tuple[Split, Split]:
    """Return the images without the last `held_out`, and the last `held_out`."""
    border = len(split.labels) - held_out
    return (
        Split(split.images[:border], split.labels[:border]),
        Split(split.images[border:], split.labels[border:]),
    )


def _read(source: Any) -> Split:
    """Return the images and labels of one tfds data source."""
    size = len(source)
    images = np.empty((size, *source[0]["image"].shape), np.float32)
    labels = np.empty(size, np.int32)
    for start in range(0, size, _READ_AT_ONCE):
        rows = range(start, min(start + _READ_AT_ONCE, size))
        for row, record in zip(rows, _records(source, rows), strict=True):
            images[row] = record["image"]
            labels[row] = record["label"]
    images /= 255
    return Split(images, labels)


def _records(source: Any, rows: range) -> Iterable[Mapping[str, Any]]:
    """Return the decoded records of those rows."""
    records: Iterable[Mapping[str, Any]] = source.__getitems__(list(rows))
    return records


def _version(folder: pathlib.Path) -> tuple[int, ...]:
    """Return `3.0.2` as numbers, which sort as versions do."""
    return tuple(int(part) for part in folder.name.split("."))


def _require(packages: Iterable[str], extra: str) -> None:
    """Raise if one of the packages of an extra is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise NotReadyError(
            f"This dataset needs the Python packages of the extra {extra!r}; not "
            f"installed: {', '.join(missing)}. Run\n"
            f'    pip install "population-jax[{extra}]"'
        )


def _how_to_prepare(data_dir: str | pathlib.Path) -> str:
    """Return what to do when nothing is prepared yet."""
    folder = shlex.quote(str(data_dir))
    return (
        "CIFAR-10 must be prepared once, and there are no prepared array_record files "
        f"in {folder}. Run\n"
        "    pip install 'population-jax[cifar-prepare]'\n"
        f"    python -m examples.prepare_cifar10 --data_dir {folder}\n"
        "It downloads 170 MB. On a machine without a network, first copy "
        f"cifar-10-binary.tar.gz to {pathlib.Path(data_dir) / 'manual'}."
    )
