"""Hostile grammars: each is refused or compiled at bounded cost, and the next one is served as ever."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from phi4.engine.structured.mortal import dying_after
from phi4.testing.tiny import write_tiny_tokenizer

CHILD = """
import json, sys, time
from pathlib import Path
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.tool_choice import plan_tools
from phi4.errors import InvalidRequest
from phi4.processing.tokenizer import Phi4Tokenizer

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))

tokenizer = Phi4Tokenizer.load(sys.argv[1])
compiler = GrammarCompiler(tokenizer, int(sys.argv[2]))
compiler.compile(GrammarSpec("json_object"))
canary = GrammarSpec("choice", '["tweet"]')
for line in sys.stdin:
    name, kind, text = json.loads(line)
    Path("/proc/self/clear_refs").write_text("5")
    before, begin, outcome = memory("VmRSS"), time.process_time(), "compiled"
    try:
        spec = plan_tools(json.loads(text)).grammar if kind == "tools" else GrammarSpec(kind, text)
        grammar = compiler.compile(spec)
        for _ in range(20):
            mask = grammar.allowed()
            if mask is None or grammar.finished:
                break
            grammar.accept(int(mask.nonzero()[0][0]))
    except InvalidRequest as error:
        outcome = str(error)
    cpu_s, peak = time.process_time() - begin, memory("VmHWM") - before
    begins = [tokenizer.token_bytes(int(i)) for i in compiler.compile(canary).allowed().nonzero()[0]]
    sings = bool(begins) and all(b"tweet".startswith(begin) for begin in begins)
    print(json.dumps([name, outcome, cpu_s, peak, sings]), flush=True)
