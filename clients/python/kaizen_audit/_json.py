"""Events to JSON, and entries from it.

``encode`` never loses the fact: what JSON does not have gets its usual form
(a datetime its ISO text, bytes base64), and what has none becomes
``{"omitted": reason}``. Numbers keep their digits in both directions. The
reasons name types, never values.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence, Set, ValuesView
from typing import Any

# MAX_DEPTH is below the 128 levels that a trail takes (DESIGN section 4).
MAX_DEPTH = 120


class _NotPlain(Exception):
    """The event has something that json does not know."""


def _not_plain(value: object) -> object:
    raise _NotPlain


_plain = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_not_plain
)


def encode(event: Mapping[str, Any]) -> bytes:
    """One line of JSON without its newline. It fails for no value."""
    if type(event) is dict:
        try:
            # The C encoder; it takes one time in ten of the walk below.
            text = _plain.encode(event)
            if text.count("{") + text.count("[") <= MAX_DEPTH or _depth(event) <= MAX_DEPTH:
                return text.encode("utf-8")
        except (_NotPlain, ValueError, TypeError, RecursionError):
            pass
    out: list[str] = []
    _Walk(out).value(event, 0)
    return "".join(out).encode("utf-8")


def omitted(reason: str) -> dict[str, str]:
    """What stands for a value that can't be kept."""
    return {"omitted": reason}


_text = json.encoder.encode_basestring


def _quote(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # A pair of surrogates is the character that it means, a lone one is
        # U+FFFD: a trail has valid UTF-8 only.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _text(text)


def _depth(v: Any) -> int:
    """How deep containers of plain values nest; it stops past MAX_DEPTH."""
    depth, level = 0, [v]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            item
            for v in level
            for item in (v.values() if isinstance(v, dict) else v)
            if isinstance(item, (dict, list, tuple))
        ]
    return depth


class _Walk:
    """Writes any value as JSON, piece by piece."""

    def __init__(self, out: list[str]) -> None:
        self.put = out.append
        self.within: set[int] = set()

    def value(self, v: Any, depth: int) -> None:
        if v is None:
            self.put("null")
        elif v is True:
            self.put("true")
        elif v is False:
            self.put("false")
        elif isinstance(v, enum.Enum):
            self.value(v.value, depth)
        elif isinstance(v, str):
            self.put(_quote(v))
        elif isinstance(v, int):
            try:
                self.put(int.__repr__(v))
            except ValueError:  # Python limits the digits that it converts
                self.omit("an integer of more digits than Python converts")
        elif isinstance(v, float):
            if math.isfinite(v):
                self.put(float.__repr__(v))
            else:
                self.omit(f"the number {float.__repr__(v)} is not JSON")
        elif isinstance(v, decimal.Decimal):
            if v.is_finite():
                self.put(str(v))
            else:
                self.omit("a decimal that is not finite is not JSON")
        else:
            self.other(v, depth)

    def other(self, v: Any, depth: int) -> None:
        """Everything that is not a JSON scalar."""
        if isinstance(v, (datetime.datetime, datetime.date, datetime.time)):
            self.put(_quote(v.isoformat()))
        elif isinstance(v, datetime.timedelta):
            self.put(repr(v.total_seconds()))
        elif isinstance(v, uuid.UUID):
            self.put(_quote(str(v)))
        elif isinstance(v, (bytes, bytearray, memoryview)):
            self.put('{"base64":"' + base64.b64encode(bytes(v)).decode() + '"}')
        elif id(v) in self.within:
            self.omit("a value that holds itself")
        elif depth >= MAX_DEPTH:
            self.omit(f"nested deeper than {MAX_DEPTH} levels")
        else:
            self.within.add(id(v))
            try:
                self.nested(v, depth + 1)
            finally:
                self.within.discard(id(v))

    def nested(self, v: Any, depth: int) -> None:
        try:
            # Their own code is called before anything is written, so that its
            # failure is kept as a fact too.
            kind, plain = _plainer(v)
        except Exception as error:
            return self.omit(f"{_name(v)} can't be read: {type(error).__name__}")
        if kind == "object":
            self.object(plain, depth)
        elif kind == "set":
            # In the order of their JSON, so that a retry is the same event.
            self.put("[" + ",".join(sorted(self.apart(i, depth) for i in plain)) + "]")
        elif kind == "array":
            self.array(plain, depth)
        elif kind == "value":
            self.value(plain, depth)
        else:
            self.omit(f"{_name(v)} has no JSON form")

    def apart(self, v: Any, depth: int) -> str:
        out: list[str] = []
        walk = _Walk(out)
        walk.within = self.within
        walk.value(v, depth)
        return "".join(out)

    def object(self, items: Any, depth: int) -> None:
        self.put("{")
        seen: set[str] = set()
        for key, v in items:
            if key in seen:  # 1 and "1": a trail refuses a key that hides another
                n = 2
                while f"{key}#{n}" in seen:
                    n += 1
                key = f"{key}#{n}"
            self.put("," if seen else "")
            seen.add(key)
            self.put(_quote(key) + ":")
            self.value(v, depth)
        self.put("}")

    def array(self, items: Any, depth: int) -> None:
        self.put("[")
        for i, v in enumerate(items):
            if i:
                self.put(",")
            self.value(v, depth)
        self.put("]")

    def omit(self, reason: str) -> None:
        self.put('{"omitted":' + _quote(reason) + "}")


def _plainer(v: Any) -> tuple[str, Any]:
    """What v is in JSON's words, and a plain list, pairs or a value of it."""
    if isinstance(v, Mapping):
        return "object", [(_key(k), item) for k, item in v.items()]
    if isinstance(v, Set):
        return "set", list(v)
    if isinstance(v, (Sequence, collections.deque, ValuesView)):
        return "array", list(v)
    if isinstance(v, BaseException):
        return "object", [("type", type(v).__name__), ("message", str(v))]
    if isinstance(v, type):
        return "", None
    if callable(getattr(v, "model_dump", None)):  # pydantic 2
        return "value", v.model_dump()
    if dataclasses.is_dataclass(v):
        return "object", [(f.name, getattr(v, f.name)) for f in dataclasses.fields(v)]
    if hasattr(v, "__fields__") and callable(getattr(v, "dict", None)):  # pydantic 1
        return "value", v.dict()
    if callable(getattr(v, "tolist", None)):  # numpy
        return "value", v.tolist()
    if isinstance(v, os.PathLike):
        return "value", os.fspath(v)
    return "", None


def _key(k: Any) -> str:
    if isinstance(k, enum.Enum):
        k = k.value
    if isinstance(k, str):
        return k
    if k is None or isinstance(k, bool):
        return {None: "null", True: "true", False: "false"}[k]
    return str(k)


def _name(v: object) -> str:
    return f"{type(v).__module__}.{type(v).__qualname__}"


def _number(text: str) -> Any:
    """A float where it has these digits, else a Decimal of them."""
    f = float(text)
    if repr(f) == text:
        return f
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:  # an exponent past Decimal's
        return text


def _integer(text: str) -> Any:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        return decimal.Decimal(text)


_decoder = json.JSONDecoder(parse_float=_number, parse_int=_integer)


def decode(text: str) -> Any:
    """JSON with its numbers' digits kept."""
    return _decoder.decode(text)
