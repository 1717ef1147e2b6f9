/**
 * Reads a Yjs update (v1) as far as admission must know it (step 4 of the path): which clocks it writes, what those lean on, what it deletes.
 * No struct is built, and nothing is allocated by a number that the bytes name. It reads in slices, so that a large update does not hold up the others.
 * Source: yjs 13.6, readClientsStructRefs, readItemContent, readAndApplyDeleteSet.
 */
import type { Limits } from '@rejoin/shared'
import { skipJson } from './json.ts'
import type { Ranges } from './ranges.ts'
import { covers } from './ranges.ts'
import { fail, readByte, readUint, skip, skipKey, skipString } from './scan.ts'
import type { ValueScan } from './values.ts'
import { OBJECT, openContainer, skipValues } from './values.ts'

/** What a document holds of one Yjs client: every clock below `clock`, of which `deleted` are deleted. */
export interface Client {
  clock: number
  deleted: Ranges | undefined
}
export type Clients = ReadonlyMap<number, Client>
export type UpdateLimits = Pick<Limits, 'edit' | 'structs' | 'clients' | 'documentClients' | 'depth' | 'key'>

/** Yjs clocks count characters; 2^31 of one client is far beyond what a document may hold, and below it every number here is a small integer. */
export const MAX_CLOCK: number = 2 ** 31 - 1

/** One client's structs in the update. */
export interface Block {
  readonly client: number
  /** The document's clock of the client. */
  readonly known: number
  /** Clock behind the last struct read. */
  end: number
  /** Structs that write something new, and where the first of them begins: its byte (−1: there is none) and clock. */
  fresh: number
  pos: number
  clock: number
  /** Behind the last byte. */
  endPos: number
  /** Its part of `needs`. */
  at: number
  needsEnd: number
  visiting: boolean
}

/** An update being read. */
export interface UpdateScan extends ValueScan {
  readonly clients: Clients
  readonly limits: UpdateLimits
  phase: number
  blocksLeft: number
  readonly blocks: Block[]
  /** Client → its block; only when there are several. */
  index: Map<number, Block> | undefined
  /** Triples: a struct's clock in its block, and the client and clock it leans on, which the document does not have. */
  readonly needs: number[]
  /** Triples of client, start, end: clocks that arrive deleted; ranges of the delete set that are not deleted yet. */
  readonly gone: number[]
  readonly deletes: number[]
  /** Clocks are missing between the document and the update. */
  gap: boolean
  /** Something in it is known already. */
  stale: boolean
  // The struct being read
  structsLeft: number
  /** Structs it may still have. */
  allowance: number
  structPos: number
  info: number
  originClient: number
  originClock: number
  rightClient: number
  rightClock: number
  parentClient: number
  parentClock: number
  /** Values of its content, or JSON texts left. */
  valueCount: number
  // The delete set
  groupsLeft: number
  rangesLeft: number
  group: number
  groupEnd: number
  lastStart: number
  descents: number
  groups: Set<number>
}

const BLOCKS = 0
const STRUCTS = 1
const VALUES = 2
const TEXTS = 3
const GROUPS = 4
const RANGES = 5
const DONE = 6

// Yjs's content references: the low five bits of a struct's info byte.
export const GC = 0
export const DELETED = 1
export const JSON_TEXTS = 2
const BINARY = 3
export const STRING = 4
const EMBED = 5
const FORMAT = 6
const TYPE = 7
export const ANY = 8
const SUBDOCUMENT = 9
const SKIP = 10

export const HAS_ORIGIN = 128
export const HAS_RIGHT = 64
const HAS_KEY = 32

/** Part of an update that the limit of structs is meant for. */
const PART_BYTES = 256 * 1024
/** Yjs writes delete sets in order. Sorting a stranger's is quadratic in how often it is not. */
const MAX_DESCENTS = 64

export function beginUpdate(bytes: Uint8Array, clients: Clients, limits: UpdateLimits): UpdateScan {
  const scan: UpdateScan = {
    bytes,
    pos: 0,
    end: bytes.length,
    fault: undefined,
    clients,
    limits,
    phase: BLOCKS,
    blocksLeft: 0,
    blocks: [],
    index: undefined,
    needs: [],
    gone: [],
    deletes: [],
    gap: false,
    stale: false,
    structsLeft: 0,
    allowance: limits.structs * Math.ceil(bytes.length / PART_BYTES),
    structPos: 0,
    info: 0,
    originClient: -1,
    originClock: 0,
    rightClient: -1,
    rightClock: 0,
    parentClient: -1,
    parentClock: 0,
    valueCount: 0,
    depth: 0,
    left: [],
    keyed: [],
    groupsLeft: 0,
    rangesLeft: 0,
    group: 0,
    groupEnd: 0,
    lastStart: 0,
    descents: 0,
    groups: NO_GROUPS,
  }
  scan.blocksLeft = readUint(scan)
  return scan
}

const NO_GROUPS = new Set<number>()

