// Runs the transpiled command as `jco run` does, which would transpile it again each time: `node command.mjs FOLDER WORD…`.

import { join } from "node:path";

const [folder] = process.argv.splice(2, 1);
const { run } = await import(join(folder, "command/consul-session.js"));
try {
  run.run();
  process.exit(0);
} catch {
  // What went wrong is printed already: the error is the exit status.
  process.exit(1);
}
