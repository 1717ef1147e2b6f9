/**
 * A process that appends to the log of a folder and says `ack <n>` once edit n is durable:
 * `node append-loop.js <folder> <FULL|NORMAL> <count> <under way at once> <bytes of an edit>`. It goes on behind what is there.
 */
import { writeSync } from 'node:fs'
import { openSqliteLog } from '#server/storage/sqlite.js'

const [directory, synchronous, count, width, size] = process.argv.slice(2)
const DOCUMENT = 'loop'
const INCARNATION = 'a'.repeat(32)
// One write call for each line, at once: its place among the system calls is what the tests look at.
const say = (line) => writeSync(1, `${line}\n`)

let log
try {
  log = await openSqliteLog({ directory }, { synchronous })
} catch (error) {
  say(`refused ${error.code}`)
  process.exit(3)
}
void log.failed.then((error) => {
  say(`failed ${error.message}`)
  process.exit(4)
})
let { seq } = await log.open(DOCUMENT)
say(`open ${seq}`)
const last = seq + Number(count)

async function work() {
  while (seq < last) {
    const n = ++seq
    const update = Buffer.from(`<edit ${String(n).padStart(6, '0')}>`.padEnd(Number(size), 'x'))
    await log.append([{ document: DOCUMENT, seq: n, incarnation: INCARNATION, lo: n, hi: n, covers: [], actor: 'loop', at: n, update }])
    say(`ack ${n}`)
  }
}

// A rejection here is said by `failed`.
await Promise.allSettled(Array.from({ length: Number(width) }, work))
if (seq >= last) await log.close()
