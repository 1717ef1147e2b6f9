/**
 * A raw protocol client over a real socket, and a relay in a process of its own that can be killed.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { ClientFrame, RelayFrame } from '@rejoin/shared/wire'
import { decodeFrames, encodeFrames } from '@rejoin/shared/wire'
import WebSocket from 'ws'
import { fileURLToPath } from 'node:url'
import { until } from './until.ts'

const CLI = fileURLToPath(new URL('../../packages/server/dist/cli.js', import.meta.url))

/** One socket that speaks frames. */
export interface WireClient {
  readonly frames: RelayFrame[]
  readonly closed: { readonly code: number; readonly reason: string } | undefined
  readonly socket: WebSocket
  send(...frames: readonly ClientFrame[]): void
  /** The next frame of a type that no earlier call took. */
  next<T extends RelayFrame['type']>(...types: readonly [T, ...T[]]): Promise<RelayFrame & { readonly type: T }>
  /** Resolves with the close. */
  ended(): Promise<{ readonly code: number; readonly reason: string }>
}

/** Connects to `http://…`, and says hello unless `token` is null. */
export async function connectWire(url: string, token: string | null = ''): Promise<WireClient> {
  const socket = new WebSocket(`${url.replace(/^http/u, 'ws')}/sync`, { perMessageDeflate: false })
  const frames: RelayFrame[] = []
  let closed: WireClient['closed']
  let taken = 0
  socket.on('error', () => undefined)
  socket.on('message', (data: Buffer) => {
    const decoded = decodeFrames(new Uint8Array(data))
    if (decoded.type === 'bad') throw new Error(`the relay sent a bad message: ${decoded.reason}`)
    frames.push(...(decoded.frames as RelayFrame[]))
  })
  socket.on('close', (code, reason) => {
    closed = { code, reason: reason.toString() }
  })
  const client: WireClient = {
    frames,
    socket,
    get closed() {
      return closed
    },
    send: (...sent) => socket.send(encodeFrames(sent)),
    next: (...types) =>
      until(
        () => {
          while (taken < frames.length) {
            const frame = frames[taken++]
            if (frame !== undefined && (types as readonly string[]).includes(frame.type)) return frame as never
          }
          return undefined
        },
        `a frame ${types.join(' or ')}; there were ${frames.map(({ type }) => type).join(' ')}`,
      ),
    ended: () => until(() => closed, 'the socket to close'),
  }
  await until(() => socket.readyState === WebSocket.OPEN || closed !== undefined, 'the socket to open')
  if (token !== null) {
    client.send({ type: 'hello', revisionMin: 1, revisionMax: 1, agent: 'test', token })
    await client.next('welcome', 'goaway')
  }
  return client
}

/** A relay in a process of its own. */
export interface ChildRelay {
  readonly url: string
  readonly errors: string[]
  /** kill -9, or another signal; resolves with how it ended. */
  kill(signal?: NodeJS.Signals): Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
}

/** Starts `rejoin serve` on a free port. */
export async function startRelay(data: string, ...flags: readonly string[]): Promise<ChildRelay> {
  const child = spawn(process.execPath, [CLI, 'serve', '--port', '0', '--data', data, '--log-level', 'warn', ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: data,
  })
  const errors: string[] = []
  let url: string | undefined
  let ended: { code: number | null; signal: NodeJS.Signals | null } | undefined
  child.on('exit', (code, signal) => {
    ended = { code, signal }
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => void errors.push(text))
  createInterface(child.stdout).on('line', (line) => {
    url ??= (JSON.parse(line) as { url: string }).url
  })
  await until(() => url !== undefined || ended !== undefined, 'the relay to listen')
  if (url === undefined) throw new Error(`the relay did not start: ${errors.join('')}`)
  return {
    url,
    errors,
    kill(signal = 'SIGKILL') {
      child.kill(signal)
      return until(() => ended, 'the relay to end')
    },
  }
}

/** A folder that is gone after `run`. */
export async function inFolder<T>(run: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'rejoin-'))
  try {
    return await run(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
