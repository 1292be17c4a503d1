"""What the notebooks share.

`notebook`: start-up, players and checks; `widgets`: sliders; `codes`: statistics of codec tokens.
"""

from .notebook import check, exercise, hear, player, start

__all__ = ["check", "exercise", "hear", "player", "start"]
