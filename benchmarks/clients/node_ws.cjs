// The npm package ws in a process of its own, which reads orders and prints measurements in the same
// way as worker.py. It has only the measurements that include it.
"use strict";
const path = require("node:path");
const readline = require("node:readline");
const WebSocket = require(path.resolve(process.env.TRIO_RESPONSES_NODE_MODULES || "node_modules", "ws"));

const MODEL = "gpt-5.5";
const now = () => Number(process.hrtime.bigint()) / 1e9;
const processor = () => { const used = process.cpuUsage(); return used.user + used.system; };

function open(url) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket("ws" + url.slice("http".length) + "/responses", {
      perMessageDeflate: false,
      maxPayload: 64 * 1024 * 1024,
    });
    socket.once("open", () => resolve(socket));
    socket.once("error", reject);
  });
}

function turn(socket, input, note) {
  return new Promise((resolve) => {
    const take = (message) => {
      const event = JSON.parse(message);
      if (event.type === "response.output_text.delta") note(event.delta);
      else if (event.type === "response.completed") { socket.off("message", take); resolve(); }
    };
    socket.on("message", take);
    socket.send(JSON.stringify({ type: "response.create", model: MODEL, input }));
  });
}

function inputOf(size, items) {
  if (!items) return "x".repeat(size);
  return Array.from({ length: items }, (_, n) => ({ role: "user", content: `message number ${n}` }));
}

function stopwatch() {
  const wall = now(), used = processor();
  return (count) => ({ cpu: (processor() - used) / count, wall: ((now() - wall) * 1e6) / count });
}

const closed = (socket) => new Promise((resolve) => { socket.once("close", resolve); socket.close(); });

const measures = {
  async turns({ url, warm, count, least = 0, size = 2, items = 0 }) {
    const input = inputOf(size, items);
    let length = 0;
    const note = (text) => { length += text.length; };
    const socket = await open(url);
    for (let n = 0; n < warm; n++) await turn(socket, input, note);
    const per = stopwatch();
    const start = now();
    let taken = 0;
    for (; taken < count || now() - start < least; taken++) await turn(socket, input, note);
    const found = per(taken);
    await closed(socket);
    return found;
  },
  async paced({ url, count }) {
    const ages = [];
    const socket = await open(url);
    const per = stopwatch();
    await turn(socket, "go", (text) => ages.push(now() - Number(text)));
    const found = per(count);
    await closed(socket);
    ages.sort((a, b) => a - b);
    found.p50 = ages[Math.floor(count / 2)] * 1e6;
    found.p99 = ages[Math.floor((count * 99) / 100)] * 1e6;
    return found;
  },
  async first({ url, count }) {
    const total = { cpu: 0, wall: 0 };
    for (let n = 0; n < count; n++) {
      const per = stopwatch();
      let one = null;
      const socket = await open(url);
      await turn(socket, "go", () => { one ??= per(count); });
      total.cpu += one.cpu;
      total.wall += one.wall;
      await closed(socket);
    }
    return total;
  },
  async connect({ url, count }) {
    const total = { cpu: 0, wall: 0 };
    for (let n = 0; n < count; n++) {
      const per = stopwatch();
      const socket = await open(url);
      const one = per(count);
      total.cpu += one.cpu;
      total.wall += one.wall;
      await closed(socket);
    }
    return total;
  },
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    process.stdout.write(JSON.stringify(await measures[order.measure](order)) + "\n");
  }
})();
