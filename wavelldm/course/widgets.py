"""Sliders for the notebooks. What they draw is ordinary cell output, so it is kept in the saved notebook."""

from collections.abc import Callable

import ipywidgets
from IPython.display import display

from ..errors import WavelldmError

Choice = bool | list | tuple


def _control(name: str, choice: Choice) -> ipywidgets.Widget:
    label = {"description": name.replace("_", " "), "continuous_update": False}
    if isinstance(choice, bool):
        return ipywidgets.Checkbox(value=choice, description=label["description"])
    if isinstance(choice, list):
        return ipywidgets.SelectionSlider(options=choice, value=choice[len(choice) // 2], **label)
    if isinstance(choice, tuple) and len(choice) == 4:
        low, high, step, value = choice
        kind = ipywidgets.IntSlider if all(isinstance(x, int) for x in choice) else ipywidgets.FloatSlider
        return kind(min=low, max=high, step=step, value=value, **label)
    raise WavelldmError(f"'{name}' takes (low, high, step, value), a list of choices, or True/False, not {choice!r}")


def sliders(draw: Callable, **choices: Choice) -> dict[str, ipywidgets.Widget]:
    """Show controls and what `draw(**values)` returns (a figure, a sound, or a list of them); redraw on every change.

    A choice is `(low, high, step, value)`, a list to choose from (the middle one first), or True/False. Returns the
    controls by name: setting `controls["hop"].value` from code redraws as well.
    """
    controls = {name: _control(name, choice) for name, choice in choices.items()}

    def drawn() -> list:
        result = draw(**{name: control.value for name, control in controls.items()})
        return list(result) if isinstance(result, (list, tuple)) else [result]

    display(ipywidgets.VBox(list(controls.values())))
    places = [display(item, display_id=True) for item in drawn()]

    def redraw(_):
        for place, item in zip(places, drawn()):
            if place is not None:  # outside a notebook there is none
                place.update(item)

    for control in controls.values():
        control.observe(redraw, names="value")
    return controls
