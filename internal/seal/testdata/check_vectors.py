#!/usr/bin/env python3
"""Checks the vectors of sealing and of lifecycle entries with Python's
standard library alone.

Written from docs/format-sealing.md and docs/format-lifecycle.md, not from the
Go code. The library has neither AES nor Ed25519, so there are small ones here:
slow, not constant in time, good enough to check vectors and to open what was
disclosed to you.

    check_vectors.py [sealing.json [lifecycle.json]]
"""
import base64
import hashlib
import hmac
import json
import os
import re
import sys
import zlib


class Malformed(Exception):
    pass


class Version(Exception):
    pass


class Open(Exception):
    pass


class TooLarge(Exception):
    pass


ERRORS = {"malformed": Malformed, "version": Version, "open": Open, "too_large": TooLarge}

# --- AES-256 in counter mode (FIPS 197, SP 800-38A) ---


def xtime(a):
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def make_sbox():
    exp, log, x = [0] * 256, [0] * 256, 1
    for i in range(255):
        exp[i], log[x] = x, i
        x ^= xtime(x)  # times 3, a generator
    box = []
    for a in range(256):
        b = exp[(255 - log[a]) % 255] if a else 0
        s = 0x63
        for i in range(5):
            s ^= ((b << i) | (b >> (8 - i))) & 0xFF
        box.append(s)
    return box


SBOX = make_sbox()


