/**
 * Names of the NATS sink: a subject for every key, in the letters that buckets allow.
 */
import { addressOf } from './message.ts'
import type { Key } from './sink.ts'

/** The version of the view at which the message was written. */
export const STAMP_HEADER = 'Rejoin-Version'
/** Document and id, percent-encoded: a subject may be a hash. */
export const KEY_HEADER = 'Rejoin-Key'

/** The longest address in a subject, in characters. */
const MAX_ADDRESS = 200

/** `<root>.<target>.<document>/<id>`, with `=2F` for what is not a letter, a digit, `-` or `_`. */
export function subjectOf(root: string, key: Key): string {
  return `${root}.${tokenOf(encodeURIComponent(key.collection))}.${tokenOf(addressOf(key, MAX_ADDRESS))}`
}

export function keyHeader({ document, id }: Key): string {
  return `${encodeURIComponent(document)}/${encodeURIComponent(id)}`
}

/** One token of a subject, of a percent-encoded text. */
export function tokenOf(text: string): string {
  return text.replaceAll(/[^A-Za-z0-9/_-]/gu, (char) => (char === '%' ? '=' : `=${char.charCodeAt(0).toString(16).toUpperCase()}`))
}

/** The key of a message, by its header; of one without, by its subject. Undefined: it is none of ours. */
export function keyOf(root: string, subject: string, header: string | undefined, targets: readonly string[]): Key | undefined {
  const [token = '', address = '', ...more] = subject.slice(root.length + 1).split('.')
  const collection = decoded(token)
  const parts = (header ?? address.replaceAll('=', '%')).split('/').map(decodedPercent)
  const [document, id] = parts
  if (more.length > 0 || parts.length !== 2 || collection === undefined || !targets.includes(collection)) return undefined
  return document === undefined || id === undefined ? undefined : { collection, document: document as Key['document'], id }
}

function decoded(token: string): string | undefined {
  return decodedPercent(token.replaceAll('=', '%'))
}

function decodedPercent(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}
