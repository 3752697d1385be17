#!/usr/bin/env python3
"""Stands between an agent and the server so that a small model plays its part: the first CALLS turns become forced
calls of one tool with one value, the turn behind them a short text by a schema. Everything else passes as it is.
What goes into the prompt stays the same from turn to turn, so that the server's cache can show what it does.

usage: nudge.py UPSTREAM_PORT TOOL KEY VALUE CALLS LOG    prints its own port; LOG gets a line a request
"""
import http.client
import http.server
import json
import re
import sys

upstream, tool, key, value = int(sys.argv[1]), *sys.argv[2:5]
calls, log_path = int(sys.argv[5]), sys.argv[6]
forced = {"type": "object", "properties": {key: {"const": value, "type": "string"}}, "required": [key],
          "additionalProperties": False}
done = {"type": "object", "properties": {"answer": {"enum": ["done"]}}, "required": ["answer"],
        "additionalProperties": False}
CALL = "11"  # the token that begins a call


def results_in(messages):
    """How many tools' results the conversation holds."""
    count = 0
    for m in messages if isinstance(messages, list) else []:
        parts = m.get("content") if isinstance(m.get("content"), list) else []
        count += m.get("role") == "tool" or m.get("type") in ("function_call_output", "custom_tool_call_output")
        count += sum(isinstance(p, dict) and p.get("type") == "tool_result" for p in parts)
    return count


def nudge(path, body):
    """Changes the body; says what was done."""
    results = results_in(body.get("messages", body.get("input", [])))
    tools = body.get("tools") or []
    names = [t.get("name") or t.get("function", {}).get("name") for t in tools]
    call = tool in names and results < calls
    if tool in names:
        found = tools[names.index(tool)]
        found.get("function", found)["input_schema" if "messages" in path else "parameters"] = forced
    if "messages" in path:
        body["thinking"] = {"type": "disabled"}
        body["tool_choice"] = {"type": "tool", "name": tool} if call else {"type": "auto"}
        if not call:
            body["output_config"] = {"format": {"type": "json_schema", "schema": done}}
        if not tools:
            del body["tool_choice"]
    elif "responses" in path:
        body["tool_choice"] = {"type": "function", "name": tool} if call else "auto"
        if not call:
            body["text"] = {"format": {"type": "json_schema", "name": "done", "schema": done, "strict": True}}
    else:
        body["tool_choice"] = {"type": "function", "function": {"name": tool}} if call else "auto"
        if not call:
            body["response_format"] = {"type": "json_schema",
                                       "json_schema": {"name": "done", "schema": done, "strict": True}}
        if not tools:
            del body["tool_choice"]
    if call:
        return "call"
    body["logit_bias"] = {CALL: -100}
    marked = value.split()[-1] in json.dumps(body)
    return "text" + (" behind %d results" % results if results else "") + (" with the marker" if results and marked else "")


def usage_of(reply):
    """Tokens of the prompt from the cache, and in all, as the reply's end tells them."""
    def last(*names):
        found = re.findall(rb'"(?:%s)": ?(\d+)' % b"|".join(n.encode() for n in names), reply)
        return int(found[-1]) if found else 0

    cached = last("cached_tokens", "cache_read_input_tokens")
    prompt = last("prompt_tokens", "input_tokens")
    return cached, prompt + (cached if b"cache_read_input_tokens" in reply else 0)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self):
        length = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length)
        what = "as it is"
        if self.command == "POST" and length and "count_tokens" not in self.path:
            body = json.loads(data)
            what = nudge(self.path, body)
            data = json.dumps(body).encode()
        up = http.client.HTTPConnection("127.0.0.1", upstream, timeout=300)
        headers = {k: v for k, v in self.headers.items()
                   if k.lower() not in ("host", "content-length", "connection", "accept-encoding")}
        up.request(self.command, self.path, data or None, headers)
        reply = up.getresponse()
        self.send_response(reply.status)
        for name, content in reply.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, content)
        self.send_header("connection", "close")
        self.end_headers()
        whole = b""
        while chunk := reply.read1(65536):
            self.wfile.write(chunk)
            self.wfile.flush()
            whole += chunk
        with open(log_path, "a") as log:
            print(self.command, self.path, reply.status, what, "| cached %d of %d" % usage_of(whole), file=log)
        self.close_connection = True

    do_GET = do_POST = do_HEAD = pass_on

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
