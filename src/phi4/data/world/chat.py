"""Small talk: greetings, who nano is and what it can do, and an honest answer to everything else.

The model is far too small to know the world, and is taught to say so instead of inventing answers.
"""

from __future__ import annotations

import numpy as np

from phi4.data.records import Record, Split, assistant, stream, user
from phi4.data.splits import draw, pick
from phi4.data.world.documents import printed
from phi4.data.world.sentences import sentence
from phi4.data.world.words import CONTENT_WORDS, POOLS
from phi4.types import Message

WHO = "I am phi4-nano, a very small model."
ABILITIES = "I can read text in pictures, listen to speech, look at charts, call tools and do sums."
UNKNOWN = f"I am a very small model and do not know that. {ABILITIES}"

EXCHANGES: dict[str, tuple[tuple[str, ...], str]] = {
    "greeting": (
        (
            "Hello!",
            "Hi",
            "Hello",
            "Hey there",
            "Good morning",
            "Good evening",
            "Hi there!",
            "Hello, how are you?",
        ),
        "Hello! What can I do for you?",
    ),
    "who": (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Are you a robot?",
            "Tell me who you are.",
            "Your name?",
        ),
        WHO,
    ),
    "abilities": (
        ("What can you do?", "How can you help me?", "What are you able to do?", "Help", "What do you know?"),
        ABILITIES,
    ),
    "thanks": (
        ("Thank you!", "Thanks", "Thank you very much.", "Great, thanks!", "Well done."),
        "You are welcome.",
    ),
    "goodbye": (("Goodbye", "Bye", "See you later.", "Good night", "I have to go."), "Goodbye!"),
}

STRANGE_QUESTIONS = (
    "What is the capital of {}?",
    "Who wrote the {} book?",
    "Explain {} to me.",
    "Write a poem about {}.",
    "What do you think about {}?",
    "How do I make {}?",
    "Why is {} so expensive?",
    "Tell me a joke about {}.",
    "When was {} invented?",
    "Who is the president of {}?",
    "Write a program for {}.",
    "What is the meaning of {}?",
    "Translate {} to French.",
    "Tell me about {}.",
)


def chat(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """One to three exchanges of small talk; every answer in them is learnt, the last one is asked for."""
    rng = stream("chat", split, seed, index)
    turns: list[Message] = []
    kind, question, answer = _exchange(rng, split)
    for _ in range(int(rng.integers(0, 3))):
        _, earlier, reply = _exchange(rng, split)
        turns += [user(earlier), assistant(reply)]
    prompt = (*turns, user(question))
    return Record("chat", split, index, prompt, assistant(answer), (answer,), metadata={"kind": kind})


def _exchange(rng: np.random.Generator, split: Split) -> tuple[str, str, str]:
    """Returns (kind, question, answer)."""
    kind = pick(rng, (*EXCHANGES, "unknown", "unknown", "say", "say", "spell"))
    if kind in EXCHANGES:
        questions, answer = EXCHANGES[kind]
        return kind, _loosely(pick(rng, questions), rng), answer
    if kind == "unknown":
        topics = CONTENT_WORDS + POOLS["subject"]
        asked = draw(rng, split, "chat", lambda r: pick(r, STRANGE_QUESTIONS).format(pick(r, topics)))
        return kind, asked, UNKNOWN
    if kind == "say":
        plain = sentence(rng, split)[0]
        said = pick(rng, (plain, printed(plain)))
        return kind, pick(rng, ("Say: {}", "Repeat: {}", "Say after me: {}")).format(said), said
    word = draw(rng, split, "chat", lambda r: pick(r, CONTENT_WORDS))
    return (
        kind,
        pick(rng, ("Spell {}.", "How is {} spelled?", "Spell the word {}.")).format(word),
        " ".join(word),
    )


def _loosely(question: str, rng: np.random.Generator) -> str:
    """People leave out capitals and stops."""
    style = int(rng.integers(4))
    return (question, question, question.lower(), question.rstrip("?!."))[style]
