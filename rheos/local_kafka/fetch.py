"""Getting the broker's jars, once, into the user's cache folder."""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from rheos.local_kafka.error import LocalKafkaError
from rheos.local_kafka.lock import KAFKA_VERSION, Jar, read_lock

PARALLEL_DOWNLOADS = 8
TRIES = 3  # a proxy that cuts a download short is the usual reason for a second try
TIMEOUT_S = 30


def default_jars_dir() -> Path:
    """Return the folder that `fetch_jars` fills: one per Kafka version, shared by all of a user's
    installations."""
    return platformdirs.user_cache_path("rheos") / f"kafka-{KAFKA_VERSION}"


def fetch_jars(into: Path | None = None, *, progress: bool = True) -> Path:
    """Make the folder `into` (default: `default_jars_dir`) hold every jar; return it.

    Blocks: a few seconds for 45 MB on the first call, a tenth of a second for checking the hashes
    after that, and while another process fetches into the same folder. A jar that is missing or
    damaged is fetched again; none stands under its name before its sha256 is right. Progress goes
    to stderr. Raises `LocalKafkaError`.
    """
    folder = into or default_jars_dir()
    jars = read_lock()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder):
            missing = [jar for jar in jars if not jar.is_at(folder / jar.file_name)]
            if missing:
                _download(missing, folder, progress)
    except OSError as error:
        raise LocalKafkaError(f"cannot keep Kafka's jars in {folder}: {error}") from error
    return folder


def check_jars(folder: Path) -> Path:
    """Return `folder` when it holds every jar already, for a site without a network.

    The folder is flat and only read; other files in it do not matter. Raises `LocalKafkaError`
    that counts the wrong jars and names the first.
    """
    wrong = [jar for jar in read_lock() if not jar.is_at(folder / jar.file_name)]
    if wrong:
        first = folder / wrong[0].file_name
        fault = "is not the file that Rheos was tested with" if first.exists() else "is missing"
        raise LocalKafkaError(
            f"{first} {fault} (sha256 {wrong[0].sha256}; {len(wrong)} such jars): "
            f"copy the folder from a machine where Rheos has fetched it ({default_jars_dir()})"
        )
    return folder


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / ".fetching").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel lets go of it however this process ends
        yield


def _download(jars: Sequence[Jar], folder: Path, progress: bool) -> None:
    scratch = folder / ".partial"
    shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed here
    scratch.mkdir()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with bar, ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        task = bar.add_task(
            f"Apache Kafka {KAFKA_VERSION}", total=sum(jar.size_bytes for jar in jars)
        )
        downloads = {pool.submit(_download_one, jar, scratch, folder): jar for jar in jars}
        try:
            for done in as_completed(downloads):
                done.result()
                bar.advance(task, downloads[done].size_bytes)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    shutil.rmtree(scratch)


def _download_one(jar: Jar, scratch: Path, folder: Path) -> None:
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise LocalKafkaError("Kafka's jars need jgo: pip install 'rheos[kafka]'") from error
    fault = ""
    for attempt in range(TRIES):
        # A cache of its own for each try: jgo takes a half-written file of an earlier one for good.
        maven = MavenContext(repo_cache=scratch / f"{jar.file_name}-{attempt}", timeout=TIMEOUT_S)
        component = maven.project(jar.group, jar.artifact).at_version(jar.version)
        try:
            path = component.artifact().resolve()
        except (OSError, RuntimeError) as error:  # no network; no such file there
            fault = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        if jar.is_at(path):
            path.replace(folder / jar.file_name)
            return
        fault = f"its sha256 is not {jar.sha256}"
    raise LocalKafkaError(
        f"cannot fetch {jar.file_name} ({fault}); without a network, point the jars folder at one "
        "that has the jars already"
    )
