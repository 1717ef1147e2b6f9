/**
 * What conformance runs have recorded, and the table of the docs that is made of it.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { CONFORMANCE_CASES } from '@rejoin/server/testing'

/** One sink's run on one server. */
export interface Recorded {
  readonly sink: string
  /** With its version. */
  readonly server: string
  readonly mechanism: string
  /** Name of a case → 'passed', or why it does not apply. */
  readonly cases: Readonly<Record<string, string>>
}

export const RESULTS: URL = new URL('results/', import.meta.url)
export const SINKS_PAGE: URL = new URL('../../packages/server/docs/sinks.md', import.meta.url)

const BEGIN = '<!-- made by npm run conformance -- --table -->'
const END = '<!-- until here -->'

/** Of every sink that was recorded, by name. */
export function readResults(): readonly Recorded[] {
  return readdirSync(RESULTS)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => JSON.parse(readFileSync(new URL(file, RESULTS), 'utf8')) as Recorded)
}

/** The page with its table made anew. */
export function withTable(page: string, results: readonly Recorded[]): string {
  const [before, after] = [page.indexOf(BEGIN), page.indexOf(END)]
  if (before === -1 || after === -1) throw new Error(`the page has no place for the table: ${BEGIN} … ${END}`)
  return `${page.slice(0, before + BEGIN.length)}\n\n${tableOf(results)}\n\n${page.slice(after)}`
}

function tableOf(results: readonly Recorded[]): string {
  const reasons: string[] = []
  const noteOf = (reason: string): string => {
    if (!reasons.includes(reason)) reasons.push(reason)
    return `–${superscript(reasons.indexOf(reason) + 1)}`
  }
  const names = results.map(({ sink }) => sink)
  const cases = CONFORMANCE_CASES.map(({ name, guarantee }) => {
    const cells = results.map(({ cases: found }) => (found[name] === 'passed' ? '✓' : noteOf(found[name] ?? 'not run')))
    return `| **${name}**: ${guarantee} | ${cells.join(' | ')} |`
  })
  return [
    '| sink | proved on | mechanism |',
    '|---|---|---|',
    ...results.map(({ sink, server, mechanism }) => `| ${linked(sink)} | ${server} | ${mechanism} |`),
    '',
    `| guarantee | ${names.join(' | ')} |`,
    `|---|${names.map(() => ':-:|').join('')}`,
    ...cases,
    '',
    ...reasons.map((reason, i) => `${superscript(i + 1)} ${reason}  `),
  ]
    .join('\n')
    .trimEnd()
}

/** With a link to its page, which streams share with the rest of their kind; the memory sink has none. */
function linked(sink: string): string {
  if (sink === 'sqlite') return `[${sink}](view-and-sinks.md#the-sqlite-mirror)`
  const page = `sink-${sink.replace(/-stream$/u, '')}.md`
  return existsSync(new URL(page, SINKS_PAGE)) ? `[${sink}](${page})` : sink
}

function superscript(n: number): string {
  return `${n}`.replaceAll(/\d/gu, (digit) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(digit)] ?? '')
}
