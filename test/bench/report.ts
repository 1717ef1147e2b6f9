/** What the bench prints: ratios first, then what they are made of, then on what they were measured. */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { CONTESTANTS, file } from './contestants.ts'

/** The middle one; NaN of none. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** The value below which `share` of them lie. */
export function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? Number.NaN
}

/** A number as a person reads it; a dash where there is none. */
export function show(value: number, digits = 0): string {
  return Number.isFinite(value) ? value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }) : '–'
}

/** Rows of text under a head, the first column to the left, the others to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('   ')
  return [line(head), ...rows.map(line)].map((text) => `  ${text}\n`).join('')
}

/** The machine and everybody's version. */
export function circumstances(): string {
  const [cpu] = cpus()
  const versions = ['@hocuspocus/server', '@hocuspocus/extension-sqlite', '@y/websocket-server', 'ws', 'yjs']
  return [
    `${availableParallelism()} × ${cpu?.model.trim() ?? 'unknown processor'}, ${show(totalmem() / 2 ** 30)} GiB, ${process.platform} ${release()}, node ${process.version}`,
    versions.map((name) => `${name} ${versionOf(name)}`).join(', '),
  ].join('\n')
}

/** A warning when others use the machine. */
export function busyness(): string {
  const [load = 0] = loadavg()
  return load > availableParallelism() / 2
    ? `The machine was busy before this began (load ${show(load, 1)} on ${availableParallelism()}): read the ratios and the CPU columns.\n`
    : ''
}

/** The contestants' names, to be compared with the first. */
export const [SUBJECT, ...OTHERS] = CONTESTANTS.map(({ name }) => name) as [string, ...string[]]

function versionOf(name: string): string {
  return (JSON.parse(readFileSync(file(`node_modules/${name}/package.json`), 'utf8')) as { version: string }).version
}
