"""What the notebooks share.

`notebook`: start-up, players and checks; `steps`: what a reader writes, with hints; `widgets`: sliders; `codes`:
statistics of codec tokens.
"""

from ..data.examples import music, voice
from .notebook import check, exercise, hear, player, start
from .steps import todo

__all__ = ["check", "exercise", "hear", "music", "player", "start", "todo", "voice"]
