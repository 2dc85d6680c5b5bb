// Drives the ResponsesWS of the npm package openai. Each line of standard input is a command to
// send; each event, error and close of the socket becomes a line on standard output. All lines are
// JSON.
//
//   node responses_ws.mjs NODE_MODULES BASE_URL

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [folder, baseURL] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const { OpenAI } = require("openai");
const { ResponsesWS } = require("openai/resources/responses/ws");

const print = (record) => process.stdout.write(`${JSON.stringify(record)}\n`);
const socket = new ResponsesWS(new OpenAI({ apiKey: "sk-interop", baseURL }));

createInterface({ input: process.stdin })
  .on("line", (line) => socket.send(JSON.parse(line)))
  .on("close", () => socket.close());

for await (const item of socket.stream()) {
  if (item.type === "message") print({ event: item.message });
  if (item.type === "error") print({ event: item.error.error ?? null, failure: item.error.message });
  if (item.type === "close") print({ closed: item.code });
}
