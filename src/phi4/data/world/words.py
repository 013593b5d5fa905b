"""The vocabulary of the small world: about 600 words by kind, chosen so that no two sound alike.

Sentences fill templates from these pools; "salad" strings words together at random, from the words
that can be told apart by ear alone (`SALAD_WORDS`; a test asks the synthesizer). Function words that
share their sound with another word, such as "to" and "two", occur in sentences only.
"""

from __future__ import annotations

from phi4.data.records import listed

POOLS: dict[str, tuple[str, ...]] = {
    kind: listed(words)
    for kind, words in {
        "animal": (
            "cat dog horse cow pig sheep goat duck goose hen fox wolf mouse rabbit tiger lion monkey "
            "camel donkey turtle spider beetle eagle pigeon parrot squirrel dolphin zebra giraffe penguin"
        ),
        "food": (
            "bread butter cheese apple banana lemon onion carrot potato tomato soup salad pasta cake "
            "honey sugar salt pepper milk coffee juice garlic chicken biscuit pudding mushroom cabbage "
            "melon cherry yogurt"
        ),
        "thing": (
            "book chair table lamp bottle basket bucket hammer ladder pencil paper letter camera clock "
            "mirror blanket pillow carpet candle kettle spoon knife plate cup bag box rope brush comb "
            "towel umbrella ticket wallet jacket helmet guitar piano drum trumpet violin phone picture"
        ),
        "place": (
            "kitchen garden bedroom bathroom office garage school church market station airport hotel "
            "library museum hospital bakery forest mountain river beach bridge village city island castle "
            "tower valley desert farm street corner"
        ),
        "person": (
            "teacher doctor nurse farmer driver baker painter singer sailor soldier student lawyer "
            "dentist plumber waiter brother sister mother father uncle cousin neighbour friend captain "
            "artist king queen child baby judge"
        ),
        "name": (
            "anna peter maria david laura simon emma oscar lucy henry julia martin sophie daniel nina "
            "george clara victor rosa felix"
        ),
        "colour": "red blue green yellow purple brown black white grey pink orange",
        "adjective": (
            "big small old young tall short long heavy empty full clean dirty quiet loud happy sad angry "
            "tired hungry cold warm fresh broken narrow wide deep shallow strange simple gentle clever "
            "lazy brave proud famous golden silver wooden modern ancient bright dark strong"
        ),
        "acted": (
            "opened closed carried washed painted found lost bought sold cleaned repaired followed "
            "watched pushed pulled dropped touched counted moved covered borrowed forgot remembered "
            "noticed lifted"
        ),
        "does": "sings dances sleeps works waits runs swims jumps laughs cries listens travels smiles talks",
        "adverb": "slowly quickly quietly carefully suddenly",
        "time": "today tomorrow yesterday tonight",
        "often": "often never always sometimes",
        "day": "monday tuesday wednesday thursday friday saturday sunday",
        "month": "january february april june july august september october november december",
        "season": "summer winter autumn spring",
        "weather": "rain snow wind storm fog thunder sunshine",
        "relation": "under behind beside inside outside near",
        "number": (
            "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
        ),
        "subject": "music history science english cooking painting chess football tennis swimming",
        "vehicle": "car bus train boat ship plane bicycle tractor lorry taxi",
        "body": "hand foot head arm leg shoulder finger knee ear back",
        "feeling": "fear joy hope anger luck trouble",
        "room": "kitchen bedroom bathroom hallway office garage",
    }.items()
}

FUNCTION_WORDS = listed(
    "the a an is are was were in on between with without from to for of and but or because before "
    "after at by into over across has have will can this that my your his her it he she they we "
    "you i not please thank what when where who how many much does do did there here very some "
    "all every us me them him if then than so about as be had would could should one no yes am on "
    "off"
)

EXTRA_WORDS = listed(
    "door window key floor wall roof gate tree leaf grass stone sand water fire smoke morning "
    "evening night week minute story song game question answer money price shop dinner breakfast "
    "lunch hundred thousand hello goodbye sorry ready open close turn walk drive bring take give "
    "help need want like love know think speak begin finish early late again together left "
    "upstairs downstairs north south east west light glass shirt shoe hat coat watch radio engine "
    "wheel bird fish worm moon star cloud island planet country world number line circle square "
    "colour sound voice word page pen map flag bell nail tool oil gold iron wool silk cotton "
    "leather rice corn bean egg tea wine"
)

SPOKEN_ALIKE = frozenset(listed("two four eight one know write knows right"))
"""Words with a twin in `FUNCTION_WORDS` or close to one; kept out of the salad."""

VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys([w for pool in POOLS.values() for w in pool] + list(FUNCTION_WORDS) + list(EXTRA_WORDS))
)
SALAD_WORDS: tuple[str, ...] = tuple(
    w for w in VOCABULARY if w not in FUNCTION_WORDS and w not in SPOKEN_ALIKE
)
CONTENT_WORDS: tuple[str, ...] = SALAD_WORDS
