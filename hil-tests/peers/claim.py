"""Claims boxes by other people's programs: python-zeroconf, warner's spake2, noiseprotocol; written from ADR 0028 alone.

    claim.py browse SECONDS                  what is found by multicast DNS, as JSON
    claim.py claim ADDRESS PORT CODE [--break-off] [NAME=FILE]...
                                             claims a box, and prints what it says, a line of JSON each; with --break-off
                                             hangs up when the box has answered

Runs with the Python that `ci/install claim` put them beside.
"""

import hashlib
import hmac
import json
import socket
import struct
import sys
import time

FILES = ("first-boot.bundle", "altnet.toml", "hostname", "release-keys")
SAID = ("not-taken", "taken", "all-taken", "restarts", "waits", "joined", "failed")
STATES = ("open", "time-over", "tries-used", "busy")
LABEL = b"altnet claim 1"
PART = 4000


def main(words: list[str]) -> None:
    if words[0] == "browse":
        print(json.dumps(browse(float(words[1]))))
        return
    _, address, port, code, *rest = words
    files = [word.split("=", 1) for word in rest if "=" in word]
    claim(socket.create_connection((address, int(port)), timeout=30), code, files, "--break-off" in rest)


def browse(seconds: float) -> list[dict]:
    """Every box that answers, with what it says of itself."""
    from zeroconf import IPVersion, ServiceBrowser, Zeroconf

    kind, names = "_altnet-setup._tcp.local.", []

    class Listener:
        def add_service(self, _zeroconf, _kind, name):
            names.append(name)

        def update_service(self, *_):
            pass

        def remove_service(self, _zeroconf, _kind, name):
            names.remove(name)

    with Zeroconf(ip_version=IPVersion.All) as zeroconf:
        ServiceBrowser(zeroconf, kind, Listener())
        time.sleep(seconds)
        found = [zeroconf.get_service_info(kind, name, timeout=3000) for name in names]
        return [
            {
                "name": info.name, "server": info.server, "port": info.port, "addresses": info.parsed_addresses(),
                **{key.decode(): value.decode() for key, value in info.properties.items()},
            }
            for info in found if info
        ]


def claim(stream: socket.socket, code: str, files: list[list[str]], breaks_off: bool) -> None:
    """Says what the ADR says that a computer says."""
    from noise.connection import Keypair, NoiseConnection
    from spake2 import SPAKE2_A

    hello = receive(stream)
    version, state, key, tries, seconds = hello[0], STATES[hello[1]], hello[2:34], hello[34], struct.unpack(">H", hello[35:37])[0]
    tell(event="hello", version=version, state=state, tries=tries, seconds=seconds, fingerprint=fingerprint(key))
    if state != "open" or not code:
        return
    pake = SPAKE2_A(code.replace("-", "").encode(), idA=LABEL + b" computer", idB=LABEL + b" box" + key)
    asked = pake.start()
    send(stream, asked)
    answered = receive(stream)
    if not answered:
        tell(event="refused")
        return
    if breaks_off:
        tell(event="broken-off")
        stream.close()
        return
    transcript = hashlib.sha256(LABEL + hello + asked + answered).digest()
    keys = hkdf(transcript, pake.finish(answered), LABEL + b" keys", 96)
    noise = NoiseConnection.from_name(b"Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s")
    noise.set_as_initiator()
    noise.set_prologue(LABEL + transcript)
    noise.set_psks(keys[64:])
    noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, key)
    noise.start_handshake()
    send(stream, mac(keys[:32], transcript) + bytes(noise.write_message()))
    answer = receive(stream)
    if not answer:
        tell(event="wrong-code")
        return
    assert hmac.compare_digest(answer[:32], mac(keys[32:64], transcript)), "the box doesn't have the code"
    noise.read_message(answer[32:])
    assert noise.handshake_finished
    tell(event="paired")
    for name, path in files:
        with open(path, "rb") as file:
            whole = file.read()
        send(stream, noise.encrypt(bytes([0, FILES.index(name)]) + varint(len(whole))))
        for at in range(0, len(whole), PART):
            part = whole[at:at + PART]
            send(stream, noise.encrypt(b"\x01" + varint(len(part)) + part))
    if files:
        send(stream, noise.encrypt(b"\x02"))
    stream.settimeout(120)
    while files and (sealed := receive(stream)):
        kind, *rest = noise.decrypt(sealed)
        event, text = SAID[kind], bytes(rest)
        name = FILES[text[0]] if event in ("not-taken", "taken") else None
        said = None if event in ("taken", "all-taken", "restarts") else text_of(text[1:] if name else text)
        tell(event=event, name=name, said=said)
        if event in ("joined", "failed"):
            return


def text_of(data: bytes) -> str:
    """A text as postcard writes it."""
    length = shift = 0
    for at, octet in enumerate(data):
        length |= (octet & 0x7F) << shift
        shift += 7
        if octet < 0x80:
            break
    text = data[at + 1:]
    assert len(text) == length, "a text isn't as long as it says"
    return text.decode()


def fingerprint(key: bytes) -> str:
    digits = hashlib.sha256(LABEL + b" fingerprint" + key).hexdigest()[:20]
    return "-".join(digits[at:at + 4] for at in range(0, 20, 4))


def hkdf(salt: bytes, key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256."""
    inner, out, block = mac(salt, key), b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = mac(inner, block + info + bytes([number]))
        out += block
    return out[:length]


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def send(stream: socket.socket, message: bytes) -> None:
    stream.sendall(struct.pack(">H", len(message)) + message)


def receive(stream: socket.socket) -> bytes:
    """The next message; nothing at the end."""
    try:
        head = exactly(stream, 2)
        return exactly(stream, struct.unpack(">H", head)[0]) if head else b""
    except ConnectionResetError:
        return b""


def exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            return b""
        data += more
    return data


def tell(**what) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
