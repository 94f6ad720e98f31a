#!/usr/bin/env python3
"""What the daemon answers, held against what was recorded of Golem's clients, and against what every
answer has to be.

    conformance/recorded.py TRANSCRIPT..     learns recorded.json from transcripts (a JSON object a line)
"""

import json
import re
import sys
from datetime import datetime
from pathlib import Path

FILE = Path(__file__).resolve().parent / "recorded.json"
# Long polls, and how long they wait if the client does not say.
POLLS = re.compile(r"/(events|agreementEvents|invoiceEvents|debitNoteEvents|paymentEvents)$|/exec/\{\}$|/wait$")
PATIENCE = 5.0
OPTIONAL = ["timeout"]
# Clocks and the way through the wire.
GRACE = 0.1
DATE = re.compile(r"^\d{4}-\d\d-\d\dT[\d:]+(\.\d+)?")


def template(path):
    """A path with its ids taken out."""
    words = path.split("/")
    return "/".join("{}" if re.search(r"\d", w) and not re.fullmatch(r"v\d", w) else w for w in words)


def shape(value):
    """What kind of value this is, without what it says."""
    if isinstance(value, dict):
        fields = {name: shape(inner) for name, inner in value.items()}
        # The client's own words come back as they were.
        if "issuerId" not in value or value.get("state") != "Initial":
            fields = {name: "any" if name == "properties" else inner for name, inner in fields.items()}
        return {"kind": value.get("eventType", "object"), "fields": fields, "always": sorted(fields)}
    if isinstance(value, list):
        kinds = {}
        for inner in map(shape, value):
            name = inner["kind"] if isinstance(inner, dict) else str(inner)
            kinds[name] = merged(kinds.get(name, inner), inner)
        return {"kind": "list", "of": kinds}
    kinds = {bool: "truth", int: "number", float: "number", str: "text", type(None): "null"}
    return kinds[type(value)]


def merged(one, other):
    """What both are; what may be nothing may be anything."""
    if one == other:
        return one
    if not isinstance(one, dict) or not isinstance(other, dict) or one["kind"] != other["kind"]:
        return "any"
    if one["kind"] == "list":
        names = {*one["of"], *other["of"]}
        return {"kind": "list", "of": {n: merged(one["of"].get(n, other["of"].get(n)), other["of"].get(n, one["of"].get(n))) for n in sorted(names)}}
    fields = dict(one["fields"])
    for name, inner in other["fields"].items():
        fields[name] = merged(fields.get(name, inner), inner)
    return {"kind": one["kind"], "fields": fields, "always": sorted({*one["always"]} & {*other["always"]})}


def differences(wanted, got, where="the answer"):
    """Where a value is not of the wanted shape."""
    if wanted in ("any", "null"):
        return []
    if isinstance(wanted, str):
        return [] if shape(got) == wanted else [f"{where} is {json.dumps(got)[:80]}, not {wanted}"]
    if wanted["kind"] == "list":
        if not isinstance(got, list):
            return [f"{where} is no list"]
        found = []
        for inner in got:
            kind = inner.get("eventType", "object") if isinstance(inner, dict) else shape(inner)
            kind = kind if isinstance(kind, str) else kind["kind"]
            # An event that was not recorded is another event.
            if kind in wanted["of"]:
                found += differences(wanted["of"][kind], inner, f"{where}[{kind}]")
            elif not isinstance(inner, dict) and wanted["of"]:
                found.append(f"{where} has {json.dumps(inner)[:80]}")
        return found
    if not isinstance(got, dict):
        return [f"{where} is {json.dumps(got)[:80]}, not an object"]
    found = [f"{where} has no {name}" for name in wanted["always"] if name not in got]
    for name, inner in wanted["fields"].items():
        if name in got:
            found += differences(inner, got[name], f"{where}.{name}")
    return found


def texts(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def date(text):
    return datetime.fromisoformat(text.replace(" ", "+").replace("Z", "+00:00"))


class Recorded:
    """What was recorded."""

    def __init__(self, answers):
        self.answers = answers

    @classmethod
    def read(cls):
        return cls(json.loads(FILE.read_text()))

    def judge(self, exchanges):
        """What is wrong with these, how many were recorded likewise, and how many polls waited."""
        wrong, known, polls = set(), 0, 0
        for exchange in exchanges:
            if exchange.answer is None or exchange.status == 101:
                continue
            name = f"{exchange.method} {template(exchange.path)}"
            found = always(exchange)
            if name in self.answers:
                known += 1
                found += self._as_recorded(name, exchange)
            if POLLS.search(template(exchange.path)) and exchange.content_type != "text/event-stream":
                polls += 1
                found += poll(exchange)
            wrong |= {f"{name}: {what}" for what in found}
        return sorted(wrong), known, polls

    def _as_recorded(self, name, exchange):
        recorded = self.answers[name].get(str(exchange.status))
        if recorded is None:
            if exchange.status >= 300:
                return []
            return [f"{exchange.status}, where {', '.join(self.answers[name])} was recorded"]
        if recorded["type"] != exchange.content_type:
            return [f"it is {exchange.content_type or 'of no type'}, where {recorded['type']} was recorded"]
        if recorded["shape"] == "null":
            rest = exchange.answer.body.strip()
            return [] if rest in (b"null", b"") else [f"{rest[:80]} instead of nothing"]
        # What a client may leave out of its request is left out of the answer too.
        optional = {f"the answer has no {name}" for name in OPTIONAL}
        return [d for d in differences(recorded["shape"], exchange.answer.json()) if d not in optional]


def always(exchange):
    """What no answer may be."""
    body = exchange.answer.json()
    if exchange.status >= 400 and not (isinstance(body, dict) and body.get("message")):
        return [f"{exchange.status} without a message: {exchange.answer.body[:80]}"]
    dates = (DATE.match(text) for text in texts(body))
    return [f"{d.group()} has more than microseconds" for d in dates if d and len(d.group(1) or "") > 7]


def poll(exchange):
    """Whether a long poll waited, and told nothing twice."""
    body = exchange.answer.json()
    if exchange.status not in (200, 408):
        return []
    patience = float(exchange.query.get("timeout", PATIENCE))
    nothing = body == [] or exchange.status == 408
    if "/exec/" in exchange.path and "commandIndex" not in exchange.query:
        nothing = not body or not body[-1]["isBatchFinished"]
    found = []
    if nothing and exchange.waited < patience - GRACE:
        found.append(f"nothing after {exchange.waited:.2f} s, where the client waits for {patience:g} s")
    after = exchange.query.get("afterTimestamp")
    if after and isinstance(body, list):
        old = [e["eventDate"] for e in body if date(e["eventDate"]) <= date(after)]
        found += [f"an event of {d} after {after}" for d in old]
    return found


def learn(files):
    """The shapes of recorded answers."""
    answers = {}
    for file in files:
        for line in Path(file).read_text().splitlines():
            row = json.loads(line)
            if row["kind"] != "http" or not isinstance(row["status"], int) or row["status"] == 101:
                continue
            known = answers.setdefault(f"{row['method']} {template(row['path'])}", {})
            kind = (row["resp_ct"] or "").split(";")[0]
            new = shape(row["resp"])
            old = known.get(str(row["status"]), {"shape": new})
            known[str(row["status"])] = {"type": kind, "shape": merged(old["shape"], new)}
    return answers


if __name__ == "__main__":
    FILE.write_text(json.dumps(learn(sys.argv[1:]), sort_keys=True, indent=1) + "\n")
