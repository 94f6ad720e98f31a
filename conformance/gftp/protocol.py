"""`gftp server` as clients drive it: its methods and errors, and files of awkward sizes both ways."""

import asyncio
import hashlib
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
import golem_vpn  # noqa: E402

TAG = os.environ["CONFORMANCE_IMAGE_TAG"]
SIZES = [0, 1, 262_143, 262_144, 262_145, 20_000_003]


def check(what, good):
    if not good:
        raise AssertionError(what)
    print(f"ok   {what}", flush=True)


class Gftp:
    """A `gftp server`."""

    async def __aenter__(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec("gftp", "server", stdin=pipe, stdout=pipe)
        self.ids = itertools.count(1)
        return self

    async def __aexit__(self, *_):
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 30)

    async def line(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        return json.loads(await asyncio.wait_for(self.process.stdout.readline(), 60))

    async def ask(self, method, **params):
        request = {"jsonrpc": "2.0", "id": str(next(self.ids)), "method": method, "params": params}
        answer = await self.line(json.dumps(request))
        assert answer["id"] == request["id"], answer
        return answer.get("result", answer.get("error"))


async def errors(gftp, directory):
    code = lambda answer: answer["error"]["code"]
    check("what is not JSON", code(await gftp.line("nonsense")) == -32700)
    check("what is no request", code(await gftp.line("{}")) == -32600)
    check("an unknown method", (await gftp.ask("fly"))["code"] == -32601)
    check("wrong parameters", (await gftp.ask("publish", files="x"))["code"] == -32602)
    missing = await gftp.ask("publish", files=[str(directory / "missing")])
    check("a file that is not there", missing["code"] == -32000 and "missing" in missing["message"])
    nowhere = await gftp.ask("receive", output_file="/does/not/exist/file")
    check("a place that is not there", nowhere["code"] == -32000)
    check("an unknown URL", await gftp.ask("close", urls=["gftp://x/y"]) == ["error"])


async def both_ways(gftp, payload, directory):
    names = []
    for size in SIZES:
        name = directory / f"up{size}"
        name.write_bytes(os.urandom(size))
        names.append(str(name))
    links = await gftp.ask("publish", files=names)
    check("files are published together", [link["file"] for link in links] == names)
    for size, link in zip(SIZES, links):
        digest = hashlib.sha256(Path(link["file"]).read_bytes()).hexdigest()
        await payload.transfer(link["url"], "container:/tmp/file")
        seen = (await payload.run("sha256sum < /tmp/file")).stdout.split()[0]
        check(f"{size} bytes arrive whole", seen == digest)
        down = directory / f"down{size}"
        slot = await gftp.ask("receive", output_file=str(down))
        await payload.transfer("container:/tmp/file", slot["url"])
        check(f"{size} bytes come back whole", hashlib.sha256(down.read_bytes()).hexdigest() == digest)
    return links


async def refusals(gftp, payload, directory, links):
    async def fails(source, target):
        try:
            await payload.transfer(source, target)
        except golem_vpn.CommandFailed as error:
            return str(error)
        raise AssertionError(f"{source} to {target} was moved")

    changed = links[1]
    before = Path(changed["file"]).read_bytes()
    Path(changed["file"]).write_bytes(bytes(byte ^ 0xFF for byte in before))
    check("a file that has changed is not taken", "has changed" in await fails(changed["url"], "container:/tmp/x"))
    slot = await gftp.ask("receive", output_file=str(directory / "never"))
    await fails("container:/no/such/file", slot["url"])
    check("what is not there leaves nothing behind", not (directory / "never").exists())
    urls = [link["url"] for link in links]
    check("all are closed", await gftp.ask("close", urls=urls) == ["ok"] * len(urls))
    check("a closed one is gone", await fails(urls[2], "container:/tmp/x"))


async def main():
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with Gftp() as gftp, golem_vpn.connect() as vpn, vpn.rent(TAG, mem_gib=0.25) as payload:
            check("its version", await gftp.ask("version") >= "0.7.3")
            await errors(gftp, directory)
            links = await both_ways(gftp, payload, directory)
            await refusals(gftp, payload, directory, links)
            check("it ends when told to", await gftp.ask("shutdown") == "ok")


asyncio.run(main())
