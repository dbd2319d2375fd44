import collections
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import unittest
import uuid

import common  # noqa: F401
from kaizen_audit._json import MAX_DEPTH, decode, encode


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: int
    y: decimal.Decimal


class Dumps:
    def model_dump(self):
        return {"role": "user", "at": Point(1, decimal.Decimal("2.50"))}


class Breaks:
    def model_dump(self):
        raise RuntimeError("a secret that must not be shown")


class Values(unittest.TestCase):
    def test_values_that_are_not_json_keep_the_fact(self):
        utc = datetime.timezone.utc
        for value, want in (
            (decimal.Decimal("1.100"), "1.100"),
            (decimal.Decimal("-0"), "-0"),
            (decimal.Decimal("1E+30"), "1E+30"),
            (12345678901234567890123, "12345678901234567890123"),
            (0.1, "0.1"),
            (True, "true"),
            (datetime.datetime(2025, 10, 26, 10, 53, 45, 123000, utc), '"2025-10-26T10:53:45.123000+00:00"'),
            (datetime.date(2025, 10, 26), '"2025-10-26"'),
            (datetime.timedelta(seconds=1.5), "1.5"),
            (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
            (b"\x00\xff", '{"base64":"AP8="}'),
            (pathlib.PurePosixPath("/a/b"), '"/a/b"'),
            (Colour.RED, '"red"'),
            (Number.ONE, "1"),
            ({3, 1, 2}, "[1,2,3]"),
            (frozenset(["b", "a"]), '["a","b"]'),
            ((1, "x"), '[1,"x"]'),
            (range(3), "[0,1,2]"),
            (collections.deque([1]), "[1]"),
            (collections.OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
            (collections.ChainMap({"a": 1}), '{"a":1}'),
            (Point(1, decimal.Decimal("0.10")), '{"x":1,"y":0.10}'),
            (Dumps(), '{"role":"user","at":{"x":1,"y":2.50}}'),
            (ValueError("no"), '{"type":"ValueError","message":"no"}'),
            ({Colour.RED: 1, 2: 3, None: 4}, '{"red":1,"2":3,"null":4}'),
            ({1: "a", decimal.Decimal(1): "b", "1": "c", Colour.RED: b""}, None),
            ("\ud83d\ude00", '"\U0001f600"'),
            ("a\ud800b", '"a\ufffdb"'),
            ("\u2028\x00\x7f", '"\u2028\\u0000\x7f"'),
        ):
            with self.subTest(type(value).__name__):
                got = encode({"v": value}).decode("utf-8")
                if want is not None:
                    self.assertEqual(got, '{"v":' + want + "}")
                json.loads(got, object_pairs_hook=no_duplicates)

    def test_a_value_that_cant_be_kept_becomes_the_reason(self):
        deep = []
        for _ in range(MAX_DEPTH + 50):
            deep = [deep]
        itself = {}
        itself["me"] = itself
        for value, reason in (
            (float("nan"), "the number nan is not JSON"),
            (float("-inf"), "the number -inf is not JSON"),
            (decimal.Decimal("NaN"), "not finite"),
            (object(), "builtins.object has no JSON form"),
            (Dumps, "builtins.type has no JSON form"),
            ((i for i in ()), "generator has no JSON form"),
            (Breaks(), "can't be read: RuntimeError"),
            (10**5000, None),
            (deep, "nested deeper than"),
            (itself, "holds itself"),
        ):
            got = encode({"v": value, "w": 1}).decode("utf-8")
            with self.subTest(reason):
                self.assertEqual(json.loads(got)["w"], 1)
                self.assertNotIn("secret", got)
                if reason:
                    self.assertIn('{"omitted":"', got)
                    self.assertIn(reason, got)

    def test_the_same_value_twice_is_not_a_value_that_holds_itself(self):
        shared = {"a": {1, 2}}
        self.assertEqual(encode({"x": shared, "y": shared}), b'{"x":{"a":[1,2]},"y":{"a":[1,2]}}')

    def test_numbers_keep_their_digits_both_ways(self):
        text = '{"a":1.10,"b":1E400,"c":12345678901234567890.5,"d":45.2,"e":7,"f":1.0}'
        value = decode(text)
        self.assertEqual(encode(value).decode(), text.replace("1E400", "1E+400"))
        self.assertIs(type(value["d"]), float)
        self.assertIs(type(value["e"]), int)


def no_duplicates(pairs):
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), names
    return dict(pairs)
