"""The jars of the broker: exact versions, sizes and hashes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

KAFKA_VERSION = "4.4.0"
LOCK_FILE = Path(__file__).with_name("jars.lock")


@dataclass(frozen=True)
class Jar:
    """One jar, by its Maven coordinates."""

    group: str
    artifact: str
    version: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The jar's name in a flat folder, as in Kafka's own ``libs``."""
        return f"{self.artifact}-{self.version}.jar"

    def is_at(self, path: Path) -> bool:
        """Whether `path` holds exactly this jar. Reads the whole file."""
        if not path.is_file() or path.stat().st_size != self.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def read_lock(path: Path = LOCK_FILE) -> list[Jar]:
    """Return every jar that the broker needs, in the order of the lock file."""
    jars = []
    for line in path.read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            coordinates, size_bytes, sha256 = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, int(size_bytes), sha256))
    return jars
