/**
 * Who is here: a y-protocols Awareness that rides the wire beside the log (step 3 of the path) and never enters it.
 */
import { DEFAULT_LIMITS, SyncError, shielded } from '@rejoin/shared'
import type { Clock } from '@rejoin/shared'
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate, removeAwarenessStates } from 'y-protocols/awareness'
import type * as Y from 'yjs'

/** `replica.presence`. */
export interface Presence {
  /** For any editor binding that shows cursors. Others' states carry the `principal` that the relay stamped on them. */
  readonly awareness: Awareness
  /** Why the local state is not being shown to others, when it is not: it is above 2 KiB. */
  readonly problem: SyncError | undefined
}

/** At most one message in this many ms: a moving cursor is 60 changes a second. */
const THROTTLE = 50

const REMOTE = Symbol('rejoin presence')

export class PresenceChannel implements Presence {
  problem: SyncError | undefined
  readonly #ydoc: Y.Doc
  readonly #clock: Clock
  readonly #send: (awareness: Uint8Array) => void
  #awareness: Awareness | undefined
  #online = false
  #shown = false
  #dirty = false
  #cancel: (() => void) | undefined

  constructor(ydoc: Y.Doc, clock: Clock, send: (awareness: Uint8Array) => void) {
    this.#ydoc = ydoc
    this.#clock = clock
    this.#send = send
  }

  /** Announced to others from the first time the application asks for it. */
  get awareness(): Awareness {
    const awareness = this.#make()
    if (!this.#shown) {
      this.#shown = true
      this.#dirty = true
      this.#flush()
    }
    return awareness
  }

  receive(update: Uint8Array): void {
    shielded(() => applyAwarenessUpdate(this.#make(), update, REMOTE))
  }

  /** Others may have seen us go: the state is announced under a new clock. */
  online(): void {
    this.#online = true
    const state = this.#awareness?.getLocalState()
    if (!this.#shown || state === undefined || state === null) return
    // A listener of the application that throws keeps Awareness from telling ours.
    this.#dirty = true
    shielded(() => this.#awareness?.setLocalState(state))
    if (this.#cancel === undefined) this.#flush()
  }

  /** Nobody else can be seen. */
  offline(): void {
    this.#online = false
    const awareness = this.#awareness
    if (awareness === undefined) return
    const others = [...awareness.states.keys()].filter((client) => client !== awareness.clientID)
    shielded(() => removeAwarenessStates(awareness, others, REMOTE))
    // Their clocks too: the relay tells the same states again after a reconnect, and an equal clock would pass for old news.
    for (const client of awareness.meta.keys()) if (client !== awareness.clientID) awareness.meta.delete(client)
  }

  destroy(): void {
    this.#cancel?.()
    this.#online = false
    this.#awareness?.off('update', this.#update)
    shielded(() => this.#awareness?.destroy())
  }

  /** Made when first asked for or first heard of: a replica without presence keeps no timer. */
  #make(): Awareness {
    if (this.#awareness !== undefined) return this.#awareness
    this.#awareness = new Awareness(this.#ydoc)
    // Its timer must not keep a Node process alive.
    const timer = this.#awareness._checkInterval as unknown as { unref?: () => void }
    timer.unref?.()
    this.#awareness.on('update', this.#update)
    return this.#awareness
  }

  readonly #update = ({ added, updated, removed }: { added: number[]; updated: number[]; removed: number[] }, origin: unknown): void => {
    const own = this.#awareness?.clientID
    if (origin === REMOTE || own === undefined || ![...added, ...updated, ...removed].includes(own)) return
    this.#dirty = true
    if (this.#cancel === undefined) this.#flush()
  }

  #flush(): void {
    const awareness = this.#awareness
    if (!this.#online || !this.#shown || !this.#dirty || awareness === undefined) return
    this.#dirty = false
    const update = encodeAwarenessUpdate(awareness, [awareness.clientID])
    const tooLarge = update.length > DEFAULT_LIMITS.presence
    this.problem = tooLarge
      ? new SyncError('limit', `presence of ${update.length} bytes, at most ${DEFAULT_LIMITS.presence} are shown`)
      : undefined
    if (!tooLarge) this.#send(update)
    this.#cancel = this.#clock.after(THROTTLE, () => {
      this.#cancel = undefined
      this.#flush()
    })
  }
}
