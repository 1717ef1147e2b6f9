/**
 * What `rejoin sinks …` prints for people: tables without frames, one line a row.
 */
import type { SinkAnswers, SinkPlan, SinkReport } from './forwarding/commands.ts'
import type { Difference, ProofResult } from './forwarding/proof.ts'

/** One row a sink. */
export function listText(reports: readonly SinkReport[]): string {
  if (reports.length === 0) return 'no sinks\n'
  const head = ['SINK', 'KIND', 'STATE', 'CURSOR', 'LAG', 'ROWS/S', 'PARKED', 'DEAD', 'LAST PROOF']
  const rows = reports.map((report) =>
    // While there is no worker only the name is known.
    report.lag === undefined
      ? [report.name, '', report.state, '', '', '', '', '', '']
      : [
          report.name,
          report.kind,
          report.state,
          String(report.cursor),
          lagText(report.lag),
          String(Math.round(report.rate)),
          String(report.parked.total),
          String(report.letters),
          proofCell(report.proof),
        ],
  )
  const notes = reports.flatMap(({ name, error, warning }) =>
    [error, warning].flatMap((text) => (text === undefined ? [] : [`${name}: ${text}\n`])),
  )
  return `${table([head, ...rows])}${notes.length === 0 ? '' : `\n${notes.join('')}`}`
}

/** One sink after a command. */
export function reportText({ name, state, cursor, lag, error }: SinkReport): string {
  return `${name}: ${state} at version ${cursor}${lag.entries === 0 ? '' : `, ${lagText(lag)} behind`}${error === undefined ? '' : `\n  ${error}`}\n`
}

/** What a plan says. */
export function planText(name: string, { statements, rows, state }: SinkPlan): string {
  const first =
    statements.length === 0
      ? `${name}: the destination is as it should be (${state})`
      : `${name}: ${counted(statements.length, 'statement')} (${state})`
  const lines = [first, ...statements.map((statement) => `  ${statement}`)]
  if (rows === null) lines.push('the destination cannot be read back: a refresh writes every row')
  else lines.push(`a refresh would change ${counted(rows.changed, 'row')} of ${rows.whole ? '' : 'the first '}${rows.looked}`)
  return `${lines.join('\n')}\n`
}

/** `warehouse: equal at version N (R rows, 0 parked)`, or what differs. */
export function proofText(name: string, result: ProofResult): string {
  const { version, rows, parked, equal, differences } = result
  const counts = `at version ${version} (${rows} rows, ${parked.total} parked)`
  const asked = askedOf(result)
  const partly = holds(result)
  const lines = [
    `${name}: ${equal ? 'equal' : partly ? `the proof of ${asked.map(([proof]) => proof).join(' and ')} holds` : 'NOT EQUAL'} ${counts}`,
  ]
  if (!equal) for (const [proof, verdict] of asked) lines.push(`  ${proof}: ${verdict}`)
  for (const difference of differences.first) lines.push(`  ${differenceText(difference)}`)
  const more = differences.total - differences.first.length
  if (more > 0) lines.push(`  and ${more} more`)
  for (const { key, reason } of parked.first) lines.push(`  parked ${key.collection} ${key.document}/${key.id}: ${reason}`)
  if (parked.total > parked.first.length) lines.push(`  and ${parked.total - parked.first.length} more parked`)
  return `${lines.join('\n')}\n`
}

/** Whether all that was asked for holds. */
export function holds(result: ProofResult): boolean {
  const asked = askedOf(result)
  return result.equal || (asked.length > 0 && asked.every(([, verdict]) => verdict === 'equal'))
}

function askedOf({ proofs }: ProofResult): readonly (readonly [name: string, verdict: string])[] {
  return Object.entries(proofs).filter(([, verdict]) => verdict !== 'not asked')
}

/** Dead letters, one a row. */
export function deadText(name: string, { total, first }: SinkAnswers['dead']): string {
  if (total === 0) return `${name}: no dead letters\n`
  const rows = first.map(({ id, key, state, at, reason }) => [
    id,
    `${key.collection} ${key.document}/${key.id}`,
    state,
    new Date(at).toISOString(),
    oneLine(reason),
  ])
  const more = total - first.length
  return `${table([['ID', 'RECORD', 'STATE', 'SINCE', 'REASON'], ...rows])}${more > 0 ? `and ${more} more\n` : ''}`
}

function differenceText({ proof, what, key, bucket, document }: Difference): string {
  const where =
    key === undefined ? (document ?? (bucket === undefined ? '' : `bucket ${bucket}`)) : `${key.collection} ${key.document}/${key.id}`
  return `${what.padEnd(8)} ${where}${proof === 'rows' ? '' : ` (${proof})`}`
}

function lagText({ entries, seconds, bytes }: SinkReport['lag']): string {
  return entries === 0 ? '0' : `${entries} ${entries === 1 ? 'entry' : 'entries'}, ${Math.round(seconds)} s, ${sizeText(bytes)}`
}

function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB']
  let [size, unit] = [bytes, 0]
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1]
  return `${size >= 10 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit] ?? ''}`
}

function proofCell(proof: ProofResult | null): string {
  return proof === null
    ? 'none'
    : `${proof.equal ? 'equal' : 'NOT EQUAL'} at ${proof.version}, ${new Date(proof.at).toISOString().slice(0, 19)}Z`
}

/** `1 row`, `2 rows`. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

/** A terminal is not told to do anything by what stood in a record. */
function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ')
}

function table(rows: readonly (readonly string[])[]): string {
  const clean = rows.map((row) => row.map(oneLine))
  const widths = (clean[0] ?? []).map((_, column) => Math.max(...clean.map((row) => (row[column] ?? '').length)))
  return clean
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
    .concat('\n')
}
