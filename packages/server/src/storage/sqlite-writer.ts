/**
 * The writer's thread (step 5 of the path): group commit. What arrived during the last fsync is the next transaction; there is no timer.
 */
import { join } from 'node:path'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { DocumentId } from '@rejoin/shared'
import type { Snapshot } from '../log/log.ts'
import { LogError } from '../log/log.ts'
import { createBallast } from './ballast.ts'
import { packResults, unpackAppends } from './pack.ts'
import { createAppend } from './sqlite-append.ts'
import { createCheckpoints } from './sqlite-checkpoint.ts'
import { Documents } from './sqlite-documents.ts'
import type { Synchronous } from './sqlite-file.ts'
import { failureOf, metaOf, openToWrite } from './sqlite-file.ts'
import type { Sliced } from './sqlite-fold.ts'
import { createFolding } from './sqlite-fold.ts'
import { createLinks } from './sqlite-links.ts'
import type { Refusal } from './thread.ts'
import { refusalOf } from './thread.ts'

/** What the thread is started with. */
export interface WriterData {
  readonly directory: string
  readonly synchronous: Synchronous
  readonly ballast: number | undefined
}

/** Main thread → writer. */
export type ToWriter =
  | { readonly type: 'append'; readonly bytes: Uint8Array }
  | { readonly type: 'create'; readonly call: number; readonly document: DocumentId }
  | { readonly type: 'fold'; readonly call: number; readonly snapshot: Snapshot }
  | { readonly type: 'trim'; readonly call: number; readonly before: number; readonly keepAfter: number }
  | { readonly type: 'close' }

/** Writer → main thread. Calls of `append` are answered in order: `appended` as many as it packs, `refused` the next `calls`. */
export type FromWriter =
  | { readonly type: 'ready'; readonly id: string }
  | { readonly type: 'appended'; readonly bytes: Uint8Array }
  | { readonly type: 'refused'; readonly calls: number; readonly refusal: Refusal }
  | { readonly type: 'done'; readonly call: number; readonly value: number }
  | { readonly type: 'undone'; readonly call: number; readonly refusal: Refusal }
  | { readonly type: 'failed'; readonly message: string }
  | { readonly type: 'closed' }

type Group = Extract<ToWriter, { type: 'append' | 'create' }>
type Task = { readonly call: number; readonly work: Sliced<number | void> }

/** Bytes of appends that one transaction takes; the first message is taken whatever its size. */
const MAX_GROUP_BYTES = 16 * 1024 * 1024

const port = parentPort
if (port === null) throw new Error('the writer runs in a worker thread')
const { directory, synchronous, ballast: ballastBytes } = workerData as WriterData
const db = openToWrite(directory, synchronous)
const links = createLinks(db)
const documents = new Documents(db, links)
const append = createAppend(db, documents)
const folding = createFolding({ db, documents, links, isFull: () => full })
const ballast = createBallast(join(directory, 'ballast'), ballastBytes)
const checkpoints = createCheckpoints(db)

let full = false
let state: 'open' | 'closing' | 'over' = 'open'
const groups: Group[] = []
const tasks: Task[] = []

port.on('message', (message: ToWriter) => {
  accept(message)
  work()
})
tell({ type: 'ready', id: String(metaOf(db, 'id')) })

function tell(message: FromWriter, transfer: readonly ArrayBuffer[] = []): void {
  port?.postMessage(message, transfer)
}

function accept(message: ToWriter): void {
  switch (message.type) {
    case 'append':
    case 'create':
      groups.push(message)
      return
    case 'fold':
      tasks.push({ call: message.call, work: folding.fold(message.snapshot) })
      return
    case 'trim':
      tasks.push({ call: message.call, work: folding.trim(message.before, message.keepAfter) })
      return
    case 'close':
      state = 'closing'
      // Each of their slices is whole in itself; what remains is done another time.
      for (const { call } of tasks.splice(0))
        tell({ type: 'undone', call, refusal: refusalOf(new LogError('overloaded', 'the log is closing')) })
  }
}

