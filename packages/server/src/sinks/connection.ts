/**
 * One connection of a sink at a time (step 8 of the path): opened when it is first needed, by one of many who ask; and none that comes after the sink was closed.
 */
import { SyncError } from '@rejoin/shared'

/** What to say when the client of an optional peer cannot be loaded: it is not there, or it is broken. `call` such as 'redis()'. */
export function missingPeer(error: unknown, call: string, ...packages: readonly string[]): SyncError {
  const isAbsent = error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND'
  const names = packages.join(' ')
  const why = isAbsent ? `${call} needs ${names}: npm install ${names}` : `${call} cannot load ${names}: ${String(error)}`
  return new SyncError('bad_option', why, { cause: error })
}

/** What an adapter holds in place of a connection. */
export interface Connection<Link> {
  open(): Promise<Link>
  /** Lets the one there is go; the next who asks opens another. */
  renew(): Promise<void>
  /** For good: one that is being opened is closed as soon as it is there. */
  close(): Promise<void>
}

export function createConnection<Link extends { close(): void | Promise<void> }>(connect: () => Promise<Link>): Connection<Link> {
  let link: Promise<Link> | undefined
  let isClosed = false
  const letGo = async (): Promise<void> => {
    const old = link
    link = undefined
    // One that never came has been told of where it was asked for.
    await old?.then(
      (opened) => opened.close(),
      () => undefined,
    )
  }
  return {
    open: () => {
      if (isClosed) return Promise.reject(new SyncError('closed', 'the sink is closed'))
      if (link !== undefined) return link
      const opening: Promise<Link> = connect().catch((error: unknown) => {
        if (link === opening) link = undefined
        throw error
      })
      link = opening
      return opening
    },
    renew: letGo,
    close: () => {
      isClosed = true
      return letGo()
    },
  }
}
