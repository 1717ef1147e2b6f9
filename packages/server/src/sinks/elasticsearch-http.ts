/**
 * Requests to Elasticsearch or OpenSearch (step 8 of the path): plain fetch, bounded in time, with errors that never tell a password or a key.
 */
import { SyncError } from '@rejoin/shared'
import type { JsonValue } from '@rejoin/shared'

/** Where the cluster is, and who we are there. */
export interface Node {
  /** Without a slash at its end. */
  readonly url: string
  /** The header, as it is sent. */
  readonly authorization: string | undefined
  /** What no error may hold. */
  readonly secrets: readonly string[]
  /** Until an answer is there, in ms. */
  readonly timeout: number
}

export interface Answer {
  readonly status: number
  readonly body: Body
}

/** What the cluster answers: JSON, looked at with care. */
export type Body = { readonly [field: string]: JsonValue }

export interface Question {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE'
  /** With its query. */
  readonly path: string
  /** JSON, or with a text: lines of JSON. */
  readonly body?: unknown
  /** Status codes that are an answer. @default 200 to 299 */
  readonly expect?: readonly number[] | undefined
  readonly signal?: AbortSignal | undefined
  /** In ms. @default the node's */
  readonly timeout?: number | undefined
}

/** Asks one question. Rejects when there is no answer in time, and on a status that is not expected. */
export type Ask = (question: Question) => Promise<Answer>

/** Longest excerpt of an answer in an error. */
const EXCERPT = 300

export function createAsk(node: Node): Ask {
  return async ({ method, path, body, expect = [], signal, timeout = node.timeout }) => {
    const limit = AbortSignal.timeout(timeout)
    const lines = typeof body === 'string'
    const headers = {
      accept: 'application/json',
      'user-agent': 'rejoin-elasticsearch/1',
      ...(body === undefined ? {} : { 'content-type': lines ? 'application/x-ndjson' : 'application/json' }),
      ...(node.authorization === undefined ? {} : { authorization: node.authorization }),
    }
    let response: { status: number; text: string }
    try {
      const got = await fetch(node.url + path, {
        method,
        headers,
        redirect: 'manual',
        signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
        ...(body === undefined ? {} : { body: lines ? body : JSON.stringify(body) }),
      })
      response = { status: got.status, text: await got.text() }
    } catch (error) {
      throw new SyncError('closed', `${node.url} gave no answer: ${masked(reasonOf(error, limit, timeout), node)}`)
    }
    const { status, text } = response
    if ((status >= 200 && status < 300) || expect.includes(status)) return { status, body: parse(text) }
    throw refusal(node, status, text)
  }
}

function refusal(node: Node, status: number, text: string): SyncError {
  const said = masked(causeOf(parse(text)) ?? text, node).slice(0, EXCERPT)
  const where = `${node.url} answered ${status}`
  if (status === 401 || status === 403) return new SyncError('bad_option', `${where}, it does not let us do that: ${said}`)
  if (status >= 300 && status < 400)
    return new SyncError('bad_option', `${where}, a redirect, which is not followed; write the final address`)
  if (status === 429 || status >= 500) return new SyncError('overloaded', `${where}: ${said}`)
  return new SyncError('bad_option', `${where}: ${said}`)
}

function reasonOf(error: unknown, limit: AbortSignal, timeout: number): string {
  if (limit.aborted) return `none within ${timeout} ms`
  const { cause, message } = error instanceof Error ? error : new Error(String(error))
  return cause instanceof Error && cause.message !== '' ? cause.message : message
}

function masked(text: string, { secrets }: Node): string {
  return secrets.reduce((clean, secret) => clean.replaceAll(secret, '•••'), text)
}

function parse(text: string): Body {
  try {
    const value: unknown = JSON.parse(text)
    return objectOf(value)
  } catch {
    return {}
  }
}

/** What the cluster says is wrong, of an answer or of an item of a bulk. */
export function causeOf({ error }: Body): string | undefined {
  if (typeof error === 'string') return error
  const { type, reason, caused_by: cause } = objectOf(error)
  if (typeof type !== 'string') return undefined
  const deeper = objectOf(cause)['reason']
  return `${type}: ${textOf(reason)}${typeof deeper === 'string' ? ` (${deeper})` : ''}`
}

/** The value when it is a text, otherwise as JSON. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}

/** The value when it is an object, otherwise an empty one. */
export function objectOf(value: unknown): Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Body) : {}
}

/** The value when it is a list, otherwise an empty one. */
export function listOf(value: unknown): readonly Body[] {
  return Array.isArray(value) ? value.map(objectOf) : []
}
