"""Random sentences in seven languages, for synthetic speech: subject, action, place, time. They cover the sounds of
each language.
"""

import numpy as np

from ..errors import DataError

# language: (who, does what, where and when in the order of the language, and).
# Any entry of one column goes with any entry of the next.
WORDS = {
    "en": (
        "my neighbour|the old fisherman|a young doctor|the girl with the yellow jacket|our teacher|the judge|somebody"
        "|a cheerful boy",
        "repairs the wooden chair|is reading a long letter|sings a quiet song|bought fresh vegetables"
        "|watches the huge ships|was looking for the key|throws a ball|will measure the thick rope",
        "in the kitchen|near the old harbour|under the bridge|behind the church|on the third floor"
        "|at the edge of the forest|by the fire|on a vast beach",
        "this morning|before sunrise|every Thursday|at half past seven|after the thunderstorm|in January"
        "|for just a few hours|as usual",
        "and|while|but",
    ),
    "de": (
        "die Nachbarin|ein alter Fischer|meine jüngere Schwester|der Bäcker|das kleine Mädchen|unser Lehrer|jemand"
        "|die höfliche Ärztin",
        "repariert den hölzernen Stuhl|liest einen langen Brief|singt ein leises Lied|kauft frisches Gemüse"
        "|beobachtet die großen Schiffe|sucht den Schlüssel|zeichnet ein Pferd|kocht eine Suppe für zwölf Gäste",
        "heute früh|vor Sonnenaufgang|jeden Donnerstag|um halb acht|nach dem Gewitter|im Januar|seit fünf Stunden"
        "|wie gewöhnlich",
        "in der Küche|am alten Hafen|unter der Brücke|hinter der Kirche|im dritten Stock|am Waldrand|auf dem Jahrmarkt"
        "|neben dem Brunnen",
        "und|aber|denn",
    ),
    "fr": (
        "ma voisine|un vieux pêcheur|le jeune médecin|la fille du boulanger|notre professeur|quelqu'un|le juge"
        "|un garçon joyeux",
        "répare la chaise en bois|lit une longue lettre|chante une chanson douce|achète des légumes frais"
        "|regarde les grands bateaux|cherche la clé|dessine un cheval brun|mesure une corde épaisse",
        "dans la cuisine|près du vieux port|sous le pont|derrière l'église|au troisième étage|au bord de la forêt"
        "|devant la cheminée|sur une plage immense",
        "ce matin|avant le lever du soleil|chaque jeudi|à sept heures et demie|après l'orage|au mois de juin"
        "|depuis huit jours|comme d'habitude",
        "et|mais|pendant que",
    ),
    "es": (
        "mi vecina|un viejo pescador|la joven doctora|el hijo del panadero|nuestro maestro|alguien|el juez"
        "|una niña alegre",
        "arregla la silla de madera|lee una carta larga|canta una canción tranquila|compra verduras frescas"
        "|mira los barcos grandes|busca la llave|dibuja un caballo gris|prepara una sopa para doce invitados",
        "en la cocina|cerca del puerto viejo|debajo del puente|detrás de la iglesia|en el tercer piso|junto al bosque"
        "|al lado del fuego|en una playa enorme",
        "esta mañana|antes del amanecer|cada jueves|a las siete y media|después de la tormenta|en enero"
        "|desde hace cinco horas|como siempre",
        "y|pero|mientras",
    ),
    "it": (
        "la mia vicina|un vecchio pescatore|la giovane dottoressa|il figlio del fornaio|il nostro maestro|qualcuno"
        "|il giudice|una bambina allegra",
        "ripara la sedia di legno|legge una lunga lettera|canta una canzone tranquilla|compra verdura fresca"
        "|guarda le grandi navi|cerca la chiave|disegna un cavallo grigio|prepara una zuppa per dodici ospiti",
        "in cucina|vicino al vecchio porto|sotto il ponte|dietro la chiesa|al terzo piano|ai margini del bosco"
        "|accanto al fuoco|su una spiaggia immensa",
        "stamattina|prima dell'alba|ogni giovedì|alle sette e mezza|dopo il temporale|a gennaio|da cinque ore"
        "|come al solito",
        "e|ma|mentre",
    ),
    "pt": (
        "a minha vizinha|um velho pescador|a jovem médica|o filho do padeiro|o nosso professor|alguém|o juiz"
        "|uma menina alegre",
        "conserta a cadeira de madeira|lê uma longa carta|canta uma canção tranquila|compra legumes frescos"
        "|observa os grandes navios|procura a chave|desenha um cavalo cinzento|prepara uma sopa para doze pessoas",
        "na cozinha|perto do porto velho|debaixo da ponte|atrás da igreja|no terceiro andar|à beira da floresta"
        "|ao lado do fogo|numa praia imensa",
        "esta manhã|antes do nascer do sol|todas as quintas-feiras|às sete e meia|depois da tempestade|em janeiro"
        "|há cinco horas|como sempre",
        "e|mas|enquanto",
    ),
    "nl": (
        "mijn buurvrouw|een oude visser|de jonge dokter|het meisje met de gele jas|onze leraar|iemand|de rechter"
        "|een vrolijke jongen",
        "repareert de houten stoel|leest een lange brief|zingt een rustig lied|koopt verse groenten"
        "|bekijkt de grote schepen|zoekt de sleutel|tekent een grijs paard|kookt soep voor twaalf gasten",
        "vanmorgen|voor zonsopgang|elke donderdag|om half acht|na het onweer|in januari|al vijf uur lang"
        "|zoals gewoonlijk",
        "in de keuken|bij de oude haven|onder de brug|achter de kerk|op de derde verdieping|aan de rand van het bos"
        "|naast het vuur|op een enorm strand",
        "en|maar|want",
    ),
}
LANGUAGES = tuple(WORDS)


def sentence(seed: int | np.random.Generator, language: str = "en") -> str:
    """One or two clauses; the same seed (or state of the generator) gives the same sentence."""
    if language not in WORDS:
        raise DataError(f"there are no sentences in '{language}'; choose one of {', '.join(LANGUAGES)}")
    generator = np.random.default_rng(seed)
    *columns, links = ([entry.strip() for entry in column.split("|")] for column in WORDS[language])

    def clause():
        return " ".join(entries[generator.integers(len(entries))] for entries in columns)

    text = clause()
    if generator.random() < 0.4:
        text += f", {links[generator.integers(len(links))]} {clause()}"
    return text[0].upper() + text[1:] + "."
