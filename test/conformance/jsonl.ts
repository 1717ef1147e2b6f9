/**
 * The JSON lines sink under the conformance kit.
 */
import { cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { jsonl, openSink } from '@rejoin/server/sinks/jsonl'
import type { Conformance, Destination } from '@rejoin/server/testing'
import type { OpenSubject } from '../support/conformance.ts'
import { foldMessages } from '../support/deliveries.ts'

const under: Conformance = {
  name: 'jsonl',
  traits: { transactional: false, strategies: ['state', 'actions'], readable: false },
  powers: { fence: true, guard: true, identity: true, cursor: true, keys: 'its lines are not read back' },
  mechanism:
    'whole lines, fsynced before the cursor beside the file moves; a line has its version, by which its reader knows what is newer',
  destination: async (): Promise<Destination> => {
    const folder = mkdtempSync(join(tmpdir(), 'rejoin-conformance-'))
    const clear = (): void => {
      for (const name of readdirSync(folder)) rmSync(join(folder, name))
    }
    return {
      open: (context) => openSink(jsonl({ path: join(folder, 'rows.jsonl'), rotate: { bytes: 2048 } }).options, context),
      rows: async () =>
        foldMessages(
          readdirSync(folder)
            .filter((name) => name.endsWith('.jsonl'))
            .sort()
            .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1)),
        ),
      wipe: async () => clear(),
      backup: async () => {
        const copy = `${folder}-copy`
        if (existsSync(copy)) rmSync(copy, { recursive: true })
        cpSync(folder, copy, { recursive: true })
        return async () => {
          clear()
          cpSync(copy, folder, { recursive: true })
          rmSync(copy, { recursive: true })
        }
      },
      absent: {
        drop: 'lines of all targets share a file',
        poison: 'a file takes every line',
        unique: 'a file has no indexes',
        restart: 'a file has no server',
        tamper: 'lines are not read back',
      },
      close: async () => {
        rmSync(folder, { recursive: true })
      },
    }
  },
}

/** Needs no server. */
export const open: OpenSubject = async () => ({ under, server: `Node.js ${process.versions.node}`, close: async () => undefined })
