#!/usr/bin/env python3
"""A runtime for tests. It speaks Golem's runtime protocol; its name after the first `-` says how:
`unix`, `udp`, `tcp`, `dgram` (kinds of endpoint), `live` (follows changes of networks), `command` (has
no service mode), or in which way it misbehaves."""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

MODE = os.path.basename(sys.argv[0]).split("-", 1)[1]
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
RUN, KILL, SHUTDOWN, STATUS, RT_STATUS, NETWORK = 10, 11, 12, 20, 21, 30
UPDATE, LEAVE, RENAME = 100, 101, 102

# ---- protocol buffers


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def parse(data):
    fields, at = {}, 0

    def number():
        nonlocal at
        shift = result = 0
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        elif key & 7 == 1:
            value, at = data[at : at + 8], at + 8
        else:
            length = number()
            value, at = data[at : at + length], at + length
        fields.setdefault(key >> 3, []).append(value)
    return fields


def text(fields, number):
    return fields.get(number, [b""])[0].decode()


LOCK = threading.Lock()


def say(message):
    with LOCK:
        data = varint(len(message)) + message
        while data:
            data = data[os.write(1, data) :]


def answer(request, number, body=b""):
    say(field(2, request) + field(number, body))


def refuse(request, reason):
    say(field(2, request) + field(3, field(1, 2) + field(2, reason)))


def event(number, body):
    say(field(1, 1) + field(number, body))


