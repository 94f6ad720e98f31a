#!/usr/bin/env python3
"""Writes golem_vpn/api.py: the calls that the package makes, as the daemon's OpenAPI document has them.

    python/generate.py OPENAPI           writes the file
    python/generate.py --check OPENAPI   says whether the file is as it would be written

OPENAPI is a file or a URL, such as http://127.0.0.1:7465/openapi.json of a running daemon.
"""

import json
import keyword
import re
import sys
import urllib.request
from pathlib import Path

FILE = Path(__file__).resolve().parent / "golem_vpn/api.py"
# The calls that the package makes, by the names that they have in it.
CALLS = {
    "me": "GET /me",
    "status": "GET /gvpn/v1/status",
    "offers": "GET /gvpn/v1/market/offers",
    "report": "GET /gvpn/v1/market/demands/{id}/report",
    "import_image": "POST /gvpn/v1/images",
    "image_info": "GET /registry/v1/image/info",
    "publish_file": "POST /gvpn/v1/files",
    "receive_file": "POST /gvpn/v1/files/receive",
    "close_file": "POST /gvpn/v1/files/close",
    "create_network": "POST /net-api/v1/net",
    "remove_network": "DELETE /net-api/v1/net/{id}",
    "edit_network": "PATCH /gvpn/v1/net/{id}",
    "add_node": "POST /net-api/v1/net/{id}/nodes",
    "members": "GET /gvpn/v1/net/{id}/members",
    "edit_member": "PATCH /gvpn/v1/net/{id}/members/{member}",
    "remove_member": "DELETE /gvpn/v1/net/{id}/members/{member}",
    "allocate": "POST /payment-api/v1/allocations",
    "release_allocation": "DELETE /payment-api/v1/allocations/{id}",
    "decorations": "GET /payment-api/v1/demandDecorations",
    "subscribe": "POST /market-api/v1/demands",
    "unsubscribe": "DELETE /market-api/v1/demands/{id}",
    "collect": "GET /market-api/v1/demands/{id}/events",
    "counter": "POST /market-api/v1/demands/{id}/proposals/{proposal}",
    "create_agreement": "POST /market-api/v1/agreements",
    "confirm": "POST /market-api/v1/agreements/{id}/confirm",
    "wait_for_approval": "POST /market-api/v1/agreements/{id}/wait",
    "terminate": "POST /market-api/v1/agreements/{id}/terminate",
    "create_activity": "POST /activity-api/v1/activity",
    "destroy_activity": "DELETE /activity-api/v1/activity/{id}",
    "usage": "GET /activity-api/v1/activity/{id}/usage",
    "run_script": "POST /activity-api/v1/activity/{id}/exec",
    "results": "GET /activity-api/v1/activity/{id}/exec/{batch}",
    "invoice_events": "GET /payment-api/v1/invoiceEvents",
    "invoice": "GET /payment-api/v1/invoices/{id}",
    "accept_invoice": "POST /payment-api/v1/invoices/{id}/accept",
}
HEAD = '''"""The calls of the daemon's API that this package makes. Written by `generate.py` from the daemon's
OpenAPI document; not to be changed by hand."""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, TypedDict, Union, cast
from urllib.parse import quote

from .http import Http
'''
CLASS = '''

class Api:
    """Calls to one daemon."""

    def __init__(self, http: Http):
        self.http = http
'''


