"""``rheos models``: which models the trainer can fit, and what each can do."""

from typing import Annotated

from cyclopts import Parameter


def command(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the models and what each can do; those of installed packages too.

    The setting `trainer.model` names the one that is fitted; it is marked. What the abilities mean
    and each model's parameters stand in docs/models.md.

    Example: `rheos models`

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    import importlib

    from rheos.cli import answer
    from rheos.settings import SettingsError, load

    chosen = load().trainer.model
    models = importlib.import_module("trainer.models")
    listed = []
    for name in models.known_models():
        try:
            can, problem = sorted(models.model_class(name).can), ""
        except SettingsError as error:  # an installed package that is broken
            can, problem = [], str(error)
        listed.append({"name": name, "can": can, "chosen": name == chosen, "problem": problem})
    if json:
        answer.print_json(listed)
        return
    width = max(len(str(model["name"])) for model in listed)
    for model in listed:
        mark = "*" if model["chosen"] else " "
        told = model["problem"] or ", ".join(word.replace("_", " ") for word in model["can"])
        print(f"{mark} {model['name']:{width}}  {told}")
