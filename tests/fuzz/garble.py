"""Seeded ways to garble bytes, JSON and texts."""

import json
import math
from random import Random
from typing import Any

# What readers fall over: signs that steer a terminal, huge and tiny numbers, other types.
TEXTS = [
    "",
    " ",
    "x",
    "a\0b",
    "\x1b[31m\x9b1m",
    "\u202egnp",
    "../../x",
    "a" * 5000,
    "%s{0}",
    "é",
    "..",
]
NUMBERS = [
    0,
    -1,
    1,
    2,
    7,
    2**31,
    2**63,
    2**64,
    10**50,
    0.5,
    -0.0,
    1e-320,
    1e39,
    1e308,
    math.nan,
    math.inf,
]
VALUES: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [1, [2]],
    {"a": {"b": 1}},
    ["x", 1],
    *TEXTS,
    *NUMBERS,
]


def json_text(random: Random, value: Any) -> str:
    """`value` with one or two places of it garbled, sometimes so that it is JSON no more."""
    value = json.loads(json.dumps(value))
    for _ in range(random.randint(1, 2)):
        value = _changed(random, value)
    text = json.dumps(value)
    match random.randrange(12):
        case 0:
            return text[: random.randrange(len(text) + 1)]
        case 1 if text.startswith('{"'):  # a field stands twice
            return text.replace("{", '{"' + text[2:].partition('"')[0] + '": 1, ', 1)
        case 2:
            return text.replace("1", random.choice(["1" * 5000, "-0", "1e999", "01", "0x1"]), 1)
        case 3:
            return text.replace(":", ":" + "[" * random.choice([40, 100_000]), 1)
        case 4:
            return text.replace('"', random.choice(['"\\ud800', '"\\u001b[31m']), 2)
    return text


def _changed(random: Random, value: Any) -> Any:
    """One place of a value, at any depth, garbled."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        match random.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return value | {random.choice(TEXTS): value[key]}
            case _:
                return value | {key: _changed(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        changed = _changed(random, value[place])
        return random.choice([[*value[:place], changed, *value[place + 1 :]], value * 3, value[1:]])
    if type(value) in (int, float) and random.random() < 0.3:
        return random.choice([value + 1, -value, value * 1000, value / 2, str(value)])
    return random.choice(VALUES)


def data(random: Random, raw: bytes, most: int = 1 << 30) -> bytes:
    """Bytes with a few of the first `most` changed, cut, doubled or put elsewhere."""
    raw, most = bytearray(raw), min(most, len(raw))
    for _ in range(random.choice([1, 1, 1, 2, 8])):
        at = random.randrange(max(1, most))
        match random.randrange(5):
            case 0:
                raw[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del raw[at : at + random.choice([1, 4, 100])]
            case 2:
                raw[at:at] = random.randbytes(random.choice([1, 4, 100]))
            case 3:
                raw[at:at] = raw[at : at + 20]
            case 4:
                raw[at : at + 8] = random.choice(
                    [bytes(8), b"\xff" * 8, (1 << 40).to_bytes(8, "little")]
                )
    return bytes(raw)


def number(random: Random) -> str:
    """A number as somebody types it, or what looks like one."""
    return random.choice(
        [
            "0",
            "1",
            "2",
            "-1",
            "0.5",
            "1e999",
            "-1e999",
            "nan",
            "1e-320",
            "1e39",
            "9" * 5000,
            "0." + "0" * 5000,
        ]
        + [
            "",
            " 1",
            "1_0",
            "٣",
            "0x10",
            "1,2",
            "14.6,5,0",
            "1e308,1,0",
            "5,5,0",
            "3-1",
            "0-99999999",
            "x",
            "1;2",
        ]
    )


def prompt(random: Random) -> str:
    """Words and the signs of the grammar, in no order."""
    signs = [
        "(",
        ")",
        "[",
        "]",
        ":",
        "|",
        "\\",
        ",",
        " BREAK ",
        " AND ",
        ":1.2)",
        ":0.5]",
        "::",
        "<lora:x:1>",
        "{",
        "}",
        "__x__",
    ]
    words = [
        "red ",
        "a house",
        "9" * 200,
        "0.5",
        "é",
        "\u202e",
        "\x1b[31m",
        "\0",
        "<|endoftext|>",
        "☃",
        "(" * 50,
    ]
    return "".join(random.choice([*signs, *words]) for _ in range(random.randint(0, 25)))
