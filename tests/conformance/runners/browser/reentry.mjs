// Enters the plugin again while a call waits, which jco allows in its asynchronous mode: `node reentry.mjs FOLDER PORT`, where
// FOLDER holds the transpiled plugin. The second call must be refused, and the first one right.

import assert from "node:assert/strict";
import { join } from "node:path";
import { open } from "./chromium.mjs";

const [folder, port] = process.argv.slice(2);
const { page, close } = await open(join(import.meta.dirname, "page.html"), folder);
try {
  await page.waitForFunction(() => window.answer);
  const told = await page.evaluate(async (port) => {
    const { desiredState, sessions } = await import("/plugin/consul-session-plugin.js");
    const present = () => desiredState.applyJson(JSON.stringify({ name: "session1", delay: 20, port }));
    // Not an id: refused before a request is sent, so that this call needs nothing of the host.
    const enter = () => {
      try {
        return sessions.info("not an id ".repeat(100), undefined, { port });
      } catch (error) {
        return error.payload;
      }
    };
    // Each request is held up, so that the call waits for its answer, and the plugin is entered then.
    const { fetch } = window;
    const meanwhile = [];
    window.fetch = async (...request) => {
      await new Promise((later) => setTimeout(later, 50));
      meanwhile.push(...Array.from({ length: 100 }, enter));
      return fetch(...request);
    };
    const first = JSON.parse(await present());
    window.fetch = fetch;
    return { meanwhile, first, afterwards: enter(), second: JSON.parse(await present()) };
  }, Number(port));

  assert.equal(told.meanwhile.length % 100, 0);
  assert.notEqual(told.meanwhile.length, 0);
  for (const refused of told.meanwhile) {
    assert.equal(refused.tag, "other");
    assert.match(refused.val, /busy with another call/);
  }
  assert.equal(told.afterwards.tag, "invalid-option");
  assert.equal(told.first.changed, true);
  assert.deepEqual([told.second.changed, told.second.session_id], [false, told.first.session_id]);
  console.log(told.first.session_id);
} finally {
  await close();
}