/** Works until nothing waits. A step of background work follows every transaction, so that neither starves the other. */
function work(): void {
  while (!isOver()) {
    for (let next = receive(); next !== undefined; next = receive()) accept(next)
    if (groups.length === 0 && tasks.length === 0) break
    if (groups.length > 0) commit(takeGroup())
    if (!isOver() && tasks.length > 0) step()
    if (!isOver())
      guard(() => {
        checkpoints.bySize()
      })
  }
  if (state === 'closing') close()
}

/** A function, since what is called in between may have changed it. */
function isOver(): boolean {
  return state === 'over'
}

function receive(): ToWriter | undefined {
  return port === null ? undefined : (receiveMessageOnPort(port)?.message as ToWriter | undefined)
}

function takeGroup(): Group[] {
  let bytes = 0
  const end = groups.findIndex((message) => {
    bytes += message.type === 'append' ? message.bytes.length : 0
    return bytes > MAX_GROUP_BYTES
  })
  return groups.splice(0, end < 0 ? groups.length : Math.max(end, 1))
}

function commit(group: readonly Group[]): void {
  const creates = group.filter((message) => message.type === 'create')
  const calls = group.flatMap((message) => (message.type === 'append' ? unpackAppends(message.bytes) : []))
  try {
    if (!hasRoom()) throw new LogError('full', 'the disk is full')
    const results = append(
      creates.map((message) => message.document),
      calls,
    )
    const bytes = packResults(results)
    if (results.length > 0) tell({ type: 'appended', bytes }, [bytes.buffer])
    for (const { call } of creates) tell({ type: 'done', call, value: 0 })
  } catch (error) {
    const refusal = refuse(error)
    if (refusal === undefined) return
    if (calls.length > 0) tell({ type: 'refused', calls: calls.length, refusal })
    for (const { call } of creates) tell({ type: 'undone', call, refusal })
  }
}

function step(): void {
  const task = tasks[0]
  if (task === undefined) return
  try {
    const { done, value } = task.work.next()
    if (done !== true) return
    tell({ type: 'done', call: task.call, value: value ?? 0 })
  } catch (error) {
    const refusal = refuse(error)
    if (refusal !== undefined) tell({ type: 'undone', call: task.call, refusal })
  }
  tasks.shift()
}

/** What the caller is told; undefined when the thread is over, and the main thread then rejects whatever waits. */
function refuse(error: unknown): Refusal | undefined {
  if (error instanceof LogError && error.failure !== 'full') return refusalOf(error)
  const failure = error instanceof LogError ? error.failure : failureOf(error)
  const message = error instanceof Error ? error.message : String(error)
  if (failure === 'failed') {
    fail(message)
    return undefined
  }
  if (failure === 'full' && !full) enterFull()
  return refusalOf(new LogError(failure, message))
}

/** A durability barrier failed: no transaction, no checkpoint and no answer leaves this thread any more. */
function fail(message: string): void {
  state = 'over'
  tell({ type: 'failed', message })
}

function guard(run: () => void): void {
  try {
    run()
  } catch (error) {
    refuse(error)
  }
}

/** The ballast's space is for folding, trimming and the checkpoint, which make room. Appends wait until it can be held again. */
function enterFull(): void {
  full = true
  ballast.release()
  makeRoom()
}

function makeRoom(): void {
  guard(() => {
    checkpoints.truncateWithin(ballast.free())
  })
}

function hasRoom(): boolean {
  if (!full) return true
  makeRoom()
  if (!isOver() && ballast.restore()) full = false
  return !full
}

function close(): void {
  guard(() => {
    checkpoints.truncate()
  })
  // `fail` may have come between: then nothing more is touched.
  if (isOver()) return
  state = 'over'
  db.close()
  tell({ type: 'closed' })
  port?.close()
}
