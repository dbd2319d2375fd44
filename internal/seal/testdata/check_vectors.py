#!/usr/bin/env python3
"""Checks the vectors of sealing, of lifecycle entries and of pairs of keys with Python's
standard library alone: with the receiver's checker, kaizen_audit/check.py of the
Python client, which was written from docs/format-sealing.md and not from the Go
code.

    check_vectors.py [sealing.json [lifecycle.json [hpke.json]]]
"""
import base64
import hashlib
import json
import os
import re
import sys

here = os.path.dirname(os.path.abspath(__file__))
# The file by itself: the package around it needs the client.
sys.path.insert(0, os.path.join(here, "..", "..", "..", "clients", "python", "kaizen_audit"))
sys.dont_write_bytecode = True
from check import *  # noqa: E402,F403

ERRORS = {"malformed": Malformed, "version": Version, "open": Open, "too_large": TooLarge}

# --- the checks ---

FAILED = []
CHECKED = 0


def same(what, got, want):
    global CHECKED
    CHECKED += 1
    if got != want:
        FAILED.append("%s: %r, want %r" % (what, got, want))


def check_between(what, v, key, info, box):
    """Every value between the key and the box."""
    enc, mac = box_keys(key)
    same(what + ": info", info.hex(), v["info"])
    same(what + ": box key", key.hex(), v["box_key"])
    same(what + ": keys", (enc.hex(), mac.hex()), (v["enc_key"], v["mac_key"]))
    body = bytes.fromhex(v["body"])
    same(what + ": body", body_of(key, info, box), body)
    same(what + ": box", seal_body(key, info, body), box)


def refused(what, name, f):
    try:
        got = "opens to %r" % f()
    except tuple(ERRORS.values()) as e:
        got = type(e)
    same(what, got, ERRORS[name])


def unescape(pointer):
    return [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]


def unseal(line, origin, keys):
    """The entry as it was before its fields were sealed."""
    e = json.loads(line)
    for pointer in e["policy"].pop("sealed"):
        *way, last = unescape(pointer)
        at = e
        for name in way:
            at = at[name]
        place = {"origin": origin, "event_id": e["event_id"], "pointer": pointer}
        handles, _ = parse_envelope(at[last])
        at[last] = json.loads(open_field(place, at[last], field_key(place, handles, keys), 1 << 24))
    if not e["policy"]:
        del e["policy"]
    return e


def check(v):
    same("AES-256, FIPS 197 C.3", encrypt_block(expand_key(bytes(range(32))), bytes(range(0, 256, 17))).hex(),
         "8ea2b7ca516745bfeafc49904b496089")
    same("HKDF, RFC 5869 A.1", hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA))).hex(),
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")
    same("dictionary", hashlib.sha256(DICTIONARY).hexdigest(), v["dictionary_1"])
    for n, want in v["padding"]:
        same("padding of %d" % n, padded(n), want)
    keys = {s["handle"]: bytes.fromhex(s["key"]) for s in v["subjects"]}
    for f in v["fields"]:
        key = field_key(f, f["handles"], keys)
        handles, box = parse_envelope(f["envelope"])
        same(f["name"] + ": handles", handles, f["handles"])
        check_between(f["name"], f, key, field_info(f, handles), box)
        same(f["name"], open_field(f, f["envelope"], key, 1 << 24), f["value"])
    for l in v["lines"]:
        dek, (key_id, data) = bytes.fromhex(l["dek"]), parse_line(l["sealed"])
        info = lp("kaizen-audit/line/v1", l["origin"], key_id)
        same(l["name"] + ": key id", key_id, l["key_id"])
        check_between(l["name"], l, hkdf(dek, data[:16], info), info, data[16:])
        same(l["name"], open_line(l["origin"], dek, l["sealed"], 1 << 24), l["line"])
    for k in v["keys"]:
        data = base64url(k["wrapped"])
        info = lp("kaizen-audit/key/v1", k["origin"], k["purpose"], k["id"])
        check_between(k["name"], k, hkdf(bytes.fromhex(k["key"]), data[:16], info), info, data[16:])
        same(k["name"], open_salted(bytes.fromhex(k["key"]), info, data, 1 << 20).hex(), k["secret"])
    for r in v["refused_fields"]:
        def opening():
            parse_envelope(r["envelope"])
            key = bytes.fromhex(r["box_key"]) if "box_key" in r else field_key(r, r["handles"], keys)
            return open_field(r, r["envelope"], key, r["limit"])
        refused(r["name"], r["error"], opening)
    for r in v["refused_lines"]:
        refused("line: " + r["name"], r["error"], lambda: open_line(r["origin"], bytes.fromhex(r["dek"]), r["sealed"], 1 << 24))
    e = v["entry"]
    same("entry", unseal(e["sealed_fields"], v["fields"][0]["origin"], keys), json.loads(e["plain"]))
    same("digest", hashlib.sha256(e["sealed_fields"].encode()).hexdigest(), e["digest_of_sealed_fields"])
    same("digest of the sealed line", hashlib.sha256(e["sealed_line"].encode()).hexdigest(), e["digest_of_sealed_line"])


