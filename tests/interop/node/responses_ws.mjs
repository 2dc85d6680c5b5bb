// Drives the ResponsesWS of the npm package openai: a command for each line of standard input,
// a line of standard output for each thing that the package says.
//
//   node responses_ws.mjs NODE_MODULES BASE_URL

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [folder, baseURL] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const { OpenAI } = require("openai");
const { ResponsesWS } = require("openai/resources/responses/ws");

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const socket = new ResponsesWS(new OpenAI({ apiKey: "sk-interop", baseURL }));

createInterface({ input: process.stdin })
  .on("line", (line) => socket.send(JSON.parse(line)))
  .on("close", () => socket.close());

for await (const said of socket.stream()) {
  if (said.type === "message") say({ event: said.message });
  if (said.type === "error") say({ event: said.error.error ?? null, failure: said.error.message });
  if (said.type === "close") say({ closed: said.code });
}
