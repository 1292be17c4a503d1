"""What the notebooks share.

`notebook`: start-up, players and checks; `overview`: pictures of the whole course; `step`, `steps`, `steps_late`: what
a reader writes, with hints; `widgets`: sliders; `codes`: statistics of codec tokens; `explorer`: one widget to hear and
change them.
"""

from ..data.examples import music, voice
from .notebook import check, exercise, hear, player, start
from .overview import path
from .steps import todo

__all__ = ["check", "exercise", "hear", "music", "path", "player", "start", "todo", "voice"]
