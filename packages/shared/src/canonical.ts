/**
 * Canonical JSON: one spelling for equal values, so that records can be compared, hashed and written to destinations. Never recursive: depth is an attacker's choice.
 */
import type { JsonValue } from './schema.ts'

/** A value that is no array and no object in its JSON form; undefined when JSON has none (bytes, bigints, functions, undefined). NaN and infinities are null, −0 is 0, strings are well formed. */
export function canonicalScalar(value: unknown): JsonValue | undefined {
  if (typeof value === 'string') return value.toWellFormed()
  // Adding 0 turns −0 into 0.
  if (typeof value === 'number') return Number.isFinite(value) ? value + 0 : null
  return typeof value === 'boolean' || value === null ? value : undefined
}

/**
 * The one spelling of a JSON-like value: no spaces, keys sorted by UTF-16 code units, scalars as `canonicalScalar`. As in JSON.stringify, what JSON has no form for is left out of objects and null in arrays.
 * The value must not contain itself.
 */
export function canonicalJson(value: unknown): string {
  const parts: string[] = []
  // Ready text and values still to be written, the next one last.
  const rest: ({ readonly text: string } | { readonly value: unknown })[] = [{ value }]
  for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
    if ('text' in next) {
      parts.push(next.text)
    } else if (Array.isArray(next.value)) {
      rest.push({ text: ']' })
      for (let i = next.value.length - 1; i >= 0; i--) {
        rest.push({ value: next.value[i] }, { text: i === 0 ? '' : ',' })
      }
      parts.push('[')
    } else if (isPlainObject(next.value)) {
      const entries = Object.entries(next.value).filter(([, child]) => hasForm(child))
      entries.sort(([a], [b]) => (a < b ? -1 : 1))
      rest.push({ text: '}' })
      for (let i = entries.length - 1; i >= 0; i--) {
        const entry = entries[i]
        if (entry !== undefined)
          rest.push({ value: entry[1] }, { text: `${i === 0 ? '' : ','}${JSON.stringify(entry[0].toWellFormed())}:` })
      }
      parts.push('{')
    } else {
      parts.push(JSON.stringify(canonicalScalar(next.value) ?? null))
    }
  }
  return parts.join('')
}

/** An object as JSON knows it: not an array, not an instance of a class (bytes, dates, shared types). */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

function hasForm(value: unknown): boolean {
  return canonicalScalar(value) !== undefined || Array.isArray(value) || isPlainObject(value)
}
