/**
 * A network whose code is still being loaded (before step 3 of the path): documents are read, edited and kept meanwhile, as without a relay.
 */
import { backoff, createReadable, toSyncError } from '@rejoin/shared'
import type { Readable } from '@rejoin/shared'
import type { Line, LineHost, Network, NetworkOptions } from './network.ts'
import type { ConnectionStatus } from './status.ts'
import type { Loaded } from './stores/store.ts'

/** Code that does not load is asked for again within this many ms, for ever: a page may have been opened while the network was away. */
const SLOWEST = 5000

/** What `load` opens, from when it has loaded. */
export function createLateNetwork(options: NetworkOptions, load: () => Promise<(options: NetworkOptions) => Network>): Network {
  return new LateNetwork(options, load)
}

class LateNetwork implements Network {
  readonly status: Readable<ConnectionStatus>
  readonly #setStatus: (status: ConnectionStatus) => void
  readonly #options: NetworkOptions
  readonly #load: () => Promise<(options: NetworkOptions) => Network>
  readonly #waiting = new Set<LateLine>()
  #network: Network | undefined
  #attempt = 0
  #cancel: (() => void) | undefined
  #isClosed = false

  constructor(options: NetworkOptions, load: () => Promise<(options: NetworkOptions) => Network>) {
    this.#options = options
    this.#load = load
    const { readable, set } = createReadable<ConnectionStatus>({ name: 'connecting' })
    this.status = readable
    this.#setStatus = set
  }

  start(): void {
    this.#load()
      .then((open) => this.#loaded(open))
      .catch((thrown: unknown) => this.#failed(thrown))
  }

  close(): void {
    this.#isClosed = true
    this.#cancel?.()
    if (this.#network === undefined) this.#setStatus({ name: 'closed' })
    this.#network?.close()
  }

  join(host: LineHost): Line {
    if (this.#network !== undefined) return this.#network.join(host)
    const line = new LateLine(host)
    this.#waiting.add(line)
    return line
  }

  #loaded(open: (options: NetworkOptions) => Network): void {
    if (this.#isClosed) return
    const network = open(this.#options)
    this.#network = network
    network.status.subscribe(this.#setStatus)
    for (const line of this.#waiting) line.join(network)
    this.#waiting.clear()
    network.start()
  }

  #failed(thrown: unknown): void {
    if (this.#isClosed) return
    const { clock, random } = this.#options
    const delay = backoff(this.#attempt, random, { cap: SLOWEST })
    this.#attempt += 1
    this.#setStatus({
      name: 'offline',
      reason: `the code for the network does not load: ${toSyncError(thrown).reason}`,
      retryAt: clock.wall(clock.now() + delay),
    })
    this.#cancel = clock.after(delay, () => this.start())
  }
}

/** What was asked of a line is done when there is one. */
class LateLine implements Line {
  readonly #host: LineHost
  #line: Line | undefined
  #begun: { readonly cursor: Loaded['cursor'] } | undefined

  constructor(host: LineHost) {
    this.#host = host
  }

  join(network: Network): void {
    this.#line = network.join(this.#host)
    if (this.#begun !== undefined) this.#line.begin(this.#begun.cursor)
  }

  begin(cursor: Loaded['cursor']): void {
    this.#begun = { cursor }
    this.#line?.begin(cursor)
  }

  end(): void {
    this.#begun = undefined
    this.#line?.end()
  }

  want(): void {
    this.#line?.want()
  }

  announce(awareness: Uint8Array): void {
    this.#line?.announce(awareness)
  }

  get isHeld(): boolean {
    return this.#line?.isHeld ?? false
  }

  get isReplaced(): boolean {
    return this.#line?.isReplaced ?? false
  }
}