def read_exactly(n):
    data = b""
    while len(data) < n:
        more = os.read(0, n - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data


def receive():
    length = shift = 0
    while True:
        byte = read_exactly(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return parse(read_exactly(length))


# ---- the payload's network: a TAP device in a namespace


def enter_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        open("/proc/self/setgroups", "w").write("deny")
        open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
        open("/proc/self/gid_map", "w").write(f"0 {gid} 1")


def ip(*args):
    subprocess.run(["ip", *args], check=True)


TAP = None
INTERFACES = {}


def open_tap():
    global TAP
    TAP = os.open(os.environ.get("GVPN_TUN", "/dev/net/tun"), os.O_RDWR)
    fcntl.ioctl(TAP, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x0002 | 0x1000))
    ip("link", "set", "lo", "up")
    # Its one link-local address is the one that it is given: the switch hears no other.
    ip("link", "set", "eth0", "addrgenmode", "none")
    ip("link", "set", "eth0", "mtu", "1400", "up")


def configure(network):
    """The addresses of a network, new or changed."""
    wanted = [a.decode() for a in network.get(101, [])]
    if not wanted:
        bits = sum(bin(int(part)).count("1") for part in text(network, 3).split("."))
        wanted = [f"{text(network, 4)}/{bits}"]
    set_addresses(text(network, 100), wanted)


def set_addresses(name, wanted):
    # Members of several networks may have one link-local address in all of them.
    others = [a for other, has in INTERFACES.items() if other != name for a in has]
    for address in INTERFACES.get(name, []):
        if address not in wanted + others:
            ip("addr", "del", address, "dev", "eth0")
    for address in wanted:
        if address not in INTERFACES.get(name, []) + others:
            nodad = ["nodad"] if ":" in address else []
            ip("addr", "add", address, "dev", "eth0", *nodad)
    INTERFACES[name] = wanted


def carry_stream(stream, prefix):
    def out():
        while True:
            frame = os.read(TAP, 65536)
            stream.sendall(struct.pack(prefix, len(frame)) + frame)

    threading.Thread(target=out, daemon=True).start()
    size = struct.calcsize(prefix)
    reader = stream.makefile("rb")
    while True:
        head = reader.read(size)
        if len(head) < size:
            return
        os.write(TAP, reader.read(struct.unpack(prefix, head)[0]))


def carry_datagrams(sock):
    peer = []

    def out():
        while True:
            frame = os.read(TAP, 65536)
            if peer:
                sock.sendto(frame, peer[0])

    threading.Thread(target=out, daemon=True).start()
    while True:
        frame, sender = sock.recvfrom(65536)
        peer[:] = [sender]
        if frame:
            os.write(TAP, frame)


def serve(listener, prefix):
    stream, _ = listener.accept()
    if MODE == "frame-half":
        stream.sendall(struct.pack(prefix, 100) + bytes(10))
        stream.close()
    elif MODE == "frame-huge":
        stream.sendall(struct.pack(">I", 1 << 30) + bytes(64))
    else:
        carry_stream(stream, prefix)


def endpoint(loopback):
    """Opens an endpoint, which is outside the payload's namespace; its field."""
    if MODE in ("tcp", "frame-huge"):
        listener = loopback["tcp"]
        threading.Thread(target=serve, args=(listener, ">I"), daemon=True).start()
        return field(5, "%s:%s" % listener.getsockname())
    if MODE == "udp":
        sock = loopback["udp"]
        threading.Thread(target=carry_datagrams, args=(sock,), daemon=True).start()
        return field(3, "%s:%s" % sock.getsockname())
    if MODE == "net-nowhere":
        return field(1, "/nonexistent/socket")
    path = os.path.abspath("net.sock")
    if not os.path.exists(path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        threading.Thread(target=serve, args=(listener, "=H"), daemon=True).start()
    return field(1, path)


# ---- programs


def run(pid, request):
    args = [text(request, 1)] + [a.decode() for a in request.get(2, [])]
    env = dict(os.environ)
    for entry in request.get(100, []):
        entry = parse(entry)
        env[text(entry, 1)] = text(entry, 2)
    try:
        child = subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        event(STATUS, field(1, pid) + field(2, 1) + field(5, f"{args[0]}: {error}"))
        event(STATUS, field(1, pid) + field(3, 127))
        return

    def forward(stream, number):
        while data := stream.read1(65536):
            event(STATUS, field(1, pid) + field(2, 1) + field(number, data))

    streams = [(child.stdout, 4), (child.stderr, 5)]
    threads = [threading.Thread(target=forward, args=stream, daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    code = child.wait()
    for thread in threads:
        # What it left running may hold its output open.
        thread.join(1)
    event(STATUS, field(1, pid) + field(3, code))


def flood(pid):
    while True:
        event(STATUS, field(1, pid) + field(2, 1) + field(4, b"x" * 65536))


def start():
    def tcp():
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return listener

    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    loopback = {"tcp": tcp(), "udp": udp}
    enter_namespace()
    pids = 0
    while True:
        request = receive()
        number = request[1][0]
        if 2 in request:
            hello = field(1, "0.1.0")
            if MODE == "live":
                hello += field(100, "networks/1") + field(100, "environment/1")
            answer(number, 4, hello)
        elif RUN in request:
            if MODE == "run-die":
                sys.exit("run-die: as told")
            if MODE == "run-hang":
                continue
            if MODE == "run-huge":
                os.write(1, b"\xff\xff\xff\x7f" + bytes(1000))
                continue
            answer(number, RUN, field(1, pids))
            target = flood if MODE == "run-flood" else run
            order = (pids,) if MODE == "run-flood" else (pids, parse(request[RUN][0]))
            threading.Thread(target=target, args=order, daemon=True).start()
            counter = field(1, "golem.usage.cpu_sec") + b"\x11" + struct.pack("<d", 1.5)
            event(RT_STATUS, field(2, counter))
            pids += 1
        elif NETWORK in request:
            if MODE == "net-refuse":
                refuse(number, "no network today")
                continue
            if MODE == "net-hang":
                continue
            if MODE == "net-none":
                answer(number, NETWORK)
                continue
            if TAP is None:
                open_tap()
            for network in parse(request[NETWORK][0]).get(1, []):
                configure(parse(network))
            answer(number, NETWORK, endpoint(loopback))
        elif UPDATE in request:
            configure(parse(request[UPDATE][0]))
            answer(number, UPDATE)
        elif LEAVE in request:
            name = text(parse(request[LEAVE][0]), 1)
            set_addresses(name, [])
            del INTERFACES[name]
            answer(number, LEAVE)
        elif RENAME in request:
            open("names", "w").write(text(parse(request[RENAME][0]), 2))
            answer(number, RENAME)
        elif SHUTDOWN in request:
            answer(number, SHUTDOWN)
            sys.exit(0)
        else:
            refuse(number, "unknown command")


def misbehave(phase):
    if MODE == f"{phase}-rubbish":
        os.write(1, b"hello, is anybody there? \xff\xfe" * 50)
        time.sleep(1000)
    elif MODE == f"{phase}-hang":
        # With a child that would outlive it, deaf to polite signals.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.run(["setsid", "sleep", "1000"])
    elif MODE == f"{phase}-die":
        sys.exit(f"{phase}-die: as told")
    elif MODE == f"{phase}-flood":
        while True:
            os.write(1, b"\x05{\x00\x00\x00\x00" * 10000)


def main():
    phase = next(arg for arg in sys.argv[1:] if arg in ("deploy", "start", "run", "--help"))
    if phase == "--help":
        return
    if phase == "deploy" and MODE == "deploy-rubbish":
        print("hello")
        return
    misbehave(phase)
    if phase == "deploy":
        valid = {"Err": "bad image"} if MODE == "deploy-refuse" else {"Ok": ""}
        mode = "empty" if MODE == "command" else "blocking"
        volumes = [{"name": "vol", "path": "/work"}]
        print("a line before", json.dumps({"valid": valid, "vols": volumes, "startMode": mode}))
    elif phase == "start":
        start()
    elif phase == "run":
        args = sys.argv[sys.argv.index("run") + 1 :]
        os.execvp(args[0], args)


main()
