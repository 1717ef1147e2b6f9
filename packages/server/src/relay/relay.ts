/**
 * The relay (steps 3 to 6 of the path) without a network: joins sockets, documents and the log. Clock, chance, disk and sockets are arguments, so it runs
 * in one process under a virtual clock as it does behind a port.
 */
import type { Clock, DocumentId, ErrorCode, Limits, Random } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Log, LogFailure } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import type { RelayDocument } from './attach.ts'
import type { Compactor } from './document.ts'
import { OpenDocument } from './document.ts'
import type { AuthRequest, Authorize, Grant } from './grant.ts'
import { createLedger } from './ledger.ts'
import type { Presence, RelaySocket, SocketListener } from './peer.ts'
import { Peer } from './peer.ts'
import { createTurns } from './reading.ts'
import type { Rungs } from './rungs.ts'
import type { SessionRules } from './session-events.ts'

/** What a relay is made of. */
export interface RelayCoreOptions {
  readonly log: Log
  readonly clock: Clock
  readonly random: Random
  readonly limits: Limits
  readonly authorize: Authorize
  /** @default none: documents are not folded */
  readonly compactor?: Compactor | undefined
  /** @default none: presence is dropped */
  readonly presence?: Presence | undefined
  /** @default none: nobody can wait for a sink */
  readonly rungs?: Rungs | undefined
  /** Runs a little later, after the input that is at hand (`setImmediate`). @default clock.after(0) */
  readonly defer?: ((run: () => void) => void) | undefined
  /** Silence after which either side asks, in ms. @default 25000 */
  readonly heartbeat?: number | undefined
  /** Told once that nothing may be told any more: the process exits without closing anything in order. */
  readonly fatal: (error: Error) => void
  /** Sockets of other kinds, which count towards `limits.connections` too. @default none */
  readonly others?: (() => number) | undefined
  /** Something an operator should know. @default nobody is told */
  readonly report?: ((what: string, details: Readonly<Record<string, unknown>>) => void) | undefined
}

/** A running relay. */
export interface RelayCore {
  /** Takes a socket that has just opened. */
  connect(socket: RelaySocket, request: Omit<AuthRequest, 'token'>): SocketListener
  /** Opens a document for any kind of peer. Rejects with `SyncError`. */
  hold(document: DocumentId): Promise<RelayDocument>
  /** Holds every open socket of `principal` to another grant; with null, ends them. */
  regrant(principal: string, grant: Grant | null): void
  /** Takes nothing more; resolves when everything admitted is durable, answered, and every peer was told when to come back and is closed. A push that still waits to be admitted is not answered: its client sends it again. */
  drain(): Promise<void>
  stats(): RelayStats
}

/** Figures at this moment, and counts since the start. */
export interface RelayStats {
  readonly peers: number
  readonly documents: number
  /** Pushes taken and not yet answered. */
  readonly waiting: number
  readonly batches: number
  /** Pushes that went through batches. */
  readonly items: number
}

/** A document that nobody holds stays this long, in ms. */
const IDLE_MS = 30_000
/** Documents that nobody holds take at most about this much memory together, in bytes. */
const IDLE_BYTES = 64 * 1024 * 1024
/** Reads of the log at a time, for all readers together. */
const READS = 16
/** A token is renewed this long before its end, in ms. */
const RENEW_MS = 30_000
/** Peers of a relay that goes down come back spread over this, in ms, and this much more for each of them. */
const SPREAD_MS = 1000
const SPREAD_PEER_MS = 2
const GOING_DOWN = 'the relay is going down'

