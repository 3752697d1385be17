// Both vendors' JavaScript SDKs against the server. usage: node sdk.mjs openai|anthropic PORT
import assert from "node:assert";
import { createRequire } from "node:module";

const [which, port] = process.argv.slice(2);
const load = async name => (await import(createRequire(process.cwd() + "/").resolve(name))).default;
const ask = [{ role: "user", content: "Hello" }];
const schema = { type: "object", properties: { colour: { type: "string", enum: ["red", "blue"] } },
  required: ["colour"], additionalProperties: false };

if (which === "openai") {
  const OpenAI = await load("openai");
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "local", maxRetries: 0 });
  const model = (await client.models.list()).data[0].id;
  const plain = await client.chat.completions.create({ model, messages: ask, max_tokens: 16, temperature: 0 });
  let text = "";
  for await (const c of await client.chat.completions.create({ model, messages: ask, max_tokens: 16, temperature: 0, stream: true }))
    text += c.choices[0]?.delta?.content ?? "";
  assert.equal(text, plain.choices[0].message.content);
  const call = await client.chat.completions.create({ model, messages: ask, max_tokens: 200, tool_choice: "required",
    tools: [{ type: "function", function: { name: "pick", parameters: schema } }] });
  assert(["red", "blue"].includes(JSON.parse(call.choices[0].message.tool_calls[0].function.arguments).colour));
  const types = [];
  for await (const e of await client.responses.create({ model, input: "Hello", max_output_tokens: 16, stream: true }))
    types.push(e.type);
  assert.equal(types[0], "response.created");
  assert(["response.completed", "response.incomplete"].includes(types.at(-1)));
} else {
  const Anthropic = await load("@anthropic-ai/sdk");
  const client = new Anthropic({ baseURL: `http://127.0.0.1:${port}`, apiKey: "local", maxRetries: 0 });
  const model = (await client.models.list()).data[0].id;
  const stream = client.messages.stream({ model, max_tokens: 16, messages: ask });
  let text = "";
  stream.on("text", t => { text += t; });
  const final = await stream.finalMessage();
  assert.equal(text, final.content.filter(b => b.type === "text").map(b => b.text).join(""));
  const call = await client.messages.create({ model, max_tokens: 200, messages: ask,
    tools: [{ name: "pick", input_schema: schema }], tool_choice: { type: "tool", name: "pick" } });
  assert(["red", "blue"].includes(call.content.at(-1).input.colour));
  assert((await client.messages.countTokens({ model, messages: ask })).input_tokens > 0);
}
