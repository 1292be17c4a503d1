"""What the notebooks share: start-up and checks (notebook.py), sliders (widgets.py), statistics of codes (codes.py)."""

from .notebook import check, exercise, hear, player, start

__all__ = ["check", "exercise", "hear", "player", "start"]