LIFECYCLE_KEY = {"AUDIT_CREATED": 0, "AUDIT_RECOVERY": 0, "AUDIT_SEAL": 0, "AUDIT_CLOCK": 0, "AUDIT_KEY": None,
                 "AUDIT_POLICY": 1, "AUDIT_HOLD": 1, "AUDIT_ERASURE": 1, "AUDIT_PRUNE": 1}


def lifecycle_valid(line, origin, writer, lifecycle):
    """docs/format-lifecycle.md §7.1, rules 1 and 2."""
    e = json.loads(line)
    if e["event_type"] not in LIFECYCLE_KEY or e["agent_id"] != "kaizen-audit" or e["trace_id"] != origin:
        return False
    permit = LIFECYCLE_KEY[e["event_type"]]
    if permit is None:
        permit = e["outputs"]["kind"] in ("signing", "lifecycle")
    text = e["metadata"].get("signature", "")
    if not re.fullmatch(r"[A-Za-z0-9+/]{86}==", text):
        return False
    # The last one: behind metadata no member has a name like it.
    head, found, tail = line.rpartition('"signature":"%s"' % text)
    message = head + '"signature":""' + tail
    emptied = json.loads(message)
    e["metadata"]["signature"] = ""
    spelled = json.dumps(e, ensure_ascii=False, separators=(",", ":")) == message
    return bool(found) and emptied == e and spelled and ed_verify(lifecycle if permit else writer, message.encode(), base64.b64decode(text))


def check_lifecycle(v):
    keys = [bytes.fromhex(v[k]["public"]) for k in ("writer", "lifecycle")]
    for l in v["lines"]:
        same("lifecycle: " + l["name"], lifecycle_valid(l["line"], v["origin"], *keys), True)
    for l in v["refused"]:
        same("lifecycle, not valid: " + l["name"], lifecycle_valid(l["line"], v["origin"], *keys), False)


# --- docs/format-sealing.md §6.11: RFC 9180 with P-256 and HKDF-SHA256, export only ---

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
CURVE_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
BASE = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def p256_add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def p256_mul(n, point):
    out = None
    while n:
        if n & 1:
            out = p256_add(out, point)
        point, n = p256_add(point, point), n >> 1
    return out


def p256_point(data):
    x, y = int.from_bytes(data[1:33], "big"), int.from_bytes(data[33:], "big")
    if len(data) != 65 or data[0] != 4 or (y * y - (x**3 - 3 * x + CURVE_B)) % P:
        raise Malformed("no point")
    return x, y


def p256_bytes(point):
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def exported(private, enc, info, context):
    """The secret of RFC 9180 §5.3 that the receiver of enc exports."""
    def extract(suite, salt, label, secret):
        return mac256(salt or bytes(32), b"HPKE-v1" + suite + label + secret)

    def expanded(suite, prk, label, context):
        return expand(prk, b"\x00\x20HPKE-v1" + suite + label + context, 32)

    kem, suite = b"KEM\x00\x10", b"HPKE\x00\x10\x00\x01\xff\xff"
    dh = p256_mul(private, p256_point(enc))[0].to_bytes(32, "big")
    shared = expanded(kem, extract(kem, b"", b"eae_prk", dh), b"shared_secret", enc + p256_bytes(p256_mul(private, BASE)))
    schedule = b"\x00" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    return expanded(suite, expanded(suite, secret, b"exp", schedule), b"sec", context)


def check_pair(v):
    private = int(v["private"], 16)
    public = p256_bytes(p256_mul(private, BASE))
    same("pair: public key", "kaizen-audit-seal-1:" + base64.urlsafe_b64encode(public).rstrip(b"=").decode(), v["public"])
    same("pair: id", base64.urlsafe_b64encode(hashlib.sha256(lp("kaizen-audit/kek-hpke/v1", public)).digest()[:9]).decode(), v["id"])
    enc, data = (base64url(part) for part in v["wrapped"].split("."))
    info = lp("kaizen-audit/key/v1", v["origin"], v["purpose"], v["name"])
    key = exported(private, enc, info, b"kaizen-audit/hpke/v1")
    same("pair: secret", open_salted(key, info, data, 1 << 20).hex(), v["secret"])
    try:
        open_salted(exported(private + 1, enc, info, b"kaizen-audit/hpke/v1"), info, data, 1 << 20)
        same("pair: another key", "opens", "does not open")
    except Open:
        same("pair: another key", "does not open", "does not open")


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


check(read(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "vectors", "sealing.json")))
check_lifecycle(read(sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "vectors", "lifecycle.json")))
check_pair(read(sys.argv[3] if len(sys.argv) > 3 else os.path.join(here, "vectors", "hpke.json")))
for failure in FAILED:
    print("WRONG", failure)
if FAILED or CHECKED < 150:
    sys.exit("%d of %d checks failed" % (len(FAILED), CHECKED))
print("%d checks, all as they must be" % CHECKED)
