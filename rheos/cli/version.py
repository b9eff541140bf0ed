"""The installed version."""

from importlib import metadata


def version() -> str:
    """The distribution's version. Raises PackageNotFoundError when Rheos is not installed."""
    return metadata.version("rheos")