/** A relay over `log`, which it does not close. */
export function createRelayCore(options: RelayCoreOptions): RelayCore {
  const {
    log,
    clock,
    random,
    limits,
    authorize,
    compactor,
    presence,
    heartbeat = 25_000,
    others = () => 0,
    report = () => undefined,
  } = options
  const defer = options.defer ?? ((run) => void clock.after(0, run))
  const rules: SessionRules = {
    relay: log.id,
    heartbeat,
    window: limits.window,
    message: limits.message,
    helloMessage: limits.helloMessage,
    helloMs: limits.helloMs,
    documents: limits.documents,
    renewMs: RENEW_MS,
  }
  const peers = new Set<Peer>()
  const documents = new Map<DocumentId, { readonly document: OpenDocument; readonly loaded: Promise<void> }>()
  /** Documents that nobody holds → since when, the longest first. */
  const idle = new Map<OpenDocument, number>()
  const turns = createTurns(READS)
  let numbers = 0
  let dirty: Peer[] = []
  let state: 'open' | 'draining' | 'failed' = 'open'
  let sweeping = false

  const ledger = createLedger({ log, defer, fatal: fail, settled: flush })
  const documentPorts = { log, ledger, clock, defer, limits, turns, compactor, fatal: fail, report, idle: rest }
  const peerPorts = {
    rules,
    limits,
    clock,
    turns,
    authorize,
    presence,
    rungs: options.rungs,
    hold,
    dirty: touch,
    gone: (peer: Peer) => void peers.delete(peer),
    report,
  }
  log.failed.then(fail, fail)

  function fail(thrown: unknown): void {
    if (state === 'failed') return
    state = 'failed'
    ledger.stop()
    for (const peer of peers) peer.silence()
    options.fatal(thrown instanceof Error ? thrown : new LogError('failed', String(thrown)))
  }

  function touch(peer: Peer): void {
    if (dirty.length === 0) queueMicrotask(flush)
    dirty.push(peer)
  }

  function flush(): void {
    const flushed = dirty
    dirty = []
    for (const peer of flushed) peer.flush()
  }

  async function hold(id: DocumentId): Promise<RelayDocument> {
    if (state !== 'open') throw new SyncError('draining', GOING_DOWN)
    let open = documents.get(id)
    if (open === undefined) {
      const document = new OpenDocument(id, ++numbers, documentPorts)
      open = { document, loaded: document.load() }
      documents.set(id, open)
    }
    const { document, loaded } = open
    document.holders++
    idle.delete(document)
    try {
      await loaded
      if (document.broken) throw new SyncError('internal', 'the relay cannot read this document from its log')
    } catch (error) {
      document.holders--
      forget(document)
      if (error instanceof LogError && error.failure === 'failed') fail(error)
      throw refusal(error)
    }
    return document
  }

  function rest(document: OpenDocument): void {
    if (document.broken) {
      forget(document)
      return
    }
    idle.delete(document)
    idle.set(document, clock.now())
    sweep()
  }

  function forget(document: OpenDocument): void {
    idle.delete(document)
    if (documents.get(document.id)?.document === document) documents.delete(document.id)
  }

  /** Forgets what has rested long enough, or is too much. */
  function sweep(): void {
    if (sweeping || idle.size === 0) return
    sweeping = true
    clock.after(IDLE_MS / 3, () => {
      sweeping = false
      const now = clock.now()
      let weight = 0
      for (const document of idle.keys()) weight += document.weight
      for (const [document, since] of idle) {
        if (now - since < IDLE_MS && now >= since && weight <= IDLE_BYTES) break
        weight -= document.weight
        if (document.unused) forget(document)
        else idle.delete(document)
      }
      sweep()
    })
  }

  function retryAfter(): number {
    return Math.ceil(random() * (SPREAD_MS + peers.size * SPREAD_PEER_MS))
  }

  function connect(socket: RelaySocket, request: Omit<AuthRequest, 'token'>): SocketListener {
    const peer = new Peer(peerPorts, socket, request)
    if (state !== 'open') peer.dismiss('draining', retryAfter(), GOING_DOWN)
    else if (peers.size + others() >= limits.connections)
      peer.dismiss('too_many', retryAfter(), `at most ${limits.connections} connections`)
    else peers.add(peer)
    return peer
  }

  return {
    connect,
    hold,
    regrant(principal, grant) {
      for (const peer of peers) if (peer.principal === principal) peer.regrant(grant)
    },
    async drain() {
      if (state !== 'open') return
      state = 'draining'
      for (const peer of peers) peer.stopReading()
      await new Promise<void>((resolve) => ledger.whenIdle(resolve))
      for (const peer of [...peers]) peer.dismiss('draining', retryAfter(), GOING_DOWN)
    },
    stats: () => ({ peers: peers.size, documents: documents.size, waiting: ledger.waiting, ...ledger.stats }),
  }
}

const FAILURES: Readonly<Record<LogFailure, ErrorCode>> = {
  full: 'storage_full',
  overloaded: 'overloaded',
  conflict: 'overloaded',
  corrupt: 'internal',
  failed: 'storage_failed',
}

function refusal(error: unknown): SyncError {
  if (error instanceof SyncError) return error
  if (error instanceof LogError) {
    return new SyncError(FAILURES[error.failure], error.failure === 'corrupt' ? 'the log of this document is damaged' : error.message, {
      cause: error,
    })
  }
  return new SyncError('internal', error instanceof Error ? error.message : String(error), { cause: error })
}
