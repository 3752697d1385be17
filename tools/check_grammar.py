#!/usr/bin/env python3
"""Draws answers with `longcat eval grammar` and has them judged by python's jsonschema.

usage: tools/check_grammar.py PROGRAM MODEL [N]

The schemas are in the style of agents' tools, plus one for each group of keywords. Needs the package
jsonschema; formats are not asserted, as the standard has it.
"""
import json
import subprocess
import sys
import tempfile

import jsonschema


def obj(properties, required=None, **more):
    return {"type": "object", "properties": properties,
            "required": list(properties) if required is None else required,
            "additionalProperties": False, **more}


TEXT = {"type": "string"}
SCHEMAS = {
    "bash": obj({"command": TEXT, "timeout": {"type": "number", "maximum": 600000},
                 "run_in_background": {"type": "boolean"}}, ["command"]),
    "read": obj({"file_path": TEXT, "offset": {"type": "integer", "minimum": 0, "maximum": 9007199254740991},
                 "limit": {"type": "integer", "exclusiveMinimum": 0}, "pages": TEXT}, ["file_path"]),
    "grep": obj({"pattern": TEXT, "glob": TEXT, "output_mode": {"enum": ["content", "files_with_matches", "count"]},
                 "-B": {"type": "number"}, "-i": {"type": "boolean"}}, ["pattern"]),
    "todo": obj({"todos": {"type": "array", "items": obj({"content": {"type": "string", "minLength": 1},
                "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
                "activeForm": {"type": "string", "minLength": 1}})}}),
    "ask": obj({"questions": {"type": "array", "minItems": 1, "maxItems": 4, "items": obj({
                "question": TEXT, "header": {"type": "string", "maxLength": 12},
                "options": {"type": "array", "minItems": 2, "maxItems": 4, "items": obj({"label": TEXT, "description": TEXT})},
                "multiSelect": {"type": "boolean", "default": False}})},
                "answers": {"type": "object", "propertyNames": TEXT, "additionalProperties": TEXT}}, ["questions"]),
    "fetch": obj({"url": {"type": "string", "format": "uri"}, "prompt": TEXT}),
    "task": obj({"to": {"anyOf": [{"type": "string", "pattern": "^[a-z0-9][a-z0-9-]*$", "maxLength": 64}, {"const": "*"}]},
                 "priority": {"type": "integer", "minimum": 1, "maximum": 5},
                 "meta": {"type": "object", "propertyNames": {"pattern": "^[a-z_]{1,16}$"}, "additionalProperties": {}}}, ["to"]),
    "cron": obj({"cron": {"type": "string", "pattern": r"^(\*|[0-9]{1,2})( (\*|[0-9]{1,2})){4}$"},
                 "at": {"type": ["string", "null"], "format": "date-time"}}),
    "numbers": obj({"a": {"type": "number", "minimum": 0, "maximum": 1}, "b": {"type": "number", "exclusiveMinimum": -2.5, "exclusiveMaximum": 0.125},
                    "c": {"type": "integer", "minimum": -17, "maximum": 1203}, "d": {"type": "number", "maximum": -3.75},
                    "e": {"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 10001}, "f": {"type": "number", "exclusiveMaximum": 1000000}}),
    "patterns": obj({"a": {"type": "string", "pattern": "[0-9]{3}"}, "b": {"type": "string", "pattern": r"^(?:v|V)?\d+\.\d+(\.\d+)?(-[\w.]+)?$"},
                     "c": {"type": "string", "pattern": r"^[^\s/\\]+(/[^\s/\\]+)*$"}, "d": {"type": "string", "pattern": "^[\u4e00-\u9fff\u00e9]{2,5}$"},
                     "e": {"type": "string", "pattern": r"^\S+@\S+$"}, "f": {"type": "string", "pattern": "^a|b$"}}),
    "unions": {"oneOf": [obj({"kind": {"const": "move"}, "x": {"type": "integer"}, "y": {"type": "integer"}}),
                         obj({"kind": {"const": "say"}, "text": TEXT}), {"type": "null"}]},
    "tree": {"$ref": "#/$defs/node", "$defs": {"node": obj({"v": {"enum": [1, "two", None, 3.5, [1], {"k": "<"}]},
             "left": {"$ref": "#/$defs/node"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}}, ["v"])}},
    "merged": {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"n": {"type": "string", "minLength": 2, "maxLength": 5}}, "required": ["n"]}],
               "$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer", "minimum": 1}}, "required": ["id"]}}},
    "either": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
               "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "maps": obj({"m": {"type": "object", "patternProperties": {"^x-[a-z]+$": {"type": "boolean"}}, "additionalProperties": False},
                 "n": {"type": "object", "minProperties": 1, "maxProperties": 3, "additionalProperties": {"type": "array", "prefixItems": [{"type": "integer"}, TEXT]}}}),
    "anything": {"type": "object"},
    "formats": obj({f: {"type": "string", "format": f} for f in ("date", "time", "date-time", "uuid", "ipv4", "email")}),
}


def draw(program, model, schema, count):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(schema, file)
        file.flush()
        out = subprocess.run([program, "eval", "grammar", model, "--schema", file.name, "-n", str(count)],
                             check=True, capture_output=True)
    return out.stdout.decode("utf-8").split("\n")[:-1]


def main():
    program, model = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    bad = total = 0
    for name, schema in SCHEMAS.items():
        judge = jsonschema.Draft202012Validator(schema)
        for line in draw(program, model, schema, count):
            total += 1
            error = next(judge.iter_errors(json.loads(line)), None)
            if error:
                bad += 1
                print(f"{name}: {error.message[:200]}\n  {line[:300]}")
    print(f"{total - bad} of {total} answers by {len(SCHEMAS)} schemas are valid")
    return 1 if bad or not total else 0


sys.exit(main())
