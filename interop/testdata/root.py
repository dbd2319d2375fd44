#!/usr/bin/env python3
"""Recompute the Merkle root of a trail from its lines: root.py X.jsonl

Needs nothing but Python 3, and zstd for sealed segments. It does not check the
checkpoint's signature: any signed-note tool does.
"""
import base64, hashlib, itertools, pathlib, subprocess, sys


def lines(log, trail):
    """All lines in order: the segments by name, then the open one."""
    segments = {}
    for file in sorted(trail.glob("segments/*.jsonl*")):
        if not file.samefile(log):  # a seal just begun: the open segment is still in its old place
            segments[file.name[:20]] = file  # where both are, .jsonl.zst comes later and wins
    for file in [*segments.values(), log]:
        if file.suffix == ".zst":
            with subprocess.Popen(["zstd", "-dcq", file], stdout=subprocess.PIPE) as zstd:
                yield from zstd.stdout
            if zstd.returncode:
                sys.exit(f"{file.name}: zstd can't read it")
        else:
            with open(file, "rb") as plain:
                yield from plain


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root(lines):
    """The number of lines and their root (RFC 6962, section 2.1)."""
    size, perfect = 0, []  # roots of perfect subtrees, the largest first
    for line in lines:
        perfect.append(sha256(b"\x00", sha256(line.removesuffix(b"\n"))))
        size += 1
        n = size
        while n % 2 == 0:
            right, left = perfect.pop(), perfect.pop()
            perfect.append(sha256(b"\x01", left, right))
            n //= 2
    top = perfect.pop() if perfect else sha256()
    while perfect:
        top = sha256(b"\x01", perfect.pop(), top)
    return size, top


log = pathlib.Path(sys.argv[1])
trail = log.with_suffix(".trail")
origin, size, signed = (trail / "checkpoint").read_text().split("\n")[:3]
found, top = root(itertools.islice(lines(log, trail), int(size)))
print(f"{origin}: {found} lines, root {base64.b64encode(top).decode()}")
if found != int(size):
    sys.exit(f"the checkpoint covers {size} lines, {found} are there")
if top != base64.b64decode(signed):
    sys.exit(f"the checkpoint's root is {signed}")
