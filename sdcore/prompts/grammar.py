"""The prompt grammar of A1111's web interface: weights, escapes, BREAK, and what changes midway.

    (words)       weight * 1.1          [words]       weight / 1.1         nested: multiplied
    (words:1.3)   weight * 1.3          \\( \\) \\[ \\]   themselves           BREAK: a new chunk
    [a:b:0.4]     a, then b from 0.4 of the steps on; [b:0.4] adds, [a::0.4] takes away; a whole
                  number counts steps: [a:b:12]
    [a|b]         a and b in turns, another one each step
    a AND b:0.5   two prompts, each asked by itself and led towards with its weight: `compose`

When a prompt changes is counted as A1111's program counts, whose step n compares max(n, 1) <= when:
[a:b:12] tells a in steps 0 to 12, which are 13, and [a|b] tells a, a, b, a, b ... A change is tied
to the step: all that a solver asks within one step is told the same words.

A bracket that is never closed reaches to the end; one that closes nothing is a letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sdcore.errors import InputError

GRAMMARS = ("plain", "a1111")
ROUND, SQUARE = 1.1, 1 / 1.1  # what a pair of brackets does to the weight

LONGEST = 100_000  # letters of a prompt; one word of so many takes seconds to be cut into tokens
_DIGITS = 100  # of a number in a prompt
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*")
_LEXEME = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]+|\\$", re.DOTALL)
_CLOSER = {"(": ")", "[": "]"}
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_LOOKS_WEIGHTED = re.compile(
    r"""(?<!\\) \( [^()]+ : \s* [\d.]+ \s* \)    # (words:1.2)
    | (?<!\\) \[ [^\[\]]* : \s* [\d.]+ \s* \]  # [a:b:0.5]
    | \b BREAK \b""",
    re.VERBOSE,
)
_AND = re.compile(r"\bAND\b")
_ADAPTER = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")
_OPTION = "adapters are options: --lora FILE:0.8"


@dataclass(frozen=True)
class Part:
    """A stretch of words of one weight; `text` None: here a new chunk begins (BREAK)."""

    text: str | None
    weight: float = 1.0


@dataclass(frozen=True)
class Group:
    """Brackets and what is in them. `head` and `tail` are their text, to write it back."""

    head: str
    inner: tuple[Node, ...]
    tail: str
    factor: float


@dataclass(frozen=True)
class Switch:
    """`before`, and `after` once `when` is over."""

    before: tuple[Node, ...]
    after: tuple[Node, ...]
    when: str  # as typed: a share of the steps where it has a point, else a number of them

    def step(self, steps: int) -> int:
        """The first of `steps` steps (counted from 0) that is told `after`."""
        # In floats, as A1111 does: 0.29 of 100 steps are 28 to both.
        when = int(float(self.when) * (steps if "." in self.when else 1))
        return when + 1 if when else 0


@dataclass(frozen=True)
class Turns:
    """Each of `options` for a step, in turns."""

    options: tuple[tuple[Node, ...], ...]

    def at(self, step: int) -> tuple[Node, ...]:
        """The one whose turn it is in a step counted from 0."""
        return self.options[(max(step, 1) - 1) % len(self.options)]


Node = str | Group | Switch | Turns


def check_length(text: str) -> str:
    """`text`, or InputError where it is so long that to read it would take minutes."""
    if len(text) > LONGEST:
        raise InputError(f"a prompt has {len(text)} letters: at most {LONGEST} are read")
    return text


def check_grammar(name: str) -> str:
    """`name`, or InputError where there is no such grammar."""
    if name not in GRAMMARS:
        raise InputError(f"unknown grammar {name!r}: known are {', '.join(GRAMMARS)}")
    return name


def prompt_parts(prompt: str, grammar: str) -> tuple[tuple[str, float], ...]:
    """What AND joins in a prompt, each with its weight: one of weight 1 where there is none."""
    return ((prompt, 1.0),) if grammar == "plain" else compose(prompt)


def _shared(piece: str) -> tuple[str, float]:
    words, colon, last = piece.rpartition(":")
    number = _NUMBER.fullmatch(last) if colon else None
    return (piece, 1.0) if number is None else (words.rstrip(), float(number[1]))


def weigh(text: str) -> tuple[Part, ...]:
    """The words of a prompt with their weights. Raises InputError for what `parse` refuses.

    >>> [(p.text, p.weight) for p in weigh("a (red:1.5) house")]
    [('a ', 1.0), ('red', 1.5), (' house', 1.0)]
    """
    parts: list[Part] = []
    for words, weight in _weighed(parse(text), 1.0):
        for n, piece in enumerate(_BREAK.split(words)):
            if n:
                parts.append(Part(None))
            if not piece:
                continue
            if parts and parts[-1].text is not None and parts[-1].weight == weight:
                piece = f"{parts.pop().text}{piece}"
            parts.append(Part(piece, weight))
    return tuple(replace(p, text=p.text and _ESCAPE.sub(r"\1", p.text)) for p in parts)


def switches(text: str, steps: int) -> set[int]:
    """The steps (counted from 0) from which on the prompt reads differently."""
    nodes = parse(text)
    places = sorted({n for n in _switches(nodes, steps) if 0 < n < steps})
    words = [_written(nodes, n, steps) for n in (0, *places)]
    return {n for n, old, new in zip(places, words, words[1:], strict=False) if old != new}


def compose(text: str) -> tuple[tuple[str, float], ...]:
    """The prompts that AND joins, each with the weight behind its last colon, 1 without.

    The weights w_i of Liu et al. 2022 (arXiv 2206.01714, eq. 11); any sign. As in A1111, AND
    divides before any bracket is read.

    >>> compose("a red house AND a blue boat :0.5")
    (('a red house ', 1.0), (' a blue boat', 0.5))
    """
    pieces = _AND.split(text)
    if len(pieces) == 1:  # "a house at 5:30" is no weight
        return ((text, 1.0),)
    return tuple(map(_shared, pieces))


def at_step(text: str, step: int, steps: int) -> str:
    """The prompt as it reads in that step: every switch decided, all else as typed.

    >>> at_step("a (red:1.2) [house:boat:0.5]", step=6, steps=10)
    'a (red:1.2) boat'
    """
    return _written(parse(text), step, steps)


def looks_weighted(text: str) -> bool:
    """Whether a prompt has what the grammar would read as a weight or a switch with a number."""
    return _LOOKS_WEIGHTED.search(text) is not None


def adapter_warning(text: str) -> str | None:
    """The line for an adapter that is written into a prompt, where that is read as words."""
    found = _ADAPTER.search(text)
    return None if found is None else f"{found[0]!r} in a prompt is read as words: {_OPTION}"


def unclosed(text: str) -> bool:
    """Whether a prompt has a bracket that is never closed, and so reaches to the end."""
    return _unclosed(parse(text))


def parse(text: str) -> tuple[Node, ...]:
    """The brackets of a prompt as a tree.

    Raises InputError for adapters written into the prompt, which `tags` takes out, and for a text
    that is too long.
    """
    if found := _ADAPTER.search(check_length(text)):
        raise InputError(f"{found[0]!r} in a prompt is not read: {_OPTION}")
    try:
        return _sequence(_LEXEME.findall(text), 0, None)[0]
    except RecursionError:
        raise InputError("a prompt has hundreds of brackets inside each other") from None


def _sequence(lexemes: Sequence[str], at: int, opener: str | None) -> tuple[tuple[Node, ...], int]:
    """The nodes from `at` to the bracket that closes `opener`, and where that stands.

    Without an opener: to the end, brackets that close nothing being letters.
    """
    nodes: list[Node] = []
    closer = None if opener is None else _CLOSER[opener]
    while at < len(lexemes) and lexemes[at] != closer:
        if lexemes[at] in _CLOSER:
            node, at = _group(lexemes, at)
            nodes.append(node)
        else:
            nodes.append(lexemes[at])
            at += 1
    return tuple(nodes), at


def _group(lexemes: Sequence[str], at: int) -> tuple[Node, int]:
    """The brackets that open at `at`, and where the text goes on after them."""
    opener = lexemes[at]
    inner, end = _sequence(lexemes, at + 1, opener)
    tail = "" if end == len(lexemes) else lexemes[end]
    colons = [i for i, node in enumerate(inner) if node == ":"]
    number = None
    if tail and colons and all(isinstance(node, str) for node in inner[colons[-1] :]):
        last = "".join(map(str, inner[colons[-1] + 1 :]))
        number = _NUMBER.fullmatch(last)
        if number is not None and len(number[1]) > _DIGITS:
            raise InputError(f"a number in a prompt has {len(number[1])} digits: {_DIGITS} at most")
    if opener == "[" and "|" in inner and tail:
        return Turns(_divided(inner)), end + 1
    if opener == "[" and number is not None and len(colons) <= 2:
        before = inner[: colons[0]] if len(colons) == 2 else ()
        after = inner[(colons[0] + 1 if len(colons) == 2 else 0) : colons[-1]]
        if number[1].startswith("-"):
            raise InputError(f"a prompt changes after 0 steps or more, not after {number[1]}")
        return Switch(before, after, number[1]), end + 1
    factor = ROUND if opener == "(" else SQUARE
    if opener == "(" and number is not None:
        factor, tail = float(number[1]), "".join(map(str, inner[colons[-1] :])) + tail
        inner = inner[: colons[-1]]
    return Group(opener, inner, tail, factor), min(end + 1, len(lexemes))


def _divided(nodes: Sequence[Node]) -> tuple[tuple[Node, ...], ...]:
    """The nodes between the bars."""
    bars = [i for i, node in enumerate(nodes) if node == "|"]
    starts, ends = [0, *(i + 1 for i in bars)], [*bars, len(nodes)]
    return tuple(tuple(nodes[a:b]) for a, b in zip(starts, ends, strict=True))


def _weighed(nodes: Sequence[Node], weight: float) -> Iterator[tuple[str, float]]:
    for node in nodes:
        if isinstance(node, Group):
            yield from _weighed(node.inner, weight * node.factor)
        elif isinstance(node, Switch):  # as it begins; who wants another moment asks `at_step`
            yield from _weighed(node.before, weight)
        elif isinstance(node, Turns):
            yield from _weighed(node.at(0), weight)
        else:
            yield node, weight


def _inside(node: Node) -> Sequence[Node]:
    """All nodes that stand directly in another."""
    match node:
        case Group():
            return node.inner
        case Switch():
            return (*node.before, *node.after)
        case Turns():
            return tuple(inner for option in node.options for inner in option)
    return ()


def _unclosed(nodes: Sequence[Node]) -> bool:
    return any(
        (isinstance(node, Group) and not node.tail) or _unclosed(_inside(node)) for node in nodes
    )


def _switches(nodes: Sequence[Node], steps: int) -> Iterator[int]:
    for node in nodes:
        if isinstance(node, Switch):
            yield node.step(steps)
        elif isinstance(node, Turns):
            yield from range(2, steps)
        yield from _switches(_inside(node), steps)


def _written(nodes: Sequence[Node], step: int, steps: int) -> str:
    text = ""
    for node in nodes:
        if isinstance(node, Group):
            text += f"{node.head}{_written(node.inner, step, steps)}{node.tail}"
        elif isinstance(node, Switch):
            chosen = node.before if step < node.step(steps) else node.after
            text += _written(chosen, step, steps)
        elif isinstance(node, Turns):
            text += _written(node.at(step), step, steps)
        else:
            text += node
    return text
