/**
 * The handler sink under the conformance kit, with a function that stores what is newer and refuses what is poison.
 */
import { handler, openSink } from '@rejoin/server/sinks/handler'
import type { Message } from '@rejoin/server/sinks/handler'
import { POISON } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import type { SinkContext } from '#server/sinks/sink.js'
import type { OpenSubject } from '../support/conformance.ts'
import { foldMessages } from '../support/deliveries.ts'

const under: Conformance = {
  name: 'handler',
  traits: { transactional: false, strategies: ['state', 'actions'], readable: false },
  powers: {
    fence: true,
    guard: true,
    identity: 'a function cannot be asked whose it is',
    cursor: 'a function keeps no cursor',
  },
  mechanism: 'confirmed when it returns; cursor and fence in the notes of the relay; a change has its version',
  destination: async (): Promise<Destination> => {
    let taken: string[] = []
    let isPoison = false
    const take = async (changes: readonly Message[]) => {
      const refused = changes.filter(({ value }) => isPoison && value?.['name'] === POISON)
      taken.push(...changes.filter((change) => !refused.includes(change)).map((change) => JSON.stringify(change)))
      return refused.map(({ id }) => ({ id, reason: 'poison is not allowed' }))
    }
    const { options, functions } = handler({}, take)
    return {
      open: (context) => openSink(options, { ...context, functions: (functions ?? {}) as SinkContext['functions'] }),
      rows: async () => foldMessages(taken),
      wipe: async () => {
        taken = []
      },
      poison: async () => {
        isPoison = true
        return async () => {
          isPoison = false
        }
      },
      absent: {
        drop: 'a function has no targets',
        backup: 'what a function stores is its own',
        unique: 'what a function stores is its own',
        tamper: 'what a function stores is its own',
        restart: 'it lives in this process',
      },
      close: async () => undefined,
    }
  },
}

/** Needs no server. */
export const open: OpenSubject = async () => ({ under, server: `Node.js ${process.versions.node}`, close: async () => undefined })
