/**
 * `npm run conformance -- <sink> [--url <url>] [--record]`: the kit on anybody's server, or on one that it starts; `--table` writes the docs' table anew from what was recorded.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { conformance } from '@rejoin/server/testing'
import type { OpenSubject } from '../support/conformance.ts'
import type { Recorded } from './table.ts'
import { RESULTS, SINKS_PAGE, readResults, withTable } from './table.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { url: { type: 'string' }, record: { type: 'boolean' }, table: { type: 'boolean' } },
})
const here = new URL('.', import.meta.url)
const sinks = readdirSync(here).flatMap((file) => /^(?!run|table)([a-z-]+)\.ts$/u.exec(file)?.[1] ?? [])
const [sink = ''] = positionals

if (values.table === true) writeTable()
else if (sinks.includes(sink)) process.exitCode = (await run(sink)) ? 0 : 1
else {
  process.stderr.write(
    `usage: npm run conformance -- <${sinks.join(' | ')}> [--url <url>] [--record]\n       npm run conformance -- --table\n`,
  )
  process.exitCode = 2
}

/** Whether every case that applies passed. */
async function run(name: string): Promise<boolean> {
  const { open } = (await import(`./${name}.ts`)) as { open: OpenSubject }
  const { under, server, close } = await open(values.url)
  const cases: Record<string, string> = {}
  let failed = 0
  process.stdout.write(`${name} on ${server}\n`)
  try {
    for (const each of conformance(under)) {
      const outcome = await each.run().catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))))
      if (outcome instanceof Error) failed++
      cases[each.name] = outcome instanceof Error ? `failed: ${outcome.message}` : outcome.type === 'passed' ? 'passed' : outcome.reason
      const mark = outcome instanceof Error ? '✗' : outcome.type === 'passed' ? '✓' : '–'
      const more =
        outcome instanceof Error ? outcome.message : outcome.type === 'passed' ? `${outcome.ms} ms` : `does not apply: ${outcome.reason}`
      process.stdout.write(`  ${mark} ${each.name.padEnd(46)} ${more}\n`)
    }
  } finally {
    await close()
  }
  process.stdout.write(failed === 0 ? 'it conforms\n' : `${failed} cases failed\n`)
  if (values.record === true && failed === 0) {
    const result: Recorded = { sink: name, server, mechanism: under.mechanism, cases }
    writeFileSync(new URL(`${name}.json`, RESULTS), `${JSON.stringify(result, null, 2)}\n`)
    writeTable()
  }
  return failed === 0
}

function writeTable(): void {
  writeFileSync(SINKS_PAGE, withTable(readFileSync(SINKS_PAGE, 'utf8'), readResults()))
}
