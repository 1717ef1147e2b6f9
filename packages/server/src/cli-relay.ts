/**
 * How a command talks to a relay that runs: where it is, and who asks.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { ErrorCode } from '@rejoin/shared'
import { ERRORS, SyncError } from '@rejoin/shared'
import { readSecretFile } from './config.ts'
import { SECRET_FILE, readSecret } from './secret.ts'

/** The flags of every command that talks to a relay, as text. */
export interface RelayFlags {
  readonly url: string
  readonly tokenFile?: string | undefined
  readonly data: string
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

/** The relay that the flags name. Without --token-file the secret in its data folder is used, where there is one: a relay without auth on the loopback needs none. */
export function findRelay({ url, tokenFile, data }: RelayFlags): RunningRelay {
  if (!URL.canParse(url) || !/^https?:$/u.test(new URL(url).protocol))
    throw new SyncError('bad_option', `--url is an address such as http://127.0.0.1:4400; this is ${JSON.stringify(url)}`)
  const base = url.replace(/\/+$/u, '')
  const token = tokenOf(tokenFile, resolve(data))
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
    if (!response.ok) throw await refusalOf(response, base, data)
    return response
  }
  return {
    url: base,
    fetch: request,
    json: async (path, body) => (await request(path, body === undefined ? {} : { body })).json(),
  }
}

function tokenOf(tokenFile: string | undefined, data: string): string | undefined {
  if (tokenFile !== undefined) return readSecretFile(tokenFile, '--token-file').trim()
  return existsSync(join(data, SECRET_FILE)) ? readSecret(data) : undefined
}

/** What the relay said, with what to do about it here. */
async function refusalOf(response: Response, base: string, data: string): Promise<SyncError> {
  const text = (await response.text()).slice(0, 10_000)
  const { code, message } = errorOf(text)
  if (code === 'unauthorized' || code === 'expired' || code === 'forbidden')
    return new SyncError(
      'bad_option',
      `${message}; give --token-file with a token that has admin (rejoin token --admin), or --data with the data folder of the relay at ${base} (this was ${data})`,
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
