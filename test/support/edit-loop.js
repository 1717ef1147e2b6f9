/**
 * A device that edits without end, until it is killed: `node edit-loop.js <url> <path> <document> <name>` prints `local <mark>` and `relay <mark>` as each
 * mark reaches that rung. Marks are `<name> <n>`, pushed to the array `log`, each in an edit of its own.
 */
import { createClient } from '@rejoin/client'
import { sqlite } from '@rejoin/client/sqlite'
import { setTimeout as pause } from 'node:timers/promises'

const [url, path, document, name] = process.argv.slice(2)
const replica = createClient({ url, store: sqlite({ path }) }).open(document)
await replica.whenLoaded()
const log = replica.ydoc.getArray('log')
for (let n = 1; ; n++) {
  const mark = `${name} ${n}`
  const edit = replica.edit(() => log.push([mark]))
  for (const to of ['local', 'relay']) void edit.wait({ to }).then(() => console.log(to, mark))
  if (n % 5 === 0) await pause(1)
}
