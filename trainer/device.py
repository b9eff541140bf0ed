"""Where torch models are fitted."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rheos.settings import SettingsError


def device_of(name: str) -> torch.device:
    """The device that ``trainer.device`` names; ``auto`` is a GPU where there is one, else the CPU.

    Raises SettingsError for a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        raise SettingsError(f"setting trainer.device = {name!r}: {text}") from None


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch's own threads, a setting of the whole process, as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
