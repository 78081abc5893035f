"""The examples' data: what the sets promise, and the error if one is missing."""

import pathlib
import sys

import numpy as np
import pytest

from examples import datasets, prepare_cifar10


@pytest.fixture
def packages_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that every package for preparing is installed."""
    monkeypatch.setattr(prepare_cifar10, "_PACKAGES", ())


@pytest.fixture
def prepared(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder that looks prepared; the files are empty."""
    _pretend(tmp_path, "3.0.2", "array_record")
    return tmp_path


def _pretend(data_dir: pathlib.Path, version: str, file_format: str) -> pathlib.Path:
    folder = data_dir / "cifar10" / version
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").touch()
    (folder / f"cifar10-train.{file_format}-00000-of-00001").touch()
    return folder


def _rows(*splits: datasets.Split) -> list[bytes]:
    """Images and labels as comparable bytes, sorted."""
    return sorted(
        image.tobytes() + label.tobytes()
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def test_digits_are_cut_into_three_disjoint_sets() -> None:
    """Together the sets are scikit-learn's images, each exactly once."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    bunch = sklearn_datasets.load_digits()
    data = datasets.digits()
    whole = datasets.Split(
        (bunch.images[..., np.newaxis] / 16).astype(np.float32),
        bunch.target.astype(np.int32),
    )
    assert _rows(data.train, data.validation, data.test) == _rows(whole)
    sizes = [len(part.labels) for part in (data.train, data.validation, data.test)]
    assert sizes == [1197, 300, 300]


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_digits_have_the_promised_form(part: str) -> None:
    """Images are float32 from 0 to 1, labels int32, and every class occurs."""
    data = datasets.digits()
    split: datasets.Split = getattr(data, part)
    assert split.images.shape == (len(split.labels), 8, 8, 1)
    assert split.images.dtype == np.float32
    assert float(split.images.min()) == 0
    assert float(split.images.max()) == 1
    assert split.labels.dtype == np.int32
    assert set(split.labels.tolist()) == set(range(data.num_classes))


def test_digits_are_cut_the_same_way_each_time() -> None:
    """A resumed run must not find test images in its training set."""
    again = datasets.load("digits")
    np.testing.assert_array_equal(datasets.digits().train.images, again.train.images)
    other = datasets.digits(seed=1)
    assert not np.array_equal(other.train.labels, again.train.labels)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_colour_digits_are_the_digits_in_colour(part: str) -> None:
    """The same images in the same sets, large, coloured and readable."""
    grey: datasets.Split = getattr(datasets.digits(), part)
    split: datasets.Split = getattr(datasets.load("colour_digits"), part)
    np.testing.assert_array_equal(split.labels, grey.labels)
    assert split.images.shape == (len(grey.labels), 32, 32, 3)
    assert split.images.dtype == np.float32
    assert 0 <= split.images.min() < split.images.max() <= 1
    lightness = split.images[:, ::4, ::4].mean(axis=-1)
    for image, original in zip(lightness, grey.images[..., 0], strict=True):
        correlation = np.corrcoef(image.ravel(), original.ravel())[0, 1]
        assert correlation == pytest.approx(1, abs=1e-4)
        assert image.max() - image.min() > 0.2
    assert (np.ptp(split.images, axis=-1).max(axis=(1, 2)) > 0.1).mean() > 0.9


def test_colour_digits_never_change() -> None:
    """A resumed run finds each image in the colours that it had; another seed not."""
    first, again = datasets.colour_digits(), datasets.colour_digits()
    np.testing.assert_array_equal(first.train.images, again.train.images)
    other = datasets.colour_digits(seed=1)
    assert not np.array_equal(first.train.images, other.train.images)


def test_a_batch_depends_on_its_arguments_alone() -> None:
    """A worker that starts again sees the same minibatches."""
    train = datasets.digits().train
    first = datasets.batch(train, 32, seed=1, worker_id=2, step=3)
    datasets.batch(train, 32, seed=1, worker_id=2, step=4)
    again = datasets.batch(train, 32, seed=1, worker_id=2, step=3)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)


@pytest.mark.parametrize("other", [(0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3)])
def test_seeds_workers_and_steps_draw_different_batches(
    other: tuple[int, int, int],
) -> None:
    """Each of the three arguments counts, and so does their order."""
    train = datasets.digits().train
    batch = datasets.batch(train, 32, 1, 2, 3)
    assert not np.array_equal(batch.images, datasets.batch(train, 32, *other).images)


def test_a_batch_holds_images_of_the_split_each_at_most_once() -> None:
    """A batch as large as the split is the split, in some order."""
    validation = datasets.digits().validation
    batch = datasets.batch(validation, len(validation.labels), 0, 0, 0)
    assert _rows(batch) == _rows(validation)
    assert batch.images.dtype == np.float32
    assert batch.labels.dtype == np.int32


@pytest.mark.parametrize("size", [0, -1, 301])
def test_an_impossible_batch_size_is_refused(size: int) -> None:
    """The message says how many images there are and what was asked for."""
    validation = datasets.digits().validation
    with pytest.raises(ValueError, match=f"between 1 and the 300 .* got {size}"):
        datasets.batch(validation, size, 0, 0, 0)


def test_an_unknown_name_lists_the_known_ones() -> None:
    """A user can correct a typo without looking into the code."""
    with pytest.raises(
        ValueError, match=r"'mnist'.* known are cifar10, colour_digits, digits"
    ):
        datasets.load("mnist")


def test_cifar10_needs_a_folder() -> None:
    """The message names the flag and the argument."""
    with pytest.raises(ValueError, match=r"--data_dir DIR .*data_dir=DIR"):
        datasets.load("cifar10")


def test_unprepared_data_says_how_to_prepare_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is said before tensorflow-datasets, which would retry, is imported."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    data_dir = tmp_path / "a folder"
    with pytest.raises(datasets.NotReadyError) as caught:
        datasets.load("cifar10", data_dir)
    message = str(caught.value)
    assert "pip install 'population-jax[cifar-prepare]'" in message
    assert f"examples.prepare_cifar10 --data_dir '{data_dir}'" in message
    assert f"cifar-10-binary.tar.gz to {data_dir / 'manual'}" in message


@pytest.mark.parametrize(
    ("version", "file_format"),
    [("incomplete.3YZ2A9_3.0.2", "array_record"), ("3.0.2", "tfrecord")],
)
def test_what_cannot_be_read_does_not_count_as_prepared(
    version: str, file_format: str, tmp_path: pathlib.Path
) -> None:
    """Neither a killed preparation nor files of another format count."""
    _pretend(tmp_path, version, file_format)
    assert datasets.prepared_cifar10(tmp_path) is None


def test_the_newest_prepared_version_is_read(prepared: pathlib.Path) -> None:
    """Versions are compared as numbers, not as text."""
    newest = _pretend(prepared, "3.0.10", "array_record")
    assert datasets.prepared_cifar10(prepared) == newest


@pytest.mark.parametrize(
    "package", ["tensorflow_datasets", "array_record", "importlib_resources", "PIL"]
)
def test_a_missing_package_for_reading_is_named(
    package: str, prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data are there; the message says what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(datasets.NotReadyError, match=package) as caught:
        datasets.cifar10(prepared)
    assert 'pip install "population-jax[cifar]"' in str(caught.value)


def test_digits_without_scikit_learn_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The default data need one extra, and the message names it."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(datasets.NotReadyError, match=r"population-jax\[examples\]"):
        datasets.digits()


def test_preparing_without_tensorflow_says_what_to_install(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It ends with a failure status and leaves nothing behind."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert prepare_cifar10.main(["--data_dir", str(tmp_path)]) == 1
    assert "pip install 'population-jax[cifar-prepare]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("packages_there")
def test_preparing_beside_tfrecord_files_asks_for_another_folder(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tensorflow-datasets keeps one format in a folder and raises at a second."""
    _pretend(tmp_path, "3.0.2", "tfrecord")
    assert prepare_cifar10.main(["--data_dir", str(tmp_path)]) == 1
    assert "Choose another --data_dir" in capsys.readouterr().err


@pytest.mark.usefixtures("packages_there")
def test_preparing_without_a_network_says_where_to_put_the_archive(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message has the cause, the address and the place of the archive."""
    monkeypatch.setattr(
        prepare_cifar10, "network_problem", lambda url, timeout_s: "unplugged"
    )
    assert prepare_cifar10.main(["--data_dir", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "unplugged" in message
    assert prepare_cifar10.URL in message
    assert str(tmp_path / "manual" / "cifar-10-binary.tar.gz") in message


@pytest.mark.usefixtures("packages_there")
def test_an_archive_in_the_folder_needs_no_network(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is made."""
    monkeypatch.delattr(prepare_cifar10, "network_problem")
    archive = tmp_path / "manual" / prepare_cifar10.ARCHIVE
    archive.parent.mkdir()
    archive.touch()
    assert prepare_cifar10.obstacle(tmp_path) is None


def test_preparing_twice_does_nothing_the_second_time(
    prepared: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The output names the data, and TensorFlow is not loaded."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert prepare_cifar10.main(["--data_dir", str(prepared)]) == 0
    assert f"ready in {prepared / 'cifar10' / '3.0.2'}" in capsys.readouterr().out
