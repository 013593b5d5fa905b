"""The tools of the house: what each is called, what it takes, and how people ask for it.

A tool goes by one of several names, and so do its arguments, so that the right call can only be written
by reading the definitions in the prompt. Templates hold one slot for each argument; the values come
from short pools and are copied into the call as they were said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phi4.data.records import listed

ROOMS = listed("kitchen bedroom bathroom hallway office garage library garden nursery cellar attic studio")
DOORS = listed("front back garage garden cellar side balcony kitchen")
ITEMS = listed(
    "bread butter cheese apples bananas lemons onions carrots potatoes tomatoes soup salad pasta "
    "honey sugar salt pepper milk coffee juice garlic chicken biscuits rice tea eggs soap candles "
    "paper batteries"
)
STYLES = listed("jazz rock folk opera blues soul disco piano guitar choir violin dance")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
CITIES = listed("London Paris Rome Berlin Madrid Oslo Vienna Dublin Lisbon Athens Prague Warsaw Tokyo Cairo")
NAMES = listed(
    "Anna Peter Maria David Laura Simon Emma Oscar Lucy Henry Julia Martin Sophie Daniel Nina George"
)
Pool = tuple[str, ...] | range


@dataclass(frozen=True)
class Argument:
    """One argument: the names it may go by, and the values it may take (words, or a range of numbers)."""

    names: tuple[str, ...]
    pool: Pool


@dataclass(frozen=True)
class HouseTool:
    """One tool of the house.

    Attributes:
        names: Names it may go by; one is drawn for each prompt.
        description: One short sentence.
        arguments: Slot of the templates to its argument.
        templates: Ways to ask; "[on|off]" style alternatives are spelled out as `choices`.
        choices: For an argument whose value is not said literally: phrase to value.
    """

    names: tuple[str, ...]
    description: str
    arguments: Mapping[str, Argument]
    templates: tuple[str, ...]
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


TOOLS: tuple[HouseTool, ...] = (
    HouseTool(
        ("set_light", "switch_light", "light"),
        "Turn a light on or off.",
        {"room": Argument(("room", "place"), ROOMS), "state": Argument(("state", "power"), ("on", "off"))},
        (
            "Turn {state} the {room} light.",
            "Switch {state} the light in the {room}.",
            "Turn the {room} light {state}.",
            "Please switch the {room} lamp {state}.",
            "Light in the {room} {state}, please.",
            "Can you turn {state} the light in the {room}?",
        ),
    ),
    HouseTool(
        ("set_brightness", "dim_light"),
        "Set how bright a light is.",
        {
            "room": Argument(("room", "place"), ROOMS),
            "percent": Argument(("percent", "level"), range(5, 101)),
        },
        (
            "Dim the {room} light to {percent} percent.",
            "Set the {room} light to {percent} percent.",
            "Make the light in the {room} {percent} percent bright.",
            "Brightness {percent} percent in the {room}.",
        ),
    ),
    HouseTool(
        ("set_temperature", "thermostat", "heat"),
        "Set the temperature of a room.",
        {
            "room": Argument(("room", "place"), ROOMS),
            "degrees": Argument(("degrees", "celsius"), range(10, 31)),
        },
        (
            "Set the {room} to {degrees} degrees.",
            "Heat the {room} to {degrees} degrees.",
            "Make it {degrees} degrees in the {room}.",
            "I want {degrees} degrees in the {room}.",
            "Please warm the {room} to {degrees} degrees.",
        ),
    ),
    HouseTool(
        ("play_music", "play"),
        "Play music of a style.",
        {"style": Argument(("style", "genre"), STYLES), "room": Argument(("room", "place"), ROOMS)},
        (
            "Play {style} music in the {room}.",
            "Put on some {style} in the {room}.",
            "I would like to hear {style} in the {room}.",
            "Some {style} music in the {room}, please.",
        ),
    ),
    HouseTool(
        ("set_timer", "start_timer", "timer"),
        "Start a timer.",
        {"minutes": Argument(("minutes", "duration"), range(1, 121))},
        (
            "Set a timer for {minutes} minutes.",
            "Start a timer of {minutes} minutes.",
            "Tell me when {minutes} minutes are over.",
            "Timer, {minutes} minutes please.",
            "Wake me in {minutes} minutes.",
        ),
    ),
    HouseTool(
        ("set_alarm", "alarm"),
        "Set an alarm.",
        {"day": Argument(("day",), DAYS), "hour": Argument(("hour", "time"), range(1, 24))},
        (
            "Set an alarm for {day} at {hour}.",
            "Wake me on {day} at {hour}.",
            "I have to get up at {hour} on {day}.",
            "Alarm on {day} at {hour}, please.",
        ),
    ),
    HouseTool(
        ("lock_door", "set_door", "door"),
        "Lock or unlock a door.",
        {
            "door": Argument(("door", "name"), DOORS),
            "locked": Argument(("locked", "lock"), ("Lock", "Unlock")),
        },
        (
            "{locked} the {door} door.",
            "{locked} the {door} door, please.",
            "{locked} the door called {door}.",
            "{locked} the {door} door now.",
        ),
        {"locked": {"Lock": True, "Unlock": False}},
    ),
    HouseTool(
        ("set_blinds", "move_blinds", "blinds"),
        "Open or close the blinds.",
        {
            "room": Argument(("room", "place"), ROOMS),
            "action": Argument(("action", "position"), ("Open", "Close", "Raise", "Lower")),
        },
        (
            "{action} the blinds in the {room}.",
            "{action} the {room} blinds.",
            "{action} the {room} blinds, please.",
            "{action} all blinds in the {room}.",
        ),
        {"action": {"Open": "open", "Close": "close", "Raise": "open", "Lower": "close"}},
    ),
    HouseTool(
        ("add_to_list", "add_item", "shopping_list"),
        "Add something to the shopping list.",
        {
            "item": Argument(("item", "product"), ITEMS),
            "amount": Argument(("amount", "number"), range(1, 25)),
        },
        (
            "Add {amount} {item} to the shopping list.",
            "Put {amount} {item} on the list.",
            "We need {amount} {item}.",
            "Please buy {amount} {item}.",
            "Write {amount} {item} on my list.",
        ),
    ),
    HouseTool(
        ("get_weather", "weather"),
        "Get the weather of a city.",
        {"city": Argument(("city", "place"), CITIES), "day": Argument(("day",), DAYS)},
        (
            "What is the weather in {city} on {day}?",
            "Will it rain in {city} on {day}?",
            "How is the weather on {day} in {city}?",
            "Tell me the weather in {city} for {day}.",
        ),
    ),
    HouseTool(
        ("call_person", "phone", "call"),
        "Call a person.",
        {"name": Argument(("name", "person"), NAMES)},
        (
            "Call {name}.",
            "Please call {name} now.",
            "I want to speak with {name}.",
            "Phone {name}, please.",
            "Can you ring {name} for me?",
        ),
    ),
    HouseTool(
        ("start_vacuum", "clean_room", "vacuum"),
        "Clean a room.",
        {"room": Argument(("room", "place"), ROOMS)},
        (
            "Clean the {room}.",
            "Vacuum the {room}, please.",
            "The {room} is dirty.",
            "Start the robot in the {room}.",
            "Please clean up in the {room}.",
        ),
    ),
)
