"""OpenAI's Python SDK against the server: typed parsing of every form of answer. usage: sdk_openai.py PORT"""
import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"http://127.0.0.1:{sys.argv[1]}/v1", api_key="local", max_retries=0)
ask = [{"role": "user", "content": "Hello"}]
tool = {"type": "function", "function": {"name": "pick", "parameters": {
    "type": "object", "properties": {"colour": {"type": "string", "enum": ["red", "blue"]},
                                     "n": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["colour", "n"], "additionalProperties": False}}}


class Person(BaseModel):
    name: Literal["Ann", "Bob"]
    age: int


model = client.models.list().data[0].id
plain = client.chat.completions.create(model=model, messages=ask, max_tokens=16, temperature=0)
assert plain.choices[0].message.content and plain.usage.total_tokens > 3, plain

text, usage = "", None
for chunk in client.chat.completions.create(model=model, messages=ask, max_tokens=16, temperature=0, stream=True,
                                            stream_options={"include_usage": True}):
    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    usage = chunk.usage or usage
assert text == plain.choices[0].message.content, (text, plain)
assert usage.completion_tokens == plain.usage.completion_tokens

logs = client.chat.completions.create(model=model, messages=ask, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3)
entries = logs.choices[0].logprobs.content
assert len(entries) == logs.usage.completion_tokens and len(entries[0].top_logprobs) == 3
assert all(e.logprob <= 0 for e in entries)

call = client.chat.completions.create(model=model, messages=ask, tools=[tool], max_tokens=200,
                                      tool_choice={"type": "function", "function": {"name": "pick"}})
assert call.choices[0].finish_reason == "tool_calls"
made = call.choices[0].message.tool_calls[0]
arguments = json.loads(made.function.arguments)
assert arguments["colour"] in ("red", "blue") and 1 <= arguments["n"] <= 9, arguments
turn = ask + [call.choices[0].message, {"role": "tool", "tool_call_id": made.id, "content": "ok"}]
after = client.chat.completions.create(model=model, messages=turn, tools=[tool], tool_choice="none", max_tokens=8)
assert after.usage.prompt_tokens > 10 and after.choices[0].message.tool_calls is None

parsed = client.chat.completions.parse(model=model, messages=ask, response_format=Person, max_tokens=200)
assert isinstance(parsed.choices[0].message.parsed, Person)

several = client.chat.completions.create(model=model, messages=ask, n=3, max_tokens=6, temperature=1.2, seed=5)
assert len(several.choices) == 3

response = client.responses.create(model=model, input="Hello", max_output_tokens=16, temperature=0)
assert response.output_text == plain.choices[0].message.content, response
events = [e.type for e in client.responses.create(model=model, input="Hello", max_output_tokens=16, temperature=0, stream=True)]
assert events[0] == "response.created" and events[-1] in ("response.completed", "response.incomplete"), events
assert "response.output_text.delta" in events
structured = client.responses.parse(model=model, input="Who?", text_format=Person, max_output_tokens=200)
assert isinstance(structured.output_parsed, Person)

echo = client.completions.create(model=model, prompt=[5, 6, 7], max_tokens=1, echo=True, logprobs=1)
assert echo.choices[0].logprobs.token_logprobs[0] is None and len(echo.choices[0].logprobs.tokens) == 4

for bad, words in (({"n": 100}, "n"), ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:,"}}]}]}, "text only")):
    try:
        client.chat.completions.create(**{"model": model, "messages": ask, "max_tokens": 4, **bad})
        raise SystemExit(f"{bad} was accepted")
    except openai.BadRequestError as e:
        assert words in str(e), e
