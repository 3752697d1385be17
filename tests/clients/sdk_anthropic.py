"""Anthropic's Python SDK against the server. usage: sdk_anthropic.py PORT"""
import sys

import anthropic

client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{sys.argv[1]}", api_key="local", max_retries=0)
ask = [{"role": "user", "content": "Hello"}]
tool = {"name": "pick", "input_schema": {"type": "object", "properties": {
    "colour": {"type": "string", "enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}}

model = client.models.list().data[0].id
plain = client.messages.create(model=model, max_tokens=16, messages=ask)
assert plain.type == "message" and plain.usage.output_tokens > 0 and plain.stop_reason, plain

with client.messages.stream(model=model, max_tokens=16, messages=ask) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert final.usage.input_tokens + final.usage.cache_read_input_tokens > 0
assert text == "".join(b.text for b in final.content if b.type == "text")

call = client.messages.create(model=model, max_tokens=200, messages=ask, tools=[tool],
                              tool_choice={"type": "tool", "name": "pick"})
use = next(b for b in call.content if b.type == "tool_use")
assert call.stop_reason == "tool_use" and use.input["colour"] in ("red", "blue"), call
turn = ask + [{"role": "assistant", "content": [b.model_dump() for b in call.content]},
              {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "ok"}]}]
after = client.messages.create(model=model, max_tokens=8, messages=turn, tools=[tool], tool_choice={"type": "none"})
assert after.usage.input_tokens + after.usage.cache_read_input_tokens > 10 and after.stop_reason != "tool_use"

with client.messages.stream(model=model, max_tokens=200, messages=ask, tools=[tool],
                            tool_choice={"type": "any"}) as stream:
    kinds = [e.type for e in stream]
    assert stream.get_final_message().content[-1].input["colour"] in ("red", "blue")
assert "input_json" in kinds, kinds

count = client.messages.count_tokens(model=model, messages=ask)
assert count.input_tokens == plain.usage.input_tokens + plain.usage.cache_read_input_tokens

try:
    client.messages.create(model=model, max_tokens=4, messages=[{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}]}])
    raise SystemExit("an image was accepted")
except anthropic.BadRequestError as e:
    assert "text only" in str(e), e
