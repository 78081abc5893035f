"""CIFAR-10: the real builder prepares an archive, and a process trains on it.

The archive has CIFAR-10's binary layout and generated images. Only the interpreter
that prepares it has TensorFlow: `POPULATION_PREPARE_PYTHON`, else `.venv-prepare`.
"""

import http.server
import importlib.util
import io
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import threading
import types
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import pytest

from examples import prepare_cifar10

ROOT = pathlib.Path(__file__).parents[2]
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
IMAGES_PER_FILE = 40
TIMEOUT_S = 120

HAS_TENSORFLOW = """
import importlib.util, sys
sys.exit(importlib.util.find_spec("tensorflow") is None)
"""

# The builder knows the real archive's checksum; here it gets the generated one's.
PREPARE = """
import pathlib, sys
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from examples import prepare_cifar10

archive = pathlib.Path(sys.argv[1], "manual", prepare_cifar10.ARCHIVE)
known = tfds.builder_cls("cifar10").url_infos
assert prepare_cifar10.URL in known, known
known[prepare_cifar10.URL] = checksums.compute_url_info(archive)
sys.exit(prepare_cifar10.main(["--data_dir", sys.argv[1]]))
"""

# A finder that raises would do too much: TensorFlow must look as if not installed.
WITHOUT_TENSORFLOW = """
import importlib.machinery, sys

class WithoutTensorFlow(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            return None
        return super().find_spec(name, path, target)

finder = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path[finder] = WithoutTensorFlow
try:
    import tensorflow
except ModuleNotFoundError:
    pass
else:
    sys.exit("TensorFlow could be imported")
"""

READ = (
    WITHOUT_TENSORFLOW
    + """
def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"reading asked the network: {event} {arguments}")

sys.addaudithook(no_network)
import numpy as np
from examples import datasets

data = datasets.load("cifar10", sys.argv[1])
splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
np.savez(
    sys.argv[2],
    **{f"{name}_images": split.images for name, split in splits.items()},
    **{f"{name}_labels": split.labels for name, split in splits.items()},
)
"""
)

TRAIN = (
    WITHOUT_TENSORFLOW
    + """
from examples.simple_cnn import train_threads

train_threads.main(sys.argv[1:])
"""
)


class Prepared(NamedTuple):
    """The content of the archive, and the folder in which it was prepared.

    Attributes:
        data_dir: What the user gives as `--data_dir`.
        train: Records of 1 + 3,072 bytes, `[N, 3073]`.
        test: Such records of the test set.
    """

    data_dir: pathlib.Path
    train: npt.NDArray[np.uint8]
    test: npt.NDArray[np.uint8]


