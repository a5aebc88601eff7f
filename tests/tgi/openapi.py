"""Holding JSON to an OpenAPI 3.0 document: as much of the schema language as TGI's own document uses."""

from __future__ import annotations

import json
from pathlib import Path

# The document is TGI's (3.3); it lies beside the repository and is not part of it.
DOCUMENT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tgi_openapi.json"
TYPES = {
    "string": str,
    "boolean": bool,
    "array": list,
    "object": dict,
    "integer": int,
    "number": (int, float),
}


class Violation(Exception):
    """JSON that the document does not allow."""


class OpenAPI:
    def __init__(self, document):
        self.document = document
        self.schemas = document["components"]["schemas"]

    @classmethod
    def of_tgi(cls):
        return cls(json.loads(DOCUMENT.read_text())) if DOCUMENT.exists() else None

    def check_request(self, route, body):
        content = self.document["paths"][route]["post"]["requestBody"]["content"]
        self.check(content["application/json"]["schema"], body, "request")

    def check_reply(self, method, route, status, body):
        replies = self.document["paths"][route][method]["responses"]
        if str(status) not in replies:
            raise Violation(f"{route} has no reply with status {status}")
        content = replies[str(status)].get("content")
        if content:
            self.check(content["application/json"]["schema"], body, f"reply {status}")

    def check(self, schema, value, where):
        """Raise a Violation where a value is not what the schema says."""
        if "$ref" in schema:
            return self.check(self.schemas[schema["$ref"].rpartition("/")[2]], value, where)
        if value is None:
            if schema.get("nullable"):
                return None
            raise Violation(f"{where} must not be null")
        for part in schema.get("allOf", ()):
            self.check(part, value, where)
        if "oneOf" in schema:
            self._check_one_of(schema["oneOf"], value, where)
        if "enum" in schema and value not in schema["enum"]:
            raise Violation(f"{where} is {value!r}, not one of {schema['enum']}")
        if "type" in schema:
            self._check_type(schema, value, where)
        return None

    def _check_one_of(self, schemas, value, where):
        broken = []
        for schema in schemas:
            try:
                self.check(schema, value, where)
            except Violation as violation:
                broken.append(str(violation))
        if len(broken) == len(schemas):
            raise Violation("; or ".join(broken))

    def _check_type(self, schema, value, where):
        kind = schema["type"]
        is_bool = isinstance(value, bool)
        if not isinstance(value, TYPES[kind]) or (is_bool and kind != "boolean"):
            raise Violation(f"{where} is {value!r}, not of type {kind}")
        if kind == "object":
            self._check_object(schema, value, where)
        elif kind == "array":
            if len(value) > schema.get("maxItems", len(value)):
                raise Violation(f"{where} has {len(value)} items")
            for i, item in enumerate(value):
                self.check(schema["items"], item, f"{where}[{i}]")
        elif kind in ("integer", "number"):
            self._check_range(schema, value, where)

    def _check_object(self, schema, value, where):
        missing = [name for name in schema.get("required", ()) if name not in value]
        if missing:
            raise Violation(f"{where} lacks {missing}")
        for name, part in schema.get("properties", {}).items():
            if name in value:
                self.check(part, value[name], f"{where}.{name}")

    def _check_range(self, schema, value, where):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            raise Violation(f"{where} is {value}, out of range")
        if "exclusiveMinimum" in schema and not value > schema["exclusiveMinimum"]:
            raise Violation(f"{where} is {value}, not above {schema['exclusiveMinimum']}")

    def unknown(self, name, value):
        """Keys of an object that its schema does not know: a client that sends them expects what will not happen."""
        return sorted(value.keys() - self.schemas[name]["properties"].keys())
