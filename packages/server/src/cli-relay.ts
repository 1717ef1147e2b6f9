/**
 * How a command talks to a relay that runs: where it is, and who asks.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { ErrorCode } from '@rejoin/shared'
import { ERRORS, SyncError } from '@rejoin/shared'
import { readSecretFile } from './config.ts'
import { isLoopbackAddress } from './http/origin.ts'
import { SECRET_FILE, readSecret } from './secret.ts'

/** The flags of every command that talks to a relay, as text. */
export interface RelayFlags {
  readonly url: string
  readonly tokenFile?: string | undefined
  readonly data?: string | undefined
}

/** A relay that runs. */
export interface RunningRelay {
  readonly url: string
  /** GET without a body, POST with one. Rejects with `SyncError`: what the relay says, or `bad_option` when there is none. */
  fetch(
    path: string,
    options?: { readonly body?: unknown; readonly headers?: Readonly<Record<string, string>>; readonly signal?: AbortSignal },
  ): Promise<Response>
  /** The JSON of the answer. */
  json(path: string, body?: unknown): Promise<unknown>
}

/** The relay that the flags name. Without --token-file the secret in its data folder is used, where there is one: a relay without auth on the loopback needs none. Another machine gets it only when --data says so. */
export function findRelay({ url, tokenFile, data }: RelayFlags): RunningRelay {
  if (!URL.canParse(url) || !/^https?:$/u.test(new URL(url).protocol))
    throw new SyncError('bad_option', `--url is an address such as http://127.0.0.1:4400; this is ${JSON.stringify(url)}`)
  const base = url.replace(/\/+$/u, '')
  const folder = data ?? (isLoopbackAddress(new URL(url).hostname) ? DATA : undefined)
  const token = tokenOf(tokenFile, folder)
  const request: RunningRelay['fetch'] = async (path, { body, headers, signal } = {}) => {
    let response: Response
    try {
      response = await fetch(base + path, {
        method: body === undefined ? 'GET' : 'POST',
        redirect: 'error',
        headers: {
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal === undefined ? {} : { signal }),
      })
    } catch (cause) {
      if (signal?.aborted === true) throw cause
      throw new SyncError(
        'bad_option',
        `no relay answers at ${base} (${reasonOf(cause)}); start one with rejoin serve, or name it with --url`,
        { cause },
      )
    }
    if (!response.ok) throw await refusalOf(response, base, folder)
    return response
  }
  return {
    url: base,
    fetch: request,
    json: async (path, body) => {
      const answer = (await (await request(path, body === undefined ? {} : { body })).json()) as {
        readonly error?: { readonly code: ErrorCode; readonly message: string }
      }
      // What took long was answered before it failed. A sink's own error is text.
      if (typeof answer.error === 'object') throw new SyncError(answer.error.code, answer.error.message)
      return answer
    },
  }
}

/** Where a relay on this machine has its log unless it is told otherwise. */
const DATA = './rejoin-data'

function tokenOf(tokenFile: string | undefined, folder: string | undefined): string | undefined {
  if (tokenFile !== undefined) return readSecretFile(tokenFile, '--token-file').trim()
  return folder !== undefined && existsSync(join(resolve(folder), SECRET_FILE)) ? readSecret(resolve(folder)) : undefined
}

/** What the relay said, with what to do about it here. */
async function refusalOf(response: Response, base: string, folder: string | undefined): Promise<SyncError> {
  const text = (await response.text()).slice(0, 10_000)
  const { code, message } = errorOf(text)
  if (code === 'unauthorized' || code === 'expired' || code === 'forbidden')
    return new SyncError(
      'bad_option',
      `${message}; give --token-file with a token that has admin (rejoin token --admin), or --data with the data folder of the relay at ${base} (this was ${folder ?? 'none'})`,
    )
  if (code === undefined || !Object.hasOwn(ERRORS, code))
    return new SyncError('bad_option', `${base} answers ${response.status}, and not as a relay does`)
  return new SyncError(code, message)
}

function errorOf(text: string): { readonly code?: ErrorCode; readonly message: string } {
  try {
    const { error } = JSON.parse(text) as { readonly error?: { readonly code: ErrorCode; readonly message: string } }
    return { ...error, message: String(error?.message) }
  } catch {
    return { message: '' }
  }
}

/** fetch says "fetch failed", and why below it. */
function reasonOf(thrown: unknown): string {
  const cause = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause : thrown
  return cause instanceof Error
    ? cause.message === ''
      ? ((cause as NodeJS.ErrnoException).code ?? cause.name)
      : cause.message
    : String(cause)
}