/** Reads on until `pauseAt`, a place in the bytes; true when all was read, or a fault found. */
export function readUpdate(scan: UpdateScan, pauseAt: number): boolean {
  while (scan.phase !== DONE && scan.fault === undefined) {
    if (scan.pos > pauseAt) return false
    if (scan.phase === BLOCKS) nextBlock(scan)
    else if (scan.phase === STRUCTS) nextStruct(scan)
    else if (scan.phase === VALUES) {
      if (skipValues(scan, pauseAt, (scan.info & 31) === SUBDOCUMENT)) endStruct(scan, scan.valueCount)
    } else if (scan.phase === TEXTS) nextText(scan)
    else if (scan.phase === GROUPS) nextGroup(scan)
    else nextRange(scan)
  }
  return true
}

function blockOf(scan: UpdateScan, client: number): Block | undefined {
  if (scan.index !== undefined) return scan.index.get(client)
  const only = scan.blocks[0]
  return only !== undefined && only.client === client ? only : undefined
}

function nextBlock(scan: UpdateScan): void {
  if (scan.blocksLeft === 0) {
    scan.groupsLeft = readUint(scan)
    scan.phase = GROUPS
    return
  }
  if (scan.blocks.length >= scan.limits.clients) fail(scan, 'limit', `an update under more than ${scan.limits.clients} Yjs client ids`)
  scan.blocksLeft--
  scan.structsLeft = readUint(scan)
  const client = readUint(scan)
  const clock = readUint(scan)
  if (clock > MAX_CLOCK) fail(scan, 'bad_bytes', `clock ${clock} is beyond what a document can hold`)
  // Yjs would silently drop the first of two.
  if (blockOf(scan, client) !== undefined) fail(scan, 'bad_bytes', `two blocks of structs of client ${client}`)
  const known = scan.clients.get(client)?.clock ?? 0
  if (clock > known) scan.gap = true
  const block: Block = {
    client,
    known,
    end: clock,
    fresh: 0,
    pos: -1,
    clock: 0,
    endPos: scan.pos,
    at: scan.needs.length,
    needsEnd: scan.needs.length,
    visiting: false,
  }
  scan.blocks.push(block)
  if (scan.blocks.length === 2) scan.index = new Map(scan.blocks.map((each) => [each.client, each]))
  else scan.index?.set(client, block)
  scan.phase = scan.structsLeft === 0 ? BLOCKS : STRUCTS
}

function nextStruct(scan: UpdateScan): void {
  if (scan.allowance-- === 0) {
    fail(scan, 'limit', `more than ${scan.limits.structs} structs in 256 KiB`)
    return
  }
  scan.structPos = scan.pos
  readHeader(scan)
  const kind = scan.info & 31
  if (kind === STRING) endStruct(scan, skipString(scan))
  else if (kind === GC || kind === DELETED) endStruct(scan, readUint(scan))
  else if (kind === ANY || kind === JSON_TEXTS) {
    scan.valueCount = readUint(scan)
    openContainer(scan, 0, scan.valueCount, false)
    scan.phase = kind === ANY ? VALUES : TEXTS
  } else if (kind === SKIP) skipGap(scan)
  else readSingle(scan, kind)
}

/** Info byte, and what the struct leans on. −1 stands for none. */
export function readHeader(scan: UpdateScan): void {
  const info = readByte(scan)
  scan.info = info
  scan.originClient = -1
  scan.rightClient = -1
  scan.parentClient = -1
  const kind = info & 31
  if (kind === GC || kind === SKIP) return
  if ((info & HAS_ORIGIN) !== 0) {
    scan.originClient = readUint(scan)
    scan.originClock = readUint(scan)
  }
  if ((info & HAS_RIGHT) !== 0) {
    scan.rightClient = readUint(scan)
    scan.rightClock = readUint(scan)
  }
  if ((info & (HAS_ORIGIN | HAS_RIGHT)) !== 0) return
  if (readUint(scan) === 1) skipKey(scan, scan.limits.key)
  else {
    scan.parentClient = readUint(scan)
    scan.parentClock = readUint(scan)
  }
  if ((info & HAS_KEY) !== 0) skipKey(scan, scan.limits.key)
}

/** Clocks that the update leaves out: they had better be here. */
function skipGap(scan: UpdateScan): void {
  const length = readUint(scan)
  const block = scan.blocks[scan.blocks.length - 1]
  if (block !== undefined && block.end + length > block.known) scan.gap = true
  endStruct(scan, length)
}

