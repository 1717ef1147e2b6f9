/**
 * A peer that stops reading costs the relay next to nothing, slows nobody down, and misses nothing once it reads again.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import * as Y from 'yjs'
import type { AckFrame } from '@rejoin/shared/wire'
import { startServe } from '../support/cli.ts'
import { open } from '../support/edges.ts'
import { Writer } from '../support/relay.ts'
import { inScene } from '../support/scene.ts'
import { until } from '../support/until.ts'
import type { WireClient } from '../support/wire-client.ts'

const MIB = 1024 * 1024
const ENTRY_BYTES = 64 * 1024
/** Edits on their way at a time. */
const AHEAD = 8
/** What flows by with everybody reading, until the process has the memory that such traffic takes, and then with a peer that does not read. */
const READ_MIB = 30
const UNREAD_MIB = 90
/** The documented part of a stopped peer is 4 MiB; the rest is what garbage collection swings by. */
const GROWTH_MIB = 30
const LATE_MS = 30_000
/** The process gives memory back as soon as it is free, so that what it holds can be told from what it has not yet returned. */
const FRUGAL = {
  NODE_OPTIONS: '--max-semi-space-size=2',
  MALLOC_ARENA_MAX: '1',
  MALLOC_MMAP_THRESHOLD_: '32768',
  MALLOC_TRIM_THRESHOLD_: '131072',
}

/** Resident memory of a process, in MiB. */
function residentOf(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/mu.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

/** The last of a socket's acks. */
function lastAck(wire: WireClient): AckFrame | undefined {
  return wire.frames.findLast((frame) => frame.type === 'ack')
}

/** Writes the text anew, again and again, so that the log grows and the document does not; returns the most memory the relay took meanwhile, in MiB. */
async function write(wire: WireClient, handle: number, writer: Writer, bytes: number, pid: number): Promise<number> {
  let most = 0
  for (const end = writer.n + bytes / ENTRY_BYTES; writer.n < end;) {
    wire.send(
      writer.push(handle, (doc) => {
        const text = doc.getText('t')
        text.delete(0, text.length)
        text.insert(0, String(writer.n % 10).repeat(ENTRY_BYTES))
      }),
    )
    await until(() => (lastAck(wire)?.n ?? 0) >= writer.n - AHEAD, 'acks', LATE_MS)
    most = Math.max(most, residentOf(pid))
  }
  await until(() => lastAck(wire)?.n === writer.n, 'the last ack', LATE_MS)
  return most
}

/** What the socket was given, checked to be without a hole: the document, and the seq and hash at its end. */
function follow({ frames }: WireClient): { readonly doc: Y.Doc; readonly seq: number; readonly hash: string } {
  const doc = new Y.Doc()
  let [seq, hash] = [0, '']
  for (const frame of frames) {
    if (frame.type === 'state') {
      if (frame.total > 0) throw new Error('a whole state in the place of retained entries')
      seq = frame.seq
    } else if (frame.type === 'entries') {
      expect(frame.first).toBe(seq + 1)
      seq += frame.updates.length
      hash = frame.hash
      for (const update of frame.updates) Y.applyUpdate(doc, update)
    }
  }
  return { doc, seq, hash }
}

it(
  `a peer that stops reading while ${UNREAD_MIB} MiB flow by leaves the memory of the relay flat, and later gets every entry`,
  { timeout: 120_000 },
  ({ skip }) => {
    if (process.platform !== 'linux') skip('reads /proc')
    return inScene(async (scene) => {
      const serving = await startServe(['--data', join(scene.folder, 'relay'), '--log-level', 'warn'], { env: FRUGAL })
      const { child, ended, url, output } = serving
      scene.onEnd(() => {
        child.kill('SIGKILL')
        return ended
      })
      const pid = child.pid ?? 0
      const [writing, reading] = [await scene.wire(url), await scene.wire(url)]
      const writer = new Writer()
      const handle = await open(writing, 'd')
      await open(reading, 'd')
      await reading.next('state')
      const before = await write(writing, handle, writer, READ_MIB * MIB, pid)
      await until(() => follow(reading).seq === writer.n, 'the reader to keep up', LATE_MS)

      reading.socket.pause()
      const meanwhile = await write(writing, handle, writer, UNREAD_MIB * MIB, pid)
      expect(meanwhile - before).toBeLessThan(GROWTH_MIB)

      reading.socket.resume()
      const head = lastAck(writing)
      await until(
        () => {
          const last = reading.frames.at(-1)
          return last?.type === 'entries' && last.hash === head?.hash
        },
        'the reader to catch up',
        LATE_MS,
      )
      const { doc, seq, hash } = follow(reading)
      expect([seq, hash]).toEqual([head?.seq, head?.hash])
      expect(doc.getText('t').toString()).toBe(writer.doc.getText('t').toString())
      expect(reading.closed).toBeUndefined()
      // And it is live again.
      writing.send(writer.push(handle))
      await until(() => follow(reading).seq === writer.n)
      expect(output.stderr.split('\n').filter((line) => line.includes('"level":50'))).toEqual([])
    })
  },
)