def expand_key(key):
    words, rcon = [list(key[i:i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        w = list(words[-1])
        if i % 8 == 0:
            w = [SBOX[b] for b in w[1:] + w[:1]]
            w[0] ^= rcon
            rcon = xtime(rcon)
        elif i % 8 == 4:
            w = [SBOX[b] for b in w]
        words.append([a ^ b for a, b in zip(words[i - 8], w)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def encrypt_block(keys, block):
    s = [a ^ b for a, b in zip(block, keys[0])]
    for n in range(1, 15):
        s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if n < 14:
            out = []
            for c in range(0, 16, 4):
                col = s[c:c + 4]
                every = col[0] ^ col[1] ^ col[2] ^ col[3]
                out += [col[i] ^ every ^ xtime(col[i] ^ col[(i + 1) % 4]) for i in range(4)]
            s = out
        s = [a ^ b for a, b in zip(s, keys[n])]
    return bytes(s)


def ctr(key, first, data):
    keys, count, out = expand_key(key), int.from_bytes(first, "big"), bytearray()
    for at in range(0, len(data), 16):
        stream = encrypt_block(keys, ((count + at // 16) % (1 << 128)).to_bytes(16, "big"))
        out += bytes(a ^ b for a, b in zip(data[at:at + 16], stream))
    return bytes(out)


# --- Ed25519 (RFC 8032 §5.1.7), verification only ---

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def ed_add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def ed_mul(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = ed_add(q, p)
        p, n = ed_add(p, p), n >> 1
    return q


def ed_point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - xx) % P or (not x and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def ed_verify(public, message, signature):
    a, r, s = ed_point(public), ed_point(signature[:32]), int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or not a or not r or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    base = ed_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    x, y = ed_mul(s, base), ed_add(r, ed_mul(h, a))
    return (x[0] * y[2] - y[0] * x[2]) % P == 0 and (x[1] * y[2] - y[1] * x[2]) % P == 0


# --- docs/format-sealing.md ---


def mac256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(prk, info, size):
    out, t, i = b"", b"", 1
    while len(out) < size:
        t = mac256(prk, t + info + bytes([i]))
        out, i = out + t, i + 1
    return out[:size]


def hkdf(secret, salt, info):
    return expand(mac256(salt, secret), info, 32)


def lp(*parts):
    parts = [p.encode() if isinstance(p, str) else p for p in parts]
    return b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def padded(n):
    unit = max(16, (1 << (n.bit_length() - 1)) // 16)
    return (n + unit - 1) // unit * unit


def base64url(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise Malformed("alphabet")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise Malformed("base64url")
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise Malformed("bits to spare")
    return data


def check_box(box):
    n = len(box) - 32
    if n <= 0 or padded(n) != n:
        raise Malformed("box size")


def box_keys(key):
    both = expand(key, b"kaizen-audit/box/v1", 64)
    return both[:32], both[32:]


def seal_body(key, info, body):
    enc, mac = box_keys(key)
    tag = mac256(mac, lp(info) + body)
    return tag + ctr(enc, tag[:16], body)


def body_of(key, info, box):
    enc, mac = box_keys(key)
    tag, body = box[:32], ctr(enc, box[:16], box[32:])
    if not hmac.compare_digest(tag, mac256(mac, lp(info) + body)):
        raise Open()
    return body


def one_text(data):
    """One JSON text without line ends."""
    if b"\n" in data:
        raise Malformed("line end")
    try:
        text = data.decode()
        json.loads(text)
    except ValueError:
        raise Malformed("not JSON")
    return text


def open_box(key, info, box, limit):
    check_box(box)
    body = body_of(key, info, box)
    data = body.rstrip(b"\0")
    if not data or padded(len(data)) != len(body):
        raise Malformed("padding")
    data, method = data[:-1], data[-1]
    if method == 1:
        out = data
    elif method == 2:
        d = zlib.decompressobj(-15, DICTIONARY)
        try:
            out = d.decompress(data, limit + 1)
        except zlib.error:
            raise Malformed("deflate")
        if len(out) <= limit and (not d.eof or d.unused_data):
            raise Malformed("deflate end")
    else:
        raise Malformed("method")
    if len(out) > limit:
        raise TooLarge()
    return out


def parse_envelope(text):
    parts = text.split(":")
    if parts[0] != "sealed" or len(parts) < 3:
        raise Malformed("prefix")
    if parts[1] != "v1":
        raise Version()
    if len(parts) != 4:
        raise Malformed("parts")
    handles = parts[2].split(".")
    for h in handles:
        if not re.fullmatch(r"[A-Za-z0-9_-]{12}", h):
            raise Malformed("handle")
    if handles != sorted(set(handles)) or len(handles) > 64:
        raise Malformed("order of handles")
    box = base64url(parts[3])
    check_box(box)
    return handles, box


def field_info(place, handles):
    return lp("kaizen-audit/field/v1", place["origin"], place["event_id"], place["pointer"], ".".join(handles))


def field_key(place, handles, keys):
    # The place's info names the handles whose keys are used.
    handles = sorted(handles)
    return hkdf(b"".join(keys[h] for h in handles), place["event_id"].encode(), field_info(place, handles))


def open_field(place, text, key, limit):
    handles, box = parse_envelope(text)
    return one_text(open_box(key, field_info(place, handles), box, limit))


def parse_line(text):
    m = re.fullmatch(r'\{"sealed":"([^"]*)"(.*)\}', text)
    if not m:
        raise Malformed("line")
    if m[1] != "v1":
        raise Version()
    m = re.fullmatch(r',"key":"([A-Za-z0-9_-]{12})","data":"([^"]*)"', m[2])
    if not m:
        raise Malformed("line")
    data = base64url(m[2])
    if len(data) <= 16:
        raise Malformed("data")
    check_box(data[16:])
    return m[1], data


def open_salted(under, info, data, limit):
    return open_box(hkdf(under, data[:16], info), info, data[16:], limit)


def open_line(origin, dek, text, limit):
    key_id, data = parse_line(text)
    line = one_text(open_salted(dek, lp("kaizen-audit/line/v1", origin, key_id), data, limit))
    if not line.startswith("{"):
        raise Malformed("no object")
    return line


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


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "..", "dictionary-1.txt"), "rb") as file:
    DICTIONARY = file.read()
check(read(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "vectors", "sealing.json")))
check_lifecycle(read(sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "vectors", "lifecycle.json")))
for failure in FAILED:
    print("WRONG", failure)
if FAILED or CHECKED < 150:
    sys.exit("%d of %d checks failed" % (len(FAILED), CHECKED))
print("%d checks, all as they must be" % CHECKED)
