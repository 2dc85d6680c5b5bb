// Calls the API over HTTP by the npm package openai, and prints what it got as one line of JSON.
//
//   node responses_http.mjs NODE_MODULES BASE_URL

import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, baseURL] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const { OpenAI } = require("openai");

const responses = new OpenAI({ apiKey: "sk-interop", baseURL, maxRetries: 0 }).responses;
const model = "gpt-5.5";
const result = {};

const first = await responses.create({ model, input: "Say hello" });
result.created = first.output_text;

result.events = [];
const stream = await responses.create({ model, input: "Go on", previous_response_id: first.id, stream: true });
for await (const event of stream) result.events.push(event.type);

const helper = responses.stream({ model, input: "Say hello" });
result.final = (await helper.finalResponse()).output_text;

result.retrieved = (await responses.retrieve(first.id)).output_text;
result.items = [];
for await (const item of responses.inputItems.list(first.id)) result.items.push(item.type);

const background = await responses.create({ model, input: "Say hello", background: true, stream: true });
const numbers = [];
let id;
for await (const event of background) {
  id ??= event.response.id;
  numbers.push(event.sequence_number);
  if (numbers.length === 4) break;
}
const rest = await responses.retrieve(id, { stream: true, starting_after: numbers.at(-1) });
for await (const event of rest) numbers.push(event.sequence_number);
result.numbers = numbers;
result.cancelled = (await responses.cancel(id)).status;

const compacted = await responses.compact({ model, input: "Say hello" });
result.compacted = compacted.output.at(-1).type;
result.tokens = (await responses.inputTokens.count({ model, input: "one two three" })).input_tokens;

await responses.delete(first.id);
result.deleted = await responses.retrieve(first.id).catch((error) => error.status);
result.refused = await responses.create({ model, input: "x", foo: 1 }).catch((error) => error.code);

console.log(JSON.stringify(result));
