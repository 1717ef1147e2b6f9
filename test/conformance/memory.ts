/**
 * The memory sink under the conformance kit.
 */
import { POISON, createMemoryDestination, openMemorySink } from '@rejoin/server/testing'
import type { Conformance, Destination } from '@rejoin/server/testing'
import { keyText } from '#server/view/view.js'
import type { OpenSubject } from '../support/conformance.ts'

const under: Conformance = {
  name: 'memory',
  traits: { transactional: true, strategies: ['state', 'actions'], readable: true },
  powers: { fence: true, guard: true, identity: true, cursor: true },
  mechanism: 'a value in memory: rows, cursor and fence change together',
  destination: async (): Promise<Destination> => {
    const memory = createMemoryDestination()
    return {
      open: async (context) => openMemorySink(memory, context),
      rows: async () => [...memory.rows.values()].flatMap(({ key, value }) => (value === null ? [] : [{ key, value }])),
      wipe: async () => void Object.assign(memory, createMemoryDestination()),
      drop: async (target) => {
        for (const [text, { key }] of memory.rows) if (key.collection === target) memory.rows.delete(text)
        memory.place = undefined
      },
      backup: async () => {
        const copy = structuredClone({ ...memory, hook: undefined })
        return async () => void Object.assign(memory, structuredClone(copy), { hook: memory.hook })
      },
      poison: async () => {
        memory.hook = (_at, value) => (value?.['name'] === POISON ? 'poison is not allowed' : undefined)
        return async () => {
          memory.hook = () => undefined
        }
      },
      tamper: async (key, field, value) => {
        const row = memory.rows.get(keyText(key))
        if (row?.value !== undefined && row.value !== null)
          memory.rows.set(keyText(key), { ...row, value: { ...row.value, [field]: value } })
      },
      absent: { unique: 'a map has no unique indexes', restart: 'it lives in this process' },
      close: async () => undefined,
    }
  },
}

/** Needs no server. */
export const open: OpenSubject = async () => ({ under, server: `Node.js ${process.versions.node}`, close: async () => undefined })
