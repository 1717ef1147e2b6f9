/**
 * What `client.open` returns (step 1 of the path): one caller's view of a replica that is shared by all who opened the document.
 */
import { SyncError } from '@rejoin/shared'
import type { DocumentId, ErrorCode, Readable } from '@rejoin/shared'
import type * as Y from 'yjs'
import type { Presence } from './presence.ts'
import type { Progress } from './replica-options.ts'
import type { SharedReplica } from './replica.ts'
import type { Status } from './status.ts'
import type { OutboxRow } from './stores/store.ts'
import type { WaitOptions } from './waits.ts'

/** What `edit` returns. It holds no promise until `wait` is called. */
export interface Edit<T> {
  /** Names the edit on every device and in the quarantine; ends in `/0` when it changed nothing. */
  readonly id: string
  /** What the function returned. */
  readonly value: T
  /** Names where the edit is in the relay's log, once it was acknowledged: a backend can wait until a sink has it (`GET /v1/sinks/<name>?after=`). Undefined until then, and when the edit changed nothing. */
  readonly receipt: string | undefined
  /** Resolves when the edit has come that far; at once when it changed nothing. Rejects with the relay's code when the edit, or one before it of the same open replica, was refused for good. */
  wait(options?: WaitOptions): Promise<void>
}

/** An edit that the relay refused for good. */
export interface QuarantinedEdit {
  readonly id: string
  readonly code: ErrorCode
  readonly message: string
  /** When it was refused, ms since 1970. */
  readonly at: number
  readonly bytes: number
}

/** Refused edits: kept until they are taken after all. */
export interface Quarantine {
  list(): readonly QuarantinedEdit[]
  /** The edit's bytes, a Yjs update (v1). Throws `not_found`. */
  export(id: string): Uint8Array
  /** Sends it again, for example after a limit was raised. Throws `not_found`. */
  retry(id: string): void
}

/** One document on this device, as one caller sees it. */
export interface Replica {
  readonly document: DocumentId
  /** Shared by all handles of the document. Attach editor bindings after `whenLoaded`. */
  readonly ydoc: Y.Doc
  readonly presence: Presence
  readonly status: Readable<Status>
  /** The first sync, or a full exchange, as it arrives; undefined when none is under way. */
  readonly progress: Readable<Progress | undefined>
  readonly quarantine: Quarantine
  /**
   * Runs `change` as one edit. Throws `not_loaded` before `whenLoaded`, `closed` after `close`, `internal` when Yjs failed on the document, `bad_option` for an async function, and what `change` throws; what it had changed by then is an edit all the same.
   * Inside another edit, or inside a transaction of yours, it is part of that one.
   */
  edit<T>(change: () => T): Edit<T>
  /** Waits for every edit of this document so far. Rejects with the first one that was refused for good; stays pending while offline. */
  wait(options?: WaitOptions): Promise<void>
  /** Resolves when the device's store has been read. Needs no network. Rejects with `store_in_use`, `internal` (Yjs fails on what is stored), `closed` or `aborted`. */
  whenLoaded(options?: { readonly signal?: AbortSignal | undefined }): Promise<void>
  /** Resolves when everything up to the relay's head, as told when the present connection began, is applied. */
  whenSynced(options?: { readonly signal?: AbortSignal | undefined }): Promise<void>
  /** Ends this handle. The replica goes on until the last one is closed and its edits are sent. */
  close(): void
}

/** A handle; `onClose` is called once. */
export function createHandle(shared: SharedReplica, onClose: () => void): Replica {
  let closed = false
  const closedError = (): SyncError => new SyncError('closed', `this handle of "${shared.document}" is closed`)
  const whileOpen = <T>(run: () => Promise<T>): Promise<T> => (closed ? Promise.reject(closedError()) : run())
  return {
    document: shared.document,
    ydoc: shared.ydoc,
    presence: shared.presence,
    status: shared.status,
    progress: shared.progress,
    quarantine: createQuarantine(shared),
    edit: (change) => {
      if (closed) throw closedError()
      return makeEdit(shared, change)
    },
    wait: (options = {}) => whileOpen(() => shared.waitAll(options)),
    whenLoaded: ({ signal } = {}) => whileOpen(() => shared.loaded.wait(signal)),
    whenSynced: ({ signal } = {}) => whileOpen(() => shared.synced.wait(signal)),
    close: () => {
      if (closed) return
      closed = true
      onClose()
    },
  }
}

function makeEdit<T>(shared: SharedReplica, change: () => T): Edit<T> {
  shared.assertEditable()
  if (change.constructor.name === 'AsyncFunction') throw asyncEdit()
  const { batch, next } = shared.batch
  // No origin of ours: undo managers and bindings see an ordinary local transaction.
  const value = shared.transact(change)
  if (isThenable(value)) throw asyncEdit()
  const { incarnation } = shared
  const wait = async (options?: WaitOptions): Promise<void> => {
    // Inside a transaction of the caller's it is not over yet; a transaction is synchronous.
    if (batch.n === undefined) await Promise.resolve()
    const n = batch.n ?? next
    if (n > 0) await shared.wait(incarnation, n, options)
  }
  return {
    id: `${incarnation}/${batch.n ?? next}`,
    value,
    wait,
    get receipt() {
      return shared.whereabouts?.receipt(incarnation, batch.n ?? 0)
    },
  }
}

function createQuarantine(shared: SharedReplica): Quarantine {
  const refused = (): readonly OutboxRow[] => [...shared.outbox.rows()].filter((row) => row.refused !== undefined)
  const find = (id: string): OutboxRow => {
    const row = refused().find(({ incarnation, n }) => id === `${incarnation}/${n}`)
    if (row === undefined) throw new SyncError('not_found', `no edit "${id}" in the quarantine of "${shared.document}"`)
    return row
  }
  return {
    list: () =>
      refused().map(({ incarnation, n, update, refused: why }) => ({
        id: `${incarnation}/${n}`,
        code: (why?.code ?? 'internal') as ErrorCode,
        message: why?.message ?? '',
        at: why?.at ?? 0,
        bytes: update.length,
      })),
    export: (id) => find(id).update.slice(),
    retry: (id) => {
      const { incarnation, n } = find(id)
      shared.retry(incarnation, n)
    },
  }
}

function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}

function asyncEdit(): SyncError {
  return new SyncError('bad_option', 'an edit is synchronous: await first, then edit')
}
