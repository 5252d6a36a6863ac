"""The words of the small town: its people, places and things, and some facts about the world."""

WOMEN = """
    Mary Alice Sarah Emma Kate Anna Laura Lisa Susan Linda Helen Ruth Grace Rose Jane Lucy Amy Julia
    Martha Ellen
""".split()
MEN = """
    John Tom James Dan Jack Paul Peter Mark David Michael Robert Richard Henry George Charles Simon Adam
    Luke Martin Frank
""".split()
NAMES = WOMEN + MEN

PLACES = """
    store park school library market station bakery garden church museum river beach farm harbor theater
    hospital bank kitchen office bridge
""".split()
# Things that one person can give to another; each takes "a".
THINGS = """
    drink book ring letter ball key flower hat lamp coin basket cake map pencil box clock shirt ticket
    bottle gift radio blanket camera bell
""".split()
COLORS = "red blue green yellow white black brown silver".split()
ADJECTIVES = "round new small big heavy lovely strange plain bright broken".split()
ANIMALS = "dog cat horse bird rabbit goat duck sheep".split()
FOODS = "bread soup cheese rice fish pie corn honey".split()
WEATHER = "sunny rainy windy cold warm cloudy quiet snowy".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
JOBS = "teacher baker doctor farmer painter driver singer writer nurse guard".split()
FEELINGS = "happy sad tired proud angry afraid calm worried surprised hungry".split()
EVENTS = "war strike fair festival storm journey project drought voyage trial reign feud siege".split()

PLURALS = {
    "dog": "dogs", "cat": "cats", "horse": "horses", "bird": "birds", "rabbit": "rabbits", "goat": "goats", "duck": "ducks",
    "teacher": "teachers", "baker": "bakers", "doctor": "doctors", "farmer": "farmers", "painter": "painters",
    "driver": "drivers", "singer": "singers", "writer": "writers", "nurse": "nurses", "guard": "guards",
    "book": "books", "letter": "letters", "lamp": "lamps", "coin": "coins", "basket": "baskets", "key": "keys",
    "clock": "clocks", "flower": "flowers", "tree": "trees", "house": "houses", "window": "windows", "boat": "boats",
}  # fmt: skip

CAPITALS = {
    "France": "Paris", "England": "London", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Russia": "Moscow",
    "China": "Beijing", "Japan": "Tokyo", "Egypt": "Cairo", "Greece": "Athens", "Ireland": "Dublin", "Austria": "Vienna",
    "Poland": "Warsaw", "Portugal": "Lisbon", "Norway": "Oslo", "Sweden": "Stockholm", "Iran": "Tehran", "Iraq": "Baghdad",
    "Turkey": "Ankara", "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Syria": "Damascus", "Belgium": "Brussels",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Libya": "Tripoli", "Hungary": "Budapest", "Ukraine": "Kiev", "Lebanon": "Beirut",
}  # fmt: skip
