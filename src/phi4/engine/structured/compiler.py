"""Answers in a given form: JSON, a schema, an expression, a grammar, a choice, calls of tools.

    compiler = GrammarCompiler(tokenizer, vocab_size=runner.info.vocab_size)
    grammar = compiler.compile(GrammarSpec("json_object"))   # one for each answer
    allowed = grammar.allowed()                               # [V] or None, before each draw
    grammar.accept(token)                                     # after it; grammar.finished

llguidance (extra `serve`) turns grammars into masks over the vocabulary. What a client sends is checked in
Python first (`spec`), compiled with bounded work, and cached by size. A compile that must be killable
happens in a process that may die, before the engine's process does the same once more.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np

from phi4.engine.structured.constraint import Constraint, Matcher, first_reason
from phi4.engine.structured.lenient import without_impossible
from phi4.engine.structured.spec import (
    GrammarLimits,
    GrammarSpec,
    check_kind,
    checked_choices,
    checked_lark,
    checked_regex,
    checked_schema,
)
from phi4.engine.structured.tool_grammar import ToolCallGrammar, ToolRules
from phi4.errors import InvalidRequest, MissingExtra
from phi4.processing.tokenizer import Phi4Tokenizer

_log = logging.getLogger(__name__)
CACHE_BYTES = 64 * 1024 * 1024
# One line, or lines with an indent. Small models that may write any white space sometimes write nothing else.
_JSON_OPTIONS = {"whitespace_pattern": r"(?:\x20|\r?\n[\x20\t]{0,40})"}
# As `json.dumps` writes it, which is what the model was trained on, or without the spaces.
_CALL_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ")


def compile_grammar(
    spec: GrammarSpec, tokenizer: Phi4Tokenizer, vocab_size: int | None = None
) -> Constraint | ToolCallGrammar:
    """Compile one grammar for one answer; keep a `GrammarCompiler` where there are more.

    Raises:
        InvalidRequest: See `GrammarCompiler.compile`.
        MissingExtra: llguidance is not installed.
    """
    return GrammarCompiler(tokenizer, vocab_size).compile(spec)


class GrammarCompiler:
    """Compiles grammars for one tokenizer; may be used by several threads.

    Args:
        tokenizer: The model's.
        vocab_size: Entries V of the runner's logit rows; None = as many as the tokenizer has ids.
        limits: What one grammar may ask for.
        cache_bytes: Estimated memory of compiled grammars that are kept, least recently used out first.
    """

    def __init__(
        self,
        tokenizer: Phi4Tokenizer,
        vocab_size: int | None = None,
        limits: GrammarLimits | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.limits = limits or GrammarLimits()
        self._tokenizer = tokenizer
        self._vocab_size = tokenizer.vocab_size if vocab_size is None else vocab_size
        assert self._vocab_size >= tokenizer.vocab_size
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[GrammarSpec, Matcher] = OrderedDict()
        self._lock = Lock()
        self._building = Lock()
        self._native: Any = None
        self._native_limits: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._usable = np.array([bool(tokenizer.token_bytes(i)) for i in range(self._vocab_size)], np.bool_)
        self._usable[list(tokenizer.control_ids)] = False
        self._usable[list(tokenizer.tokens.stop_ids)] = True

    def warm_up(self) -> None:
        """Hand the vocabulary over to llguidance, which the first `compile` does otherwise: a second, or two.

        Raises:
            MissingExtra: llguidance is not installed.
        """
        with self._building:
            if self._native is not None:
                return
            try:
                from llguidance import LLParserLimits, LLTokenizer, TokenizerWrapper
            except ImportError:
                raise MissingExtra(
                    "answers in a given form need llguidance, which is not installed; "
                    "from the checkout: pip install '.[serve]'"
                ) from None
            limits = self.limits
            self._native_limits = LLParserLimits(
                initial_lexer_fuel=limits.lexer_fuel,
                step_lexer_fuel=limits.step_fuel,
                step_max_items=limits.step_items,
                max_items_in_row=limits.row_items,
                max_lexer_states=limits.lexer_states,
                max_grammar_size=limits.max_grammar_size,
                verbose_errors=False,
            )
            self._native = LLTokenizer(TokenizerWrapper(_Vocabulary(self._tokenizer, self._vocab_size)))

    def compile(self, spec: GrammarSpec) -> Constraint | ToolCallGrammar:
        """Make a grammar for one answer.

        Raises:
            InvalidRequest: The spec is broken, over a limit, or says what cannot be enforced.
            MissingExtra: llguidance is not installed.
        """
        check_kind(spec)
        self.warm_up()
        return self._tool_calls(spec) if spec.kind == "tool_calls" else self._plain(spec)

    def begin(self, spec: GrammarSpec) -> Future[Constraint | ToolCallGrammar]:
        """`compile` on a thread of this object, for a loop that must not wait; llguidance lets others run."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(1, thread_name_prefix="grammar")
            return self._threads.submit(self.compile, spec)

    def close(self) -> None:
        """End the thread of `begin`; what has not begun is cancelled."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(cancel_futures=True)

    @property
    def num_cached(self) -> int:
        """Compiled grammars that are kept."""
        return len(self._cache)

    def _plain(self, spec: GrammarSpec) -> Constraint:
        return self._fresh(self._cached(spec, lambda: self._plain_matcher(spec)), spec)

    def _plain_matcher(self, spec: GrammarSpec) -> Matcher:
        if spec.kind not in ("json_object", "json_schema"):
            return self._checked(self._compiled(self._source(spec)), spec)
        schema = checked_schema(spec.text, self.limits) if spec.text else {"type": "object"}
        return self._schema_matcher(schema, _JSON_OPTIONS, spec.strict, spec)

    def _source(self, spec: GrammarSpec) -> str:
        """The grammar in llguidance's own JSON form."""
        if spec.kind == "lark":
            return json.dumps({"grammars": [{"lark_grammar": checked_lark(spec.text, self.limits)}]})
        if spec.kind == "regex":
            return _regex_source(checked_regex(spec.text, self.limits))
        return _regex_source("|".join(map(_escaped, checked_choices(spec.text, self.limits))))

    def _tool_calls(self, spec: GrammarSpec) -> ToolCallGrammar:
        if len(spec.text.encode()) > self.limits.max_bytes:
            raise InvalidRequest(f"the tools take more than {self.limits.max_bytes} bytes; offer fewer")
        rules = ToolRules.from_text(spec.text)
        calls = self._cached(
            spec, lambda: self._schema_matcher(rules.schema(), _CALL_OPTIONS, rules.strict, spec)
        )
        answer = None
        if rules.answer is not None:
            check_kind(rules.answer)
            answer = self._plain(rules.answer)
        return ToolCallGrammar(
            rules, lambda: self._fresh(calls, spec), answer, self._tokenizer, self._vocab_size
        )

    def _cached(self, spec: GrammarSpec, build: Callable[[], Matcher]) -> Matcher:
        with self._lock:
            matcher = self._cache.get(spec)
            if matcher is not None:
                self._cache.move_to_end(spec)
        if matcher is None:
            matcher = build()
            self._keep(spec, matcher)
        return matcher

    def _fresh(self, matcher: Matcher, spec: GrammarSpec) -> Constraint:
        stop_ids = self._tokenizer.tokens.stop_ids
        return Constraint(
            matcher.deep_copy(), self._usable, stop_ids, _called(spec), lambda: self._forget(spec)
        )

    def _schema_matcher(
        self, schema: dict[str, Any], options: dict[str, Any], strict: bool, spec: GrammarSpec
    ) -> Matcher:
        """Compile a schema; without `strict` once more without what the compiler stumbled over, if it did."""
        matcher = self._compiled(_schema_source(schema, options, strict))
        if not strict and matcher.is_error():
            schema, passed = without_impossible(schema, self._can_match)
            for keyword, count in passed.items():
                _log.warning("%s: passed over: %s, %d times", _called(spec), keyword, count)
            matcher = self._compiled(_schema_source(schema, options, strict)) if passed else matcher
        return self._checked(matcher, spec)

    def _can_match(self, pattern: str) -> bool:
        tiny = {"type": "string", "pattern": pattern}
        return not self._compiled(_schema_source(tiny, _JSON_OPTIONS, strict=False)).is_error()

    def _compiled(self, source: str) -> Matcher:
        from llguidance import LLMatcher

        return LLMatcher(self._native, source, log_level=0, limits=self._native_limits)

    def _checked(self, matcher: Matcher, spec: GrammarSpec) -> Matcher:
        what = _called(spec)
        if matcher.is_error():
            raise InvalidRequest(f"{what} cannot be used: {first_reason(matcher.get_error())}; correct it")
        for warning in matcher.get_grammar_warnings():
            _log.warning("%s: passed over: %s", what, first_reason(warning))
        self._fresh(matcher, spec).allowed()  # shows whether there is any answer at all
        return matcher

    def _keep(self, spec: GrammarSpec, matcher: Matcher) -> None:
        with self._lock:
            self._cache[spec] = matcher
            while len(self._cache) > 1 and sum(map(_weight, self._cache)) > self._cache_bytes:
                self._cache.popitem(last=False)

    def _forget(self, spec: GrammarSpec) -> None:
        """Copies share the lexer: one that hit a limit would stop the answers that come after it, too."""
        with self._lock:
            self._cache.pop(spec, None)


