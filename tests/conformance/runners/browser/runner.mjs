// The conformance runner for jco in Chromium: `node runner.mjs FOLDER`, where FOLDER holds the
// transpiled plugin and node_modules. ../README.md specifies the protocol.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { open } from "./chromium.mjs";

const folder = process.argv[2];
const { page, close } = await open(join(import.meta.dirname, "page.html"), folder);

async function version(name) {
  return JSON.parse(await readFile(join(folder, "node_modules/@bytecodealliance", name, "package.json"))).version;
}

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
try {
  // The page counts as loaded before a module with top-level `await` has run, and the plugin's
  // module awaits its compilation.
  await page.waitForFunction(() => window.answer);
  print({ runtime: "jco (Chromium)", version: `jco ${await version("jco")}, preview2-shim ${await version("preview2-shim")}` });
  for await (const line of createInterface({ input: process.stdin })) {
    print(await page.evaluate((options) => window.answer(options), JSON.parse(line)));
  }
} finally {
  await close();
}
