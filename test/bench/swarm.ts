/**
 * The load generator, a process of its own: two typists in each document, each with a window of updates that the other has not seen (and, where the protocol
 * acknowledges, the server has not acknowledged). Prints one line of JSON.
 */
import { BARE_MARK, type Peer, PROTOCOLS } from './protocols.ts'
import { keystrokesIn, trace, TYPISTS, typing } from './typing.ts'

/** What `relay.ts` asks of a swarm. */
export interface SwarmTask {
  readonly protocol: keyof typeof PROTOCOLS & string
  readonly bare: boolean
  readonly acks: boolean
  readonly url: string
  /** Prefix of the documents' names. */
  readonly name: string
  readonly documents: number
  readonly keystrokes: number
  readonly window: number
  /** Whether the documents first get the whole trace, from one client; then nothing is typed unless `keystrokes` > 0. */
  readonly preload: boolean
  /** Whether only to open each document once, one after another, and time the arrival of its whole state. */
  readonly open: boolean
}

/** What it answers. */
export interface SwarmResult {
  readonly updates: number
  readonly seconds: number
  /** Milliseconds from typing to the other's receipt, sampled. */
  readonly latency: readonly number[]
  /** Milliseconds from opening to the whole state, by document. */
  readonly opens: readonly number[]
}

const task = JSON.parse(process.argv[2] ?? '{}') as SwarmTask
const connect = PROTOCOLS[task.protocol]
if (connect === undefined) throw new Error(`no protocol called ${task.protocol}`)

const names = Array.from({ length: task.documents }, (_, i) => `${task.bare ? BARE_MARK : ''}${task.name}-${i}`)
const base = task.preload ? trace() : undefined
const result = task.open ? await timeOpens() : await type()
process.stdout.write(`${JSON.stringify(result)}\n`)
process.exit(0)

async function timeOpens(): Promise<SwarmResult> {
  const opens: number[] = []
  for (const name of names) {
    const began = performance.now()
    await new Promise<void>((resolve, reject) => {
      connect?.(task.url, name, {
        update: () => {},
        acked: () => {},
        state: (bytes) => {
          // An empty answer would be the time of nothing.
          if (bytes < 10_000) reject(new Error(`${name} came as ${bytes} bytes`))
          opens.push(performance.now() - began)
          resolve()
        },
      }).catch(reject)
    })
  }
  return { updates: 0, seconds: 0, latency: [], opens }
}

async function type(): Promise<SwarmResult> {
  const keys = typing(task.keystrokes, base)
  const latency: number[] = []
  let began = 0
  const finished = names.map(async (name) => {
    const peers: Peer[] = []
    const done = TYPISTS.map(() => 0)
    const acked = TYPISTS.map(() => 0)
    const sent = TYPISTS.map(() => 0)
    const sentAt = TYPISTS.map(() => 0)
    let started = false
    let finish = (): void => {}
    const end = new Promise<void>((resolve) => {
      finish = resolve
    })
    const go = (typist: number): void => {
      if (!started) return
      const known = task.acks ? Math.min(done[typist] ?? 0, acked[typist] ?? 0) : (done[typist] ?? 0)
      while ((sent[typist] ?? 0) < task.keystrokes && (sent[typist] ?? 0) - known < task.window) {
        const next = sent[typist] ?? 0
        if (next % 100 === 0) sentAt[typist] = performance.now()
        sent[typist] = next + 1
        const update = keys[typist]?.[next]
        if (update !== undefined) peers[typist]?.type(update)
      }
      if (known === task.keystrokes && (done[1 - typist] ?? 0) === task.keystrokes && (!task.acks || (acked[1 - typist] ?? 0) === task.keystrokes)) finish()
    }
    if (base !== undefined) await preload(name, base)
    for (const typist of TYPISTS.keys()) {
      peers[typist] = await (connect as NonNullable<typeof connect>)(task.url, name, {
        update: (update) => {
          const author = 1 - typist
          const news = keystrokesIn(update)[author] ?? 0
          if (news === 0) return
          const before = done[author] ?? 0
          done[author] = before + news
          if (Math.ceil(before / 100) * 100 < before + news) latency.push(performance.now() - (sentAt[author] ?? 0))
          go(author)
        },
        acked: (through) => {
          acked[typist] = through
          go(typist)
        },
        state: () => {},
      })
    }
    const start = (): void => {
      started = true
      for (const typist of TYPISTS.keys()) go(typist)
    }
    return { start, end }
  })
  const ready = await Promise.all(finished)
  began = performance.now()
  for (const { start } of ready) start()
  if (task.keystrokes > 0) await Promise.all(ready.map(({ end }) => end))
  return { updates: task.documents * TYPISTS.length * task.keystrokes, seconds: (performance.now() - began) / 1000, latency, opens: [] }
}

/** Puts the whole trace into a document and waits until it is there for others. */
async function preload(name: string, update: Uint8Array): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const author = { update: () => {}, state: () => {}, acked: () => resolve() }
    const reader = { acked: () => {}, state: () => {}, update: () => resolve() }
    Promise.all([connect?.(task.url, name, reader), connect?.(task.url, name, author)]).then(([other, peer]) => {
      peer?.type(update)
      void other
    }, reject)
  })
}
