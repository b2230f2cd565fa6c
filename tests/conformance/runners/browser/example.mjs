// Visits examples/browser/index.html, which somebody serves, and prints its output: `node
// example.mjs FOLDER URL PORT`. See README.md.

import { visit } from "./chromium.mjs";

const [folder, url, port] = process.argv.slice(2);
// The page uses localhost:8500, the default of an agent; the agent of a test listens on another
// port.
const { page, close } = await visit(url, folder, [`--host-resolver-rules=MAP localhost:8500 127.0.0.1:${port}`]);
try {
  await page.waitForFunction(() => document.querySelector("pre").textContent !== "", null, { timeout: 30_000 });
  console.log(await page.textContent("pre"));
} finally {
  await close();
}
