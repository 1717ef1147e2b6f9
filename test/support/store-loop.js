/**
 * A process that writes edit after edit into a SQLite store and prints each number once it is committed, until it is killed: `node store-loop.js <path> [hold]`.
 */
import { sqlite } from '#client/stores/sqlite.js'

const [path, hold] = process.argv.slice(2)
const INCARNATION = 'a'.repeat(32)

try {
  const rows = await (await sqlite({ path }).open()).open('loop')
  console.log('open')
  if (hold !== undefined) await new Promise((resolve) => setTimeout(resolve, 60_000))
  let n = (await rows.outbox()).at(-1)?.n ?? 0
  // Several under way at once, so that a kill falls into transactions of many.
  await Promise.all(Array.from({ length: 8 }, write))

  async function write() {
    for (;;) {
      const own = ++n
      const update = new TextEncoder().encode(`edit ${own} ${'x'.repeat(own % 3000)}`)
      await rows.commit({ updates: [update], put: [{ incarnation: INCARNATION, n: own, update }] })
      console.log(own)
    }
  }
} catch (error) {
  console.log(error.code)
  process.exit(3)
}