class Types:
    """Python's types for the schemas that are used, and for those that these use."""

    def __init__(self, schemas):
        self._schemas, self.text, self._done = schemas, {}, {}

    def of(self, schema, name):
        """The type of a schema; `name` is what it is called if it needs a name."""
        if not schema:
            return "Any"
        if "$ref" in schema:
            return self._named(schema["$ref"].rsplit("/", 1)[1])
        if "enum" in schema:
            return f"Literal[{', '.join(json.dumps(word) for word in schema['enum'])}]"
        if "allOf" in schema:
            return self._object(self._whole(schema), name)
        if "oneOf" in schema:
            return self._one_of(schema["oneOf"], name)
        kind = schema.get("type")
        if isinstance(kind, list):
            inner = self.of({**schema, "type": next(k for k in kind if k != "null")}, name)
            return f"Optional[{inner}]"
        if kind == "array":
            return f"List[{self.of(schema.get('items'), name + 'Item')}]"
        if kind == "object":
            return self._object(schema, name) if "properties" in schema else "Dict[str, Any]"
        return {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}.get(kind, "Any")

    def _named(self, name):
        python = "".join(word[:1].upper() + word[1:] for word in re.split(r"\W", name))
        if name not in self._done:
            # What refers to itself finds its name.
            self._done[name] = python
            self._done[name] = self.of(self._schemas[name], python)
        return self._done[name]

    def _one_of(self, kinds, name):
        some = [kind for kind in kinds if kind != {"type": "null"}]
        types = [self.of(kind, name + self._tag(kind)) for kind in some]
        united = types[0] if len(set(types)) == 1 else f"Union[{', '.join(dict.fromkeys(types))}]"
        return united if len(some) == len(kinds) else f"Optional[{united}]"

    def _tag(self, kind):
        """What tells one of several kinds from the others."""
        words = [inner["enum"][0] for inner in kind.get("properties", {}).values() if len(inner.get("enum", [])) == 1]
        return "".join(word[:1].upper() + word[1:] for word in words)

    def _whole(self, schema):
        """An object of several parts, as one."""
        whole = {"properties": {}, "required": []}
        for part in schema.get("allOf", [schema]):
            part = self._schemas[part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part
            part = self._whole(part) if "allOf" in part else part
            whole["properties"].update(part.get("properties", {}))
            whole["required"] += part.get("required", [])
        return whole

    def _object(self, schema, name):
        fields = {field: self.of(inner, name + field[:1].upper() + field[1:]) for field, inner in sorted(schema["properties"].items())}
        must = [field for field in fields if field in schema.get("required", [])]
        may = [field for field in fields if field not in must]
        if any(map(keyword.iskeyword, fields)):
            # A class cannot have such a field. All of them may be left out here.
            inner = ", ".join(f'"{f}": {json.dumps(kind)}' for f, kind in fields.items())
            self.text[name] = f'{name} = TypedDict("{name}", {{{inner}}}, total=False)'
            return name
        lines = []
        if must and may:
            lines += [f"class _{name}(TypedDict):", *[f"    {f}: {fields[f]}" for f in must], "", ""]
        base, total = (f"_{name}", ", total=False") if must and may else ("TypedDict", "" if must else ", total=False")
        lines += [f"class {name}({base}{total}):", *[f"    {f}: {fields[f]}" for f in (may or must)]]
        self.text[name] = "\n".join(lines) if fields else f"{name} = Dict[str, Any]"
        return name


def call(name, where, operation, types):
    """The method of a call."""
    method, path = where.split(" ")
    title = "".join(word.capitalize() for word in name.split("_"))
    parameters, query = ["self"], []
    for parameter in operation.get("parameters") or []:
        if parameter["in"] == "path":
            parameters.append(f"{parameter['name']}: str")
    body = "None"
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        kind = types.of(content["application/json"]["schema"], f"{title}Body")
        optional = not operation["requestBody"].get("required")
        parameters.append(f"body: Optional[{kind}] = None" if optional else f"body: {kind}")
        body = "body"
    for parameter in sorted(operation.get("parameters") or [], key=lambda p: not p.get("required")):
        if parameter["in"] == "query":
            kind = types.of(parameter["schema"], title)
            must = parameter.get("required")
            parameters.append(f"{parameter['name']}: {kind if must else f'Optional[{kind}] = None'}")
            query.append(parameter["name"])
    good = next(answer for status, answer in sorted(operation["responses"].items()) if status.startswith("2"))
    answer = good.get("content", {}).get("application/json", {}).get("schema")
    kind = types.of(answer, f"{title}Answer") if answer else "None"
    text = re.sub(r"{(\w+)}", r"{quote(\1, safe='')}", path)
    asked = f'await self.http.ask("{method}", {"f" if text != path else ""}"{text}", {body}'
    asked += f", {{{', '.join(f'{json.dumps(q)}: {q}' for q in query)}}})" if query else ")"
    result = f"return cast({json.dumps(kind)}, {asked})" if kind not in ("Any", "None") else asked
    lines = [f"    async def {name}({', '.join(parameters)}) -> {kind}:"]
    if len(lines[0]) > 100:
        lines = [f"    async def {name}(", *[f"        {p}," for p in parameters], f"    ) -> {kind}:"]
    return "\n".join([*lines, f'        """`{where}`"""', f"        {result}"])


def written(document):
    """The text of the file."""
    types = Types(document["components"]["schemas"])
    calls = []
    for name, where in CALLS.items():
        method, path = where.split(" ")
        calls.append(call(name, where, document["paths"][path][method.lower()], types))
    return HEAD + "".join(f"\n\n{text}\n" for text in types.text.values()) + CLASS + "".join(f"\n{text}\n" for text in calls)


def read(source):
    if source.startswith("http"):
        with urllib.request.urlopen(source, timeout=30) as response:
            return json.load(response)
    return json.loads(Path(source).read_text())


def main(arguments):
    text = written(read(arguments[-1]))
    if arguments[0] != "--check":
        FILE.write_text(text)
    elif FILE.read_text() != text:
        sys.exit(f"{FILE} is not what the daemon's OpenAPI document says: write it again with generate.py")


if __name__ == "__main__":
    main(sys.argv[1:])