def _unavailable(reason: str) -> NoReturn:
    """Skip on a user's machine, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _run(
    python: str | pathlib.Path, *arguments: str | pathlib.Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter that finds the repository's modules."""
    return subprocess.run(
        [python, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def _records(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint8]:
    """Random images; the first byte of each record is its label."""
    records = rng.integers(0, 256, (count, 1 + 3 * 32 * 32), dtype=np.uint8)
    records[:, 0] %= len(CLASSES)
    return records


def _write_archive(
    data_dir: pathlib.Path, train: npt.NDArray[np.uint8], test: npt.NDArray[np.uint8]
) -> None:
    """Write the generated records in the form of the original archive."""
    files = {"batches.meta.txt": "\n".join([*CLASSES, ""]).encode()}
    for number, part in enumerate(np.split(train, 5), start=1):
        files[f"data_batch_{number}.bin"] = part.tobytes()
    files["test_batch.bin"] = test.tobytes()
    archive = data_dir / "manual" / prepare_cifar10.ARCHIVE
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def tensorflow_python() -> pathlib.Path:
    """The interpreter that has TensorFlow."""
    default = ROOT / ".venv-prepare" / "bin" / "python"
    python = pathlib.Path(os.environ.get("POPULATION_PREPARE_PYTHON", default))
    if not python.is_file():
        _unavailable(f"{python} is not there; set POPULATION_PREPARE_PYTHON")
    # TensorFlow is looked for, not imported: that takes seconds, and preparing does it.
    if _run(python, "-c", HAS_TENSORFLOW).returncode != 0:
        _unavailable(f"{python} has no tensorflow")
    return python


@pytest.fixture(scope="module")
def prepared(
    tensorflow_python: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    """A generated archive, prepared by tensorflow-datasets' own builder."""
    rng = np.random.default_rng(0)
    data_dir = tmp_path_factory.mktemp("cifar") / "a folder"
    train, test = _records(rng, 5 * IMAGES_PER_FILE), _records(rng, IMAGES_PER_FILE)
    _write_archive(data_dir, train, test)
    done = _run(tensorflow_python, "-c", PREPARE, data_dir)
    assert done.returncode == 0, done.stderr
    assert "CIFAR-10 is ready in" in done.stdout
    return Prepared(data_dir, train, test)


@pytest.fixture
def reading_python() -> str:
    """This interpreter, if it has the packages of the extra `cifar`."""
    for package in ("tensorflow_datasets", "array_record", "importlib_resources"):
        if importlib.util.find_spec(package) is None:
            _unavailable(f"{package} is not installed; it is in the extra 'cifar'")
    return sys.executable


@pytest.fixture
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no proxy between this process and its servers; requests is installed."""
    if importlib.util.find_spec("requests") is None:
        _unavailable("requests is not installed; it comes with the extra 'cifar'")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class _Answer(http.server.BaseHTTPRequestHandler):
    """Answers `/yes` with success and everything else with an error."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/yes" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
        del format, args


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a web server in this process."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Answer) as web:
        thread = threading.Thread(target=web.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def _as_records(
    images: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> list[bytes]:
    """The images as in the archive: label, then red, green and blue planes."""
    pixels = np.round(images * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    columns = [labels.astype(np.uint8), pixels.reshape(len(labels), -1)]
    return sorted(map(bytes, np.column_stack(columns)))


def test_the_prepared_images_are_read_without_tensorflow(
    prepared: Prepared, reading_python: str, tmp_path: pathlib.Path
) -> None:
    """Each image of the archive arrives in one set, unchanged, with its label."""
    file = tmp_path / "read.npz"
    done = _run(reading_python, "-c", READ, prepared.data_dir, file)
    assert done.returncode == 0, done.stderr
    with np.load(file) as archive:
        read = dict(archive)
    assert read["validation_labels"].shape == (20,)
    assert read["train_images"].shape == (180, 32, 32, 3)
    assert read["train_images"].dtype == np.float32
    assert read["train_labels"].dtype == np.int32
    images = np.concatenate([read["train_images"], read["validation_images"]])
    labels = np.concatenate([read["train_labels"], read["validation_labels"]])
    assert _as_records(images, labels) == sorted(map(bytes, prepared.train))
    found = _as_records(read["test_images"], read["test_labels"])
    assert found == sorted(map(bytes, prepared.test))


def test_a_population_trains_on_the_prepared_images_without_tensorflow(
    prepared: Prepared, reading_python: str, tmp_path: pathlib.Path
) -> None:
    """The example's command line runs to its table on CIFAR-10's files."""
    flags = "--workers 2 --steps 4 --width 4 --every 2 --batch_size 16".split()
    folders = ["--data_dir", str(prepared.data_dir), "--log_dir", str(tmp_path / "run")]
    done = _run(
        reading_python,
        *("-c", TRAIN, "--dataset", "cifar10", *folders, *flags),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # Compiling is most of these seconds.
    )
    assert done.returncode == 0, done.stderr
    assert "cifar10 on" in done.stdout
    assert "test accuracy" in done.stdout
    assert list((tmp_path / "run").iterdir())


def test_another_archive_is_refused(
    tensorflow_python: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The error names the damaged download, and nothing counts as prepared."""
    records = _records(np.random.default_rng(0), 5)
    _write_archive(tmp_path, records, records)
    done = _run(
        tensorflow_python, "-m", "examples.prepare_cifar10", "--data_dir", tmp_path
    )
    assert done.returncode == 1
    assert "damaged or another one" in done.stderr
    assert str(tmp_path / "manual" / prepare_cifar10.ARCHIVE) in done.stderr
    assert not list(tmp_path.glob("cifar10/*/dataset_info.json"))


def test_preparing_offline_ends_at_once_and_says_what_to_do(
    tensorflow_python: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """With an unreachable proxy, as offline, there is one request and no retry."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    done = _run(
        tensorflow_python,
        *("-m", "examples.prepare_cifar10", "--data_dir", tmp_path),
        HTTPS_PROXY=closed,
        https_proxy=closed,
    )
    assert done.returncode == 1
    assert str(tmp_path / "manual" / prepare_cifar10.ARCHIVE) in done.stderr
    assert prepare_cifar10.URL in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("directly")
def test_an_address_that_answers_is_no_problem(server: str) -> None:
    """An address that answers with an error is a problem."""
    assert prepare_cifar10.network_problem(f"{server}/yes", 5) is None
    problem = prepare_cifar10.network_problem(f"{server}/no", 5)
    assert problem is not None
    assert "404" in problem


@pytest.mark.usefixtures("directly")
def test_a_silent_server_is_a_problem_after_the_timeout(silent_port: int) -> None:
    """A connection that opens is not an answer yet."""
    url = f"http://127.0.0.1:{silent_port}"
    assert "timed out" in str(prepare_cifar10.network_problem(url, 0.1))


def test_a_silent_name_server_is_a_problem_after_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name lookup has no timeout, so its thread is left behind."""
    released = threading.Event()

    def get(url: str, **options: object) -> NoReturn:
        released.wait()
        raise OSError(f"{url}: too late for {options}")

    fake = types.SimpleNamespace(get=get, RequestException=OSError)
    monkeypatch.setitem(sys.modules, "requests", fake)
    problem = prepare_cifar10.network_problem("https://example.invalid", 0.1)
    released.set()
    assert "no answer from https://example.invalid" in str(problem)
