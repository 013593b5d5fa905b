"""Household commands, typed or spoken, that end in one tool call, or in a short refusal.

Each prompt offers two to four tools, the right one among them but for `REFUSAL_SHARE` of the prompts.
Held out: pairs of command and tool names by hash, and the last template of each tool.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from phi4.data.records import Record, Split, assistant, stream, user
from phi4.data.splits import draw, pick
from phi4.data.world.numbers import number_words
from phi4.data.world.spoken import speak
from phi4.data.world.tools import TOOLS, Argument, HouseTool
from phi4.types import AudioPart, Message, TextPart, ToolCall, ToolSpec

REFUSAL = "I have no tool for that."
REFUSAL_SHARE = 0.12
SYSTEM = "You control a house."


@dataclass(frozen=True)
class Request:
    """A command in words, the call it asks for, and the tool as offered."""

    said: str
    call: ToolCall
    spec: ToolSpec
    template: int


def offer(tool: HouseTool, rng: np.random.Generator) -> tuple[ToolSpec, dict[str, str]]:
    """Returns a tool under drawn names, shown in the short form, and the name of each slot's argument.

    Half of the definitions go without their description: names say it all, and prompts stay short.
    """
    slots = {slot: pick(rng, argument.names) for slot, argument in tool.arguments.items()}
    short: dict[str, Any] = {}
    schema: dict[str, Any] = {}
    for slot, argument in tool.arguments.items():
        kind, values = _value_type(tool, slot, argument)
        short[slots[slot]] = {"type": {"string": "str", "integer": "int", "boolean": "bool"}[kind]}
        schema[slots[slot]] = {"type": kind}
        if values:
            short[slots[slot]] = {"enum": values}
            schema[slots[slot]] = {"type": kind, "enum": values}
    name = pick(rng, tool.names)
    parameters = {"type": "object", "properties": schema, "required": list(schema)}
    definition: dict[str, Any] = {"name": name, "parameters": short}
    if rng.random() < 0.5:
        definition = {"name": name, "description": tool.description, "parameters": short}
    return ToolSpec(name, tool.description, parameters, definition), slots


def _value_type(tool: HouseTool, slot: str, argument: Argument) -> tuple[str, list[str]]:
    """JSON type of an argument, and its values where there are so few that the definition lists them."""
    if isinstance(argument.pool, range):
        return "integer", []
    values = list(dict.fromkeys(tool.choices.get(slot, {v: v for v in argument.pool}).values()))
    if all(isinstance(v, bool) for v in values):
        return "boolean", []
    return "string", values if len(values) <= 3 else []


def draw_request(rng: np.random.Generator, split: Split) -> Request:
    """Draws a tool, its names, a template and its values."""
    tool = pick(rng, TOOLS)
    spec, slots = offer(tool, rng)
    count = len(tool.templates)
    template = int(rng.integers(count - 1 if split == "train" else count))
    said: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    for slot, argument in tool.arguments.items():
        value = pick(rng, tuple(argument.pool))
        said[slot] = str(value)
        arguments[slots[slot]] = tool.choices.get(slot, {}).get(str(value), value)
    return Request(tool.templates[template].format(**said), ToolCall(spec.name, arguments), spec, template)


def _prompt(
    name: str, split: Split, seed: int, index: int
) -> tuple[np.random.Generator, Request, tuple[ToolSpec, ...], Message, tuple[str, ...]]:
    rng = stream(name, split, seed, index)
    request = draw(
        rng, split, "command", lambda r: draw_request(r, split), lambda r: f"{r.said} {r.spec.name}"
    )
    others = [tool for tool in TOOLS if tool.description != request.spec.description]
    refuse = bool(rng.random() < REFUSAL_SHARE)
    count = pick(rng, (1, 1, 1, 2, 2, 3)) + refuse
    chosen = rng.choice(len(others), count, replace=False)
    offered = [offer(others[int(i)], rng)[0] for i in chosen]
    if not refuse:
        offered.insert(int(rng.integers(len(offered) + 1)), request.spec)
    tools = tuple(offered)
    if refuse:
        return rng, request, tools, assistant(REFUSAL), (REFUSAL,)
    reply = Message("assistant", tool_calls=(request.call,))
    return rng, request, tools, reply, (call_text(request.call),)


def call_text(call: ToolCall) -> str:
    """Returns a call as the JSON list a model writes between its tool-call tokens."""
    return json.dumps([{"name": call.name, "arguments": dict(call.arguments)}])


def command(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A typed command with two to four tools in the system message; the answer is one call."""
    _, request, tools, reply, answers = _prompt("command", split, seed, index)
    prompt = (Message("system", (TextPart(SYSTEM),)), user(request.said))
    facts = {"template": request.template, "refusal": not reply.tool_calls}
    return Record("command", split, index, prompt, reply, answers, tools, facts)


def spoken_command(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """The same, spoken: the user's turn is a recording and nothing else."""
    rng, request, tools, reply, answers = _prompt("spoken_command", split, seed, index)
    wave, made = speak(speakable(request.said), rng, split)
    prompt = (Message("system", (TextPart(SYSTEM),)), user(AudioPart(wave)))
    facts = {"template": request.template, "refusal": not reply.tool_calls} | made
    return Record("spoken_command", split, index, prompt, reply, answers, tools, facts)


def speakable(said: str) -> str:
    """Returns a command as lower-case words: no punctuation, numbers spelled out."""
    words = "".join(c for c in said.lower() if c.isalnum() or c == " ").split()
    return " ".join(number_words(int(word)) if word.isdigit() else word for word in words)
