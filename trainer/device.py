"""Where torch models are fitted."""

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