class _Vocabulary:
    """What llguidance asks of a tokenizer: the bytes of each id, and how text is cut into ids."""

    def __init__(self, tokenizer: Phi4Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.tokens.end
        self.bos_token_id: int | None = None
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(vocab_size)]
        self.special_token_ids = sorted(tokenizer.control_ids)

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode_text(text.decode() if isinstance(text, bytes) else text)


def _called(spec: GrammarSpec) -> str:
    return "the schemas of the tools" if spec.kind == "tool_calls" else f"the {spec.kind} grammar"


def _weight(spec: GrammarSpec) -> int:
    """Estimated bytes of a compiled grammar."""
    return 192 * 1024 + 128 * len(spec.text)


def _schema_source(schema: dict[str, Any], options: dict[str, Any], strict: bool) -> str:
    # Whatever a schema says under this key of the compiler's own is replaced.
    schema = {**schema, "x-guidance": {**options, "lenient": not strict}}
    return json.dumps({"grammars": [{"json_schema": schema}]}, ensure_ascii=False)


def _regex_source(regex: str) -> str:
    from llguidance import regex_to_lark

    # "d": a digit is 0 to 9. Rust's \d takes those of every script, which no reader of \d{4} expects.
    return json.dumps({"grammars": [{"lark_grammar": f"start: /{regex_to_lark(regex, 'd')}/"}]})


def _escaped(text: str) -> str:
    """An expression that matches `text` alone."""
    return "".join(char if char in _PLAIN else f"\\x{{{ord(char):x}}}" for char in text)