"""


@dataclass(frozen=True)
class Attempt:
    """What compiling and 20 tokens came to: the refusal or "compiled", the cost, how the next one fared."""

    outcome: str
    cpu_s: float
    peak_bytes: int
    canary_sings: bool


def nested(levels: int) -> str:
    return '{"allOf": [' * levels + '{"type": "string"}' + "]}" * levels


def chain(length: int, letter: str) -> str:
    rules = [f"{letter}{i}: {letter}{i + 1}" for i in range(length)]
    return "\n".join([f"start: {letter}0", *rules, f'{letter}{length}: "x"'])


def doubling(letter: str) -> str:
    rules = [f"{letter}{i}: {letter}{i + 1} {letter}{i + 1}" for i in range(40)]
    return "\n".join([f"start: {letter}0", *rules, f'{letter}40: "x"'])


def patterns(count: int) -> dict[str, Any]:
    """An intersection whose automaton doubles with each word."""
    return {"allOf": [{"type": "string", "pattern": f".*{i}.*"} for i in range(count)]}


def refs(fan: int, levels: int) -> dict[str, Any]:
    """Every level refers to the next `fan` times: fan ** levels ways through a small text."""
    defs = {
        f"d{i}": {
            "type": "object",
            "properties": {f"p{k}": {"$ref": f"#/$defs/d{i + 1}"} for k in range(fan)},
        }
        for i in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "null"}}}


SCHEMAS: dict[str, Any] = {
    "million values": {"enum": list(range(1_000_000))},
    "ten thousand values": {"enum": [f"value number {i}" for i in range(10_000)]},
    "reference to itself": {"$ref": "#"},
    "references in a ring": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "references that fan out": refs(8, 12),
    "recursion": {"type": "array", "items": {"$ref": "#"}},
    "anyOf that multiplies": {"allOf": [{"anyOf": [{"minimum": i}, {"maximum": -i}]} for i in range(24)]},
    "oneOf that multiplies": {"allOf": [{"oneOf": [{"minimum": i}, {"maximum": -i}]} for i in range(24)]},
    "endless string": {"type": "string", "minLength": 10**9},
    "endless list": {"type": "array", "minItems": 10**9, "items": {"type": "null"}},
    "many properties": {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(5000)}},
    "as many properties as there may be": {
        "type": "object",
        "properties": {f"p{i}": {"type": "integer"} for i in range(1000)},
    },
    "many patterns of keys": {"type": "object", "patternProperties": {f"^{i}x+$": {} for i in range(500)}},
    "as many patterns of keys as there may be": {
        "type": "object",
        "patternProperties": {f"^{i}x+$": {} for i in range(100)},
    },
    "remainders that multiply": {"allOf": [{"type": "integer", "multipleOf": p} for p in (97, 89, 83, 79)]},
    "remainders of a large number": {"type": "integer", "multipleOf": 1_000_003},
    "round remainders": {"type": "number", "multipleOf": 0.01, "minimum": 0},
    "a pattern for each of many lists": {
        "anyOf": [{"type": "string", "pattern": f"^a.*{i}$"} for i in range(3000)]
    },
    "twelve patterns at once": patterns(12),
    "pattern that explodes": {"type": "string", "pattern": "(x+x+)+y" * 20},
    "numbers of many digits": {
        "type": "number",
        "minimum": -1.7e308,
        "maximum": 1.7e308,
        "multipleOf": 1e-300,
    },
    "whole numbers": {"type": "integer", "minimum": -(2**62), "multipleOf": 999_999_937},
    "formats": {"type": "array", "prefixItems": [{"format": f} for f in ("uri", "email", "date-time")] * 50},
}
DEEP = {"nested allOf": nested(1000), "nested allOf within the limit": nested(30)}
REGEXES = {
    "sixty thousand groups": "(" * 60_000,
    "groups within the limit": "(" * 60 + "a" + ")" * 60,
    "repeated repetition": "(a+)+$",
    "nested repetition": "(((a*)*)*)*" * 40,
    "large count": "a{1,100000}",
    "counts of counts": "((a{1,1000}){1,1000}){1,1000}",
    "counts of classes": "([\\w\\s]{0,500}[^x]{0,500}){0,50}",
    "alternatives that overlap": "|".join("a" * i + "b" for i in range(100)),
    "many prefixes of anything": ".*".join("abcdefghijklmnopqrstuvwxyz") * 3,
    "large class": "[" + "".join(map(chr, range(0x4E00, 0x4E00 + 4000))) + "]+",
    "unicode classes": "(\\p{L}|\\p{N}|\\p{S}){1,2000}",
    "unclosed": "[a-",
    "nul": "a\0b",
    "end of a literal": "a/ | <[*]>",
    "line break": "a\nstart: <[*]>",
}
LARKS = {
    "groups": "start: " + "(" * 30_000,
    "chain of rules": chain(800, "r"),
    "chain of terminals": chain(800, "T"),
    "chain of rules that is too long": chain(4000, "r"),
    "rule that is itself": "start: start",
    "left recursion": 'start: start "a" | ',
    "right recursion": 'start: "a" start | ',
    "ambiguous": 'start: start start | "a" | "aa" | ',
    "terminal that is itself": "start: A\nA: A",
    "nested repetition": 'start: ((("a"*)*)*)*',
    "large count": 'start: ("a" | "b"){1,1000000}',
    "only a comment": "// nothing",
    "not text": "\0\0\0",
    "doubling rules": doubling("r"),
    "doubling terminals": doubling("T"),
    "not of anything": "start: T\nT: ~/(.|\\n)*/",
    "nots of nots": "start: T\nT: " + "~" * 2000 + "/a/",
    "grammar in JSON": '{"grammars": [{"lark_grammar": "start: <[*]>"}]}',
    "unknown grammar": "start: @other",
    "import": "%import python (file_input)\nstart: file_input",
    "schema in a grammar": "start: %json " + nested(200),
    "options": '%llguidance {"no_forcing": true, "allow_invalid_utf8": true}\nstart: /(.|\\n)*/',
    "backtracking": 'start: a "x"\na[stop="y"]: /.*/',
    "parameters": "start: r::0\nr::_: " + " | ".join(f'"a{i}" r::set_bit({i})' for i in range(60)),
}
TOOLS = {
    "fan": [
        {
            "name": "f",
            "parameters": {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, **refs(8, 12)},
        }
    ],
    "many": [
        {
            "name": f"tool_{i}",
            "parameters": {"type": "object", "properties": {f"a{k}": {} for k in range(20)}},
        }
        for i in range(128)
    ],
    "names alike": [{"name": "a" * (i + 1), "parameters": {}} for i in range(120)],
}
CORPUS = [
    *(("json_schema", name, text) for name, text in DEEP.items()),
    *(("json_schema", name, json.dumps(schema)) for name, schema in SCHEMAS.items()),
    *(("regex", name, text) for name, text in REGEXES.items()),
    *(("lark", name, text) for name, text in LARKS.items()),
    *(("tools", name, json.dumps(tools)) for name, tools in TOOLS.items()),
]


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Attempt]:
    """All of the corpus in one process; what is missing at the end killed it."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from /proc")
    folder = tmp_path_factory.mktemp("attacked")
    write_tiny_tokenizer(folder, vocab_size=320)
    lines = "".join(json.dumps([f"{kind}: {name}", kind, text]) + "\n" for kind, name, text in CORPUS)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), "352"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=240,
    )
    found = {name: Attempt(*rest) for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, f"died after {list(found)[-1:]}: {done.stderr[-500:]}"
    return found


@pytest.mark.parametrize("name", [f"{kind}: {name}" for kind, name, _ in CORPUS])
def test_a_hostile_grammar_costs_little_and_hurts_nobody(attempts: dict[str, Attempt], name: str) -> None:
    attempt = attempts[name]
    assert attempt.cpu_s < 2.0
    assert attempt.peak_bytes < 64 << 20
    assert attempt.canary_sings
    assert ".rs" not in attempt.outcome and "/src/" not in attempt.outcome and len(attempt.outcome) < 600


@pytest.mark.parametrize(
    "name, why",
    [
        ("json_schema: nested allOf", "too deeply"),
        ("json_schema: million values", "at most"),
        ("json_schema: many properties", "at most 1000"),
        ("json_schema: many patterns of keys", "at most 100"),
        ("json_schema: remainders that multiply", "at most 20000"),
        ("json_schema: remainders of a large number", "at most 20000"),
        ("json_schema: reference to itself", "no text this model can write"),
        ("regex: sixty thousand groups", "at most 8192"),
        ("lark: groups", "cannot be used"),
        ("lark: chain of rules that is too long", "over 2000 rules"),
        ("lark: only a comment", "cannot be used"),
    ],
)
def test_what_is_over_a_limit_is_refused(attempts: dict[str, Attempt], name: str, why: str) -> None:
    assert why in attempts[name].outcome


@pytest.mark.parametrize(
    "name",
    [
        "json_schema: ten thousand values",
        "json_schema: recursion",
        "json_schema: as many properties as there may be",
        "json_schema: as many patterns of keys as there may be",
        "json_schema: round remainders",
        "regex: groups within the limit",
        "regex: large count",
        "lark: left recursion",
        "tools: many",
        "tools: names alike",
    ],
)
def test_what_is_large_but_fair_is_served(attempts: dict[str, Attempt], name: str) -> None:
    assert attempts[name].outcome == "compiled"


MORTAL = """
import json, sys
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.mortal import MortalCompiler
from phi4.processing.tokenizer import Phi4Tokenizer

compiler = MortalCompiler(Phi4Tokenizer.load(sys.argv[1]), 352)
for text in map(json.loads, sys.stdin):
    compiler.compile(GrammarSpec("json_schema", text))
    print("compiled", flush=True)
"""


def test_what_nothing_can_interrupt_ends_a_process_that_may_die(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, vocab_size=320)
    fair, endless = json.dumps({"type": "object"}), json.dumps(patterns(40))
    lines = "".join(json.dumps(text) + "\n" for text in (fair, endless, fair))
    done = subprocess.run(
        [sys.executable, "-c", MORTAL, str(tmp_path)], input=lines, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (-signal.SIGPROF, "compiled\n")


def test_a_process_lives_on_after_a_grammar_in_time() -> None:
    former = signal.getsignal(signal.SIGPROF)
    with dying_after(30.0):
        assert 29.0 < signal.getitimer(signal.ITIMER_PROF)[0] < 31.0
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0.0
    assert signal.getsignal(signal.SIGPROF) == former


MANY = """
import json, sys
from pathlib import Path
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.processing.tokenizer import Phi4Tokenizer

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

compiler = GrammarCompiler(Phi4Tokenizer.load(sys.argv[1]), 352, cache_bytes=16 << 20)
for number in range(int(sys.argv[2])):
    schema = {"type": "object", "properties": {f"p{number}_{i}": {"type": "string"} for i in range(10)}}
    grammar = compiler.compile(GrammarSpec("json_schema", json.dumps(schema)))
    for _ in range(10):
        grammar.accept(int(grammar.allowed().nonzero()[0][0]))
    if number == int(sys.argv[2]) // 4:
        before = resident()
print(json.dumps([before, resident(), compiler.num_cached]))
"""


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ever_new_schemas_do_not_fill_the_memory(tmp_path: Path, count: int) -> None:
    write_tiny_tokenizer(tmp_path, vocab_size=320)
    command = [sys.executable, "-c", MANY, str(tmp_path), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    before, after, cached = json.loads(done.stdout)
    assert 0 < cached < count // 4
    assert after - before < 16 << 20
