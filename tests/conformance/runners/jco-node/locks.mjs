// Calls each function of `locks` with jco on Node: `node locks.mjs FOLDER PORT SESSION SESSION`,
// where FOLDER holds the transpiled plugin. Prints the fencing number of the second session.

import assert from "node:assert/strict";
import { join } from "node:path";

const [folder, port, first, second] = process.argv.slice(2);
const { locks } = await import(join(folder, "plugin/consul-session-plugin.js"));

const connection = { port: Number(port) };
const contents = { value: new Uint8Array([0, 255, 62]), flags: 3304740253564472344n };

const acquired = locks.acquire("key", first, contents, connection);
assert.equal(acquired.tag, "acquired");
assert.equal(locks.acquire("key", second, contents, connection).tag, "held");
const { lock } = locks.holder("key", undefined, connection);
assert.deepEqual(lock, acquired.val);
assert.deepEqual([lock.session, lock.value, lock.flags], [first, contents.value, contents.flags]);
assert.equal(locks.release("key", second, contents, connection), false);
assert.equal(locks.release("key", first, contents, connection), true);
assert.throws(
  () => locks.acquire("", second, contents, connection),
  (error) => error.payload.tag === "invalid-option",
);
console.log(String(locks.acquire("key", second, contents, connection).val.modifyIndex));
