/**
 * The load generator, a process of its own: two typists in each document, each with a window of updates that the other has not seen (and, where the protocol
 * acknowledges, the server has not acknowledged). Prints one line of JSON.
 */
import { BARE_MARK, type Peer, type PeerEvents, PROTOCOLS } from './protocols.ts'
import { keystrokesIn, trace, TYPISTS, typing } from './typing.ts'

/** What `relay.ts` asks of a swarm. */
export interface SwarmTask {
  readonly protocol: keyof typeof PROTOCOLS
  /** Whether the contestant acknowledges. */
  readonly acks: boolean
  readonly url: string
  /** Prefix of the documents' names. */
  readonly name: string
  readonly documents: number
  readonly keystrokes: number
  readonly window: number
  /** Whether the documents first get the whole trace, from one client. */
  readonly preload: boolean
  /** Whether only to open each document once, one after another, and time the arrival of its whole state. */
  readonly open: boolean
}

/** What it answers. */
export interface SwarmResult {
  readonly updates: number
  readonly seconds: number
  /** Processor time of the load itself, in seconds. */
  readonly load: number
  /** Milliseconds from typing to the other's receipt, sampled. */
  readonly latency: readonly number[]
  /** Milliseconds from opening to the whole state, by document. */
  readonly opens: readonly number[]
}

/** Keystrokes of each typist before anything is counted, in documents of their own: compilers and sockets are warm then. */
const WARM_UP = 100
/** One keystroke in so many is timed. */
const SAMPLED = 100
/** A document with the whole trace is larger, in bytes. */
const LEAST_BYTES = 100_000

const task = JSON.parse(process.argv[2] ?? '{}') as SwarmTask
const connect = PROTOCOLS[task.protocol]

const base = task.preload ? trace() : undefined
const result = task.open ? await timeOpens() : await measure()
process.stdout.write(`${JSON.stringify(result)}\n`)
process.exit(0)

function namesOf(prefix: string): readonly string[] {
  return Array.from({ length: task.documents }, (_, i) => `${task.protocol === 'bare' ? BARE_MARK : ''}${prefix}-${i}`)
}

async function timeOpens(): Promise<SwarmResult> {
  const opens: number[] = []
  for (const name of namesOf(task.name)) opens.push(await timeOpen(name))
  return { updates: 0, seconds: 0, load: 0, latency: [], opens }
}

async function timeOpen(name: string): Promise<number> {
  const began = performance.now()
  const bytes = await new Promise<number>((resolve, reject) => {
    connect(task.url, name, { update: () => {}, acked: () => {}, state: resolve }).catch(reject)
  })
  // An empty answer would be the time of nothing.
  if (bytes < LEAST_BYTES) throw new Error(`${name} came as ${bytes} bytes`)
  return performance.now() - began
}

async function measure(): Promise<SwarmResult> {
  const warm = typing(WARM_UP)
  await type(await Promise.all(namesOf(`${task.name}-warm`).map((name) => join(name, warm))))
  const keys = typing(task.keystrokes, base)
  const rooms = await Promise.all(
    namesOf(task.name).map(async (name) => {
      const holders = base === undefined ? [] : await preload(name, base)
      const room = await join(name, keys)
      // Only now: a server may put a document away that nobody has open.
      for (const peer of holders) peer.close()
      return room
    }),
  )
  process.stdout.write('begun\n')
  const cpu = process.cpuUsage()
  const began = performance.now()
  await type(rooms)
  const seconds = (performance.now() - began) / 1000
  const { user, system } = process.cpuUsage(cpu)
  const latency = rooms.flatMap((room) => room.latency)
  return { updates: task.documents * TYPISTS.length * task.keystrokes, seconds, load: (user + system) / 1e6, latency, opens: [] }
}

async function type(rooms: readonly Room[]): Promise<void> {
  await Promise.all(
    rooms.map(
      (room) =>
        new Promise<void>((resolve) => {
          room.start(resolve)
        }),
    ),
  )
}

/** One document and its typists. */
interface Room {
  readonly latency: readonly number[]
  /** Lets them type; calls `finished` once everything typed was seen by the other, and acknowledged. */
  start(finished: () => void): void
}

/** Connects two typists, each of whom will type `keys` with a window of what is not yet seen and acknowledged. */
async function join(name: string, keys: readonly (readonly Uint8Array[])[]): Promise<Room> {
  const latency: number[] = []
  const typists = TYPISTS.map((_, i) => ({
    keys: keys[i] ?? [],
    sent: 0,
    seen: 0,
    acked: 0,
    sentAt: 0,
    peer: undefined as Peer | undefined,
  }))
  let finish: (() => void) | undefined
  const go = (typist: (typeof typists)[number]): void => {
    if (finish === undefined) return
    const known = task.acks ? Math.min(typist.seen, typist.acked) : typist.seen
    while (typist.sent < typist.keys.length && typist.sent - known < task.window) {
      if (typist.sent % SAMPLED === 0) typist.sentAt = performance.now()
      const update = typist.keys[typist.sent++]
      if (update !== undefined) typist.peer?.type(update)
    }
    if (typists.every(({ keys: all, seen, acked }) => seen === all.length && (!task.acks || acked === all.length))) finish()
  }
  const eventsOf = (typist: (typeof typists)[number], other: (typeof typists)[number], author: number): PeerEvents => ({
    update: (update) => {
      const news = keystrokesIn(update)[author] ?? 0
      if (news === 0) return
      const before = other.seen
      other.seen += news
      if (Math.ceil(before / SAMPLED) * SAMPLED < other.seen) latency.push(performance.now() - other.sentAt)
      go(other)
    },
    acked: (through) => {
      typist.acked = through
      go(typist)
    },
    state: () => {},
  })
  for (const [i, typist] of typists.entries()) {
    const author = 1 - i
    const other = typists[author]
    if (other !== undefined) typist.peer = await connect(task.url, name, eventsOf(typist, other, author))
  }
  return {
    latency,
    start(finished) {
      finish = finished
      for (const typist of typists) go(typist)
    },
  }
}

/** Puts the whole trace into a document and waits until another has it and, where that is said, the server acknowledged it. */
async function preload(name: string, update: Uint8Array): Promise<readonly Peer[]> {
  const peers: Peer[] = []
  await new Promise<void>((resolve, reject) => {
    let waiting = task.acks ? 2 : 1
    const arrived = (): void => {
      if (--waiting === 0) resolve()
    }
    // Rejoin sends an update of this size as a state.
    const reader = { update: arrived, acked: () => {}, state: (bytes: number) => bytes > LEAST_BYTES && arrived() }
    const author = { update: () => {}, acked: (through: number) => through > 0 && arrived(), state: () => {} }
    const connectBoth = async (): Promise<void> => {
      peers.push(await connect(task.url, name, reader))
      const peer = await connect(task.url, name, author)
      peers.push(peer)
      peer.type(update)
    }
    connectBoth().catch(reject)
  })
  return peers
}