/** Content that counts as one. */
function readSingle(scan: UpdateScan, kind: number): void {
  if (kind === BINARY) skip(scan, readUint(scan))
  else if (kind === EMBED) skipJson(scan, scan.limits, false)
  else if (kind === FORMAT) {
    skipKey(scan, scan.limits.key)
    skipJson(scan, scan.limits, false)
  } else if (kind === TYPE) {
    const type = readUint(scan)
    // Elements and hooks have a name.
    if (type === 3 || type === 5) skipKey(scan, scan.limits.key)
    else if (type > 6) fail(scan, 'bad_bytes', `type ${type} is none of Yjs's`)
  } else if (kind === SUBDOCUMENT) {
    skipString(scan)
    // Yjs reads fields of the options whatever they are.
    if (scan.pos < scan.end && scan.bytes[scan.pos] !== OBJECT) fail(scan, 'bad_bytes', 'a subdocument whose options are no object')
    scan.valueCount = 1
    openContainer(scan, 0, 1, false)
    scan.phase = VALUES
    return
  } else fail(scan, 'bad_bytes', `content ${kind} is none of Yjs's`)
  endStruct(scan, 1)
}

/** Judges the struct that was read, now that its length is known. */
function endStruct(scan: UpdateScan, length: number): void {
  const block = scan.blocks[scan.blocks.length - 1]
  if (scan.fault !== undefined || block === undefined) return
  const clock = block.end
  const end = clock + length
  // Yjs never writes an empty struct, and looking for clocks goes astray among them.
  if (length === 0) fail(scan, 'bad_bytes', 'an empty struct')
  else if (end > MAX_CLOCK) fail(scan, 'bad_bytes', `clock ${end} is beyond what a document can hold`)
  else {
    block.end = end
    if (end > block.known) addFresh(scan, block, clock)
    else scan.stale = true
    if (--scan.structsLeft > 0) scan.phase = STRUCTS
    else {
      block.endPos = scan.pos
      block.needsEnd = scan.needs.length
      scan.phase = BLOCKS
    }
  }
}

function addFresh(scan: UpdateScan, block: Block, clock: number): void {
  if (block.fresh++ === 0) {
    block.pos = scan.structPos
    block.clock = clock
  }
  const kind = scan.info & 31
  if (kind === GC || kind === DELETED) scan.gone.push(block.client, Math.max(clock, block.known), block.end)
  if (scan.rightClient >= 0) need(scan, block, clock, scan.rightClient, scan.rightClock)
  if (clock < block.known) {
    // What follows a part that is known leans on that part instead.
    scan.stale = true
    return
  }
  if (scan.originClient >= 0) need(scan, block, clock, scan.originClient, scan.originClock)
  if (scan.parentClient >= 0) need(scan, block, clock, scan.parentClient, scan.parentClock)
}

function need(scan: UpdateScan, block: Block, structClock: number, client: number, clock: number): void {
  if (client === block.client) {
    if (clock >= structClock) fail(scan, 'bad_bytes', 'a struct that leans on itself or on what comes after it')
    return
  }
  const known = scan.clients.get(client)
  if (known === undefined || clock >= known.clock) scan.needs.push(structClock, client, clock)
}

function nextText(scan: UpdateScan): void {
  const left = scan.left[0] as number
  if (left === 0) {
    endStruct(scan, scan.valueCount)
    return
  }
  scan.left[0] = left - 1
  skipJson(scan, scan.limits, true)
}

function nextGroup(scan: UpdateScan): void {
  if (scan.groupsLeft === 0) {
    // v2 updates end up here: their first bytes read as an empty v1 update.
    if (scan.pos !== scan.end) fail(scan, 'bad_bytes', `${scan.end - scan.pos} bytes behind the update`)
    scan.phase = DONE
    return
  }
  const several = scan.groupsLeft > 1 || scan.groups.size > 0
  scan.groupsLeft--
  const client = readUint(scan)
  if (several) {
    if (scan.groups === NO_GROUPS) scan.groups = new Set()
    if (scan.groups.has(client)) fail(scan, 'bad_bytes', `two delete sets of client ${client}`)
    scan.groups.add(client)
    if (scan.groups.size > scan.limits.documentClients) fail(scan, 'limit', `more than ${scan.limits.documentClients} delete sets`)
  }
  scan.rangesLeft = readUint(scan)
  scan.group = client
  const known = scan.clients.get(client)?.clock ?? 0
  scan.groupEnd = Math.max(known, blockOf(scan, client)?.end ?? 0)
  scan.lastStart = 0
  scan.phase = RANGES
}

function nextRange(scan: UpdateScan): void {
  if (scan.rangesLeft === 0) {
    scan.phase = GROUPS
    return
  }
  scan.rangesLeft--
  const start = readUint(scan)
  const length = readUint(scan)
  const end = start + length
  if (scan.fault !== undefined) return
  if (length === 0) {
    fail(scan, 'bad_bytes', 'an empty range in the delete set')
    return
  }
  if (end > scan.groupEnd) {
    scan.gap = true
    return
  }
  if (start < scan.lastStart && ++scan.descents > MAX_DESCENTS) fail(scan, 'limit', 'a delete set that is not in order')
  scan.lastStart = start
  const deleted = scan.clients.get(scan.group)?.deleted
  if (deleted !== undefined && covers(deleted, start, end)) scan.stale = true
  else scan.deletes.push(scan.group, start, end)
}
