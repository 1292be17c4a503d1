"""Captions for recordings that have only a label, such as those of ESC-50 ("door_wood_knock", "001 - Dog bark")."""

import re

SAID = {
    "dog bark": "a dog barking",
    "sea waves": "sea waves",
    "waves": "sea waves",
    "baby cry": "a baby crying",
    "clock tick": "a clock ticking",
    "person sneeze": "a person sneezing",
    "helicopter": "a helicopter",
    "chainsaw": "a chainsaw",
    "rooster": "a rooster crowing",
    "fire crackling": "a fire crackling",
    "fireplace": "a fire crackling",
    "airplane": "an airplane",
    "birds": "birds singing",
    "chirping birds": "birds singing",
    "boat": "a boat",
    "brushing teeth": "someone brushing teeth",
    "can opening": "a can being opened",
    "car engine": "a car engine",
    "car horn": "a car horn",
    "cat": "a cat",
    "church bells": "church bells ringing",
    "city": "a city street",
    "clapping": "people clapping",
    "clock alarm": "an alarm clock",
    "coffee-shop": "people talking in a cafe",
    "cow": "a cow",
    "creek": "a stream",
    "crow": "a crow",
    "crowd cheering": "a crowd cheering",
    "cycadas": "crickets",
    "nightcrickets": "crickets",
    "summer-night": "crickets",
    "distant cars": "cars in the distance",
    "doing the dishes": "someone doing the dishes",
    "door wood creaks": "a door creaking",
    "door wood knock": "knocking on a door",
    "drinking sipping": "someone drinking",
    "engine": "an engine running",
    "firealarm": "a fire alarm",
    "forest": "a forest with birds",
    "forest-rain": "rain",
    "heavy-rain": "heavy rain",
    "frog": "a frog",
    "glass breaking": "glass breaking",
    "hand saw": "a hand saw",
    "hammering machine": "a machine hammering",
    "hen": "a hen",
    "keyboard typing": "typing on a keyboard",
    "typing": "typing on a keyboard",
    "mouse click": "a mouse clicking",
    "pig": "a pig",
    "pouring water": "water being poured",
    "river": "a river",
    "stream": "a stream",
    "waterfall": "a waterfall",
    "running tap": "a tap running",
    "sheep": "a sheep",
    "siren": "a siren wailing",
    "storm": "a storm",
    "thunder": "thunder",
    "thunderstorm": "thunder",
    "toilet flush": "a toilet flushing",
    "train": "a train",
    "vacuum cleaner": "a vacuum cleaner",
    "washing machine": "a washing machine",
    "water drops": "drops of water",
    "wind": "wind blowing",
    "windy": "wind blowing",
    "blowwind": "wind blowing",
    "wastewind": "wind blowing",
}
KEPT = ("rain", "insects", "crickets", "footsteps", "fireworks", "applause")


def said(label: str) -> str:
    """A label in words, or "" where it is not known what one hears: "001 - Dog bark" -> "a dog barking"."""
    name = re.sub(r"^\d+ - ", "", label).lower().replace("_", " ")
    found = SAID.get(name)
    if found is None:
        name = re.sub(r"(\d+| .*)$", "", name)  # "waterfall deep", "forest2"
        found = SAID.get(name, name if name in KEPT else "")
    return found
