/**
 * The other two modes of Redis: a stream per target for every row or event, and caches whose keys are deleted.
 */
import { canonicalJson } from '@rejoin/shared'
import { createConnection } from './connection.ts'
import type { Delivery } from './delivery.ts'
import { messageOf } from './message.ts'
import type { CursorContext, Link } from './redis-link.ts'
import { createHeldCursor, namesOf } from './redis-link.ts'
import { PUBLISH } from './redis-scripts.ts'
import type { Key, SinkContext } from './sink.ts'

/** Messages, or keys, of one call. */
const MAX_CALL = 250

/** A stream `<prefix><target>` whose entries have the fields id, version and message. `maxLength` 0: without end. */
export function createRedisStream(
  { prefix, maxLength }: { readonly prefix: string; readonly maxLength: number },
  context: CursorContext & Pick<SinkContext, 'collections'>,
  connect: () => Promise<Link>,
): Delivery {
  const names = namesOf(prefix, context.name)
  const streams = Object.keys(context.collections).map((target) => `${prefix}${target}`)
  const link = createConnection(connect)
  const open = (): Promise<Link> => link.open()
  const cursor = createHeldCursor(open, names, context, canonicalJson({ as: 'stream', prefix }))
  return {
    begin: async () => {
      await link.renew()
      return cursor.begin()
    },
    deliver: async (rows, { to }, signal) => {
      for (let i = 0; i < rows.length; i += MAX_CALL) {
        signal.throwIfAborted()
        const part = rows.slice(i, i + MAX_CALL)
        const given = part.flatMap((row) => {
          const message = messageOf(row, to)
          return [message.id, `${message.version}`, JSON.stringify(message)]
        })
        const keys = [names.cursor, names.recent, ...part.map(({ key }) => `${prefix}${key.collection}`)]
        const answer = await (await open()).run(PUBLISH, keys, [...cursor.known(), `${to.version}`, `${maxLength}`, ...given])
        if (answer === 'fenced' || answer === 'lost') return answer
      }
      return []
    },
    moved: (place) => cursor.moved(place),
    check: () => cursor.check(),
    drop: async () => {
      await (await open()).command('UNLINK', names.cursor, names.graves, names.recent, ...streams)
    },
    close: () => link.close(),
  }
}

/** Deletes the keys that the templates name for each row that changed: `cache:pets:{document}:{id}`. Keeps nothing there. */
export function createRedisInvalidation(templates: readonly string[], connect: () => Promise<Link>): Delivery {
  const link = createConnection(connect)
  const open = (): Promise<Link> => link.open()
  return {
    begin: async () => {
      await link.renew()
      await open()
      return {}
    },
    deliver: async (rows, _, signal) => {
      const keys = [...new Set(rows.flatMap(({ key }) => templates.map((template) => filled(template, key))))]
      for (let i = 0; i < keys.length; i += MAX_CALL) {
        signal.throwIfAborted()
        await (await open()).command('UNLINK', ...keys.slice(i, i + MAX_CALL))
      }
      return []
    },
    close: () => link.close(),
  }
}

function filled(template: string, { collection, document, id }: Key): string {
  return template.replaceAll(/\{(collection|document|id)\}/gu, (_, name: string) =>
    name === 'id' ? id : name === 'document' ? document : collection,
  )
}
