#!/usr/bin/env python3
"""Stands between an agent and the server so that a small model plays its part: a first turn becomes a forced call
of one tool with one value, a turn behind a tool's result a short text by a schema. Everything else passes as it is.

usage: nudge.py UPSTREAM_PORT TOOL KEY VALUE LOG    prints its own port; LOG gets a line a request
"""
import http.client
import http.server
import json
import sys

upstream, tool, key, value, log_path = int(sys.argv[1]), *sys.argv[2:6]
forced = {"type": "object", "properties": {key: {"const": value, "type": "string"}}, "required": [key],
          "additionalProperties": False}
done = {"type": "object", "properties": {"answer": {"enum": ["done"]}}, "required": ["answer"],
        "additionalProperties": False}


def has_result(messages):
    """Whether the conversation's last item is what a tool gave."""
    last = messages[-1] if messages else {}
    parts = last.get("content") if isinstance(last.get("content"), list) else []
    return (last.get("role") == "tool" or last.get("type") in ("function_call_output", "custom_tool_call_output")
            or any(isinstance(p, dict) and p.get("type") == "tool_result" for p in parts))


def nudge(path, body):
    """Changes the body; says what was done."""
    messages = body.get("messages", body.get("input", []))
    tools = body.get("tools") or []
    names = [t.get("name") or t.get("function", {}).get("name") for t in tools]
    call = tool in names and not has_result(messages if isinstance(messages, list) else [])
    if call:
        found = tools[names.index(tool)]
        found.get("function", found)["input_schema" if "messages" in path else "parameters"] = forced
    if "messages" in path:
        body["thinking"] = {"type": "disabled"}
        body["tool_choice"] = {"type": "tool", "name": tool} if call else {"type": "none"}
        if not call:
            body["output_config"] = {"format": {"type": "json_schema", "schema": done}}
        if not tools:
            del body["tool_choice"]
    elif "responses" in path:
        body["tool_choice"] = {"type": "function", "name": tool} if call else "none"
        if not call:
            body["text"] = {"format": {"type": "json_schema", "name": "done", "schema": done, "strict": True}}
    else:
        body["tool_choice"] = {"type": "function", "function": {"name": tool}} if call else "none"
        if not call:
            body["response_format"] = {"type": "json_schema",
                                       "json_schema": {"name": "done", "schema": done, "strict": True}}
        if not tools:
            del body["tool_choice"]
    return "call" if call else "text"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self):
        length = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length)
        what = "as it is"
        if self.command == "POST" and length and "count_tokens" not in self.path:
            body = json.loads(data)
            result = has_result(body.get("messages", body.get("input", [])))
            what = nudge(self.path, body)
            text = json.dumps(body)
            if result:
                what += " behind a result" + (" with the marker" if value.split()[-1] in text else "")
            data = text.encode()
        up = http.client.HTTPConnection("127.0.0.1", upstream, timeout=300)
        headers = {k: v for k, v in self.headers.items()
                   if k.lower() not in ("host", "content-length", "connection", "accept-encoding")}
        up.request(self.command, self.path, data or None, headers)
        reply = up.getresponse()
        with open(log_path, "a") as log:
            print(self.command, self.path, reply.status, what, file=log)
        self.send_response(reply.status)
        for name, content in reply.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, content)
        self.send_header("connection", "close")
        self.end_headers()
        while chunk := reply.read1(65536):
            self.wfile.write(chunk)
            self.wfile.flush()
        self.close_connection = True

    do_GET = do_POST = do_HEAD = pass_on

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
