// The conformance runner for jco on Node: `node runner.mjs FOLDER`, where FOLDER holds the
// transpiled plugin and node_modules. ../README.md specifies the protocol.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

const folder = process.argv[2];
const { desiredState } = await import(join(folder, "plugin/consul-session-plugin.js"));

// An error of the plugin is thrown with its case and value as `payload`. Any other exception is a
// trap.
function answer(options) {
  try {
    return { ok: desiredState.applyJson(options) };
  } catch (error) {
    if (error.payload === undefined) throw error;
    return { err: error.payload };
  }
}

async function version(name) {
  return JSON.parse(await readFile(join(folder, "node_modules/@bytecodealliance", name, "package.json"))).version;
}

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
print({ runtime: "jco (Node)", version: `jco ${await version("jco")}, preview2-shim ${await version("preview2-shim")}` });
for await (const line of createInterface({ input: process.stdin })) print(answer(JSON.parse(line)));
