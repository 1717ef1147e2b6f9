/**
 * A search index in Elasticsearch or OpenSearch (step 8 of the path): a document per row, guarded by our version as its own, behind an alias that hides what is deleted.
 */
import type { Clock } from '@rejoin/shared'
import { SyncError, systemClock } from '@rejoin/shared'
import type { Delivery } from './delivery.ts'
import { deliverySink } from './delivery.ts'
import type { Notebook } from './elasticsearch-cursor.ts'
import { createCursorDocument, uuidsOf } from './elasticsearch-cursor.ts'
import type { Ask, Node } from './elasticsearch-http.ts'
import { createAsk } from './elasticsearch-http.ts'
import type { Standing } from './elasticsearch-index.ts'
import { change, cutOver, dropTarget, planOf, standingOf, targetsOf } from './elasticsearch-index.ts'
import { createGraveyard } from './elasticsearch-purge.ts'
import { createProof, highestStamp, keysOf } from './elasticsearch-read.ts'
import { writeRows } from './elasticsearch-write.ts'
import type { Key, OpenSink, SinkContext, SinkPlace, SinkSpec, SinkTraits } from './sink.ts'
import type { ForwardOptions } from './spec.ts'
import { sinkSpec } from './spec.ts'

const TRAITS: SinkTraits = { transactional: false, strategies: ['state'], readable: true }
const NAMES = ['node', 'index', 'auth', 'apiKey', 'visible', 'timeout', 'cutover']

/** Where the cluster is, who we are there, and which index a target is written to. Checked by `elasticsearch()`, before anything is sent. */
export interface ElasticsearchOptions extends ForwardOptions {
  /** Where the cluster answers: `https://search.example.org:9200`. */
  readonly node: string
  /** Alias to search; `{collection}` stands for the target's name in lower case. It stands for the index `<index>-1`. @default '{collection}' */
  readonly index?: string | undefined
  /** Name and password. @default none */
  readonly auth?: { readonly username: string; readonly password: string } | undefined
  /** An API key as it is sent, base64. @default none */
  readonly apiKey?: string | undefined
  /** Rows count as written only when a search finds them, up to a second later. @default false */
  readonly visible?: boolean | undefined
  /** Until the cluster has answered, in seconds. @default 30 */
  readonly timeout?: number | undefined
  /** A changed projection or mapping: 'in place' rewrites the documents where they are; 'beside' fills a new index and then moves the alias. @default 'in place' */
  readonly cutover?: 'in place' | 'beside' | undefined
}

/** A search index: `sinks: { search: elasticsearch({ node: 'http://127.0.0.1:9200', index: 'pets', projection: petCard }) }`. Throws `SyncError('bad_option')`. */
export function elasticsearch(options: ElasticsearchOptions): SinkSpec {
  const own: Record<string, unknown> = Object.fromEntries(NAMES.map((name) => [name, options[name as keyof ElasticsearchOptions]]))
  parse(own)
  return sinkSpec('elasticsearch', import.meta.url, TRAITS, { ...options }, { options: own, names: NAMES })
}

/** Opens the index, in the worker. */
export const openSink: OpenSink = async (options, context) => deliverySink(createElasticsearch(options, context), context)

/** The delivery. `clock` for tests. */
export function createElasticsearch(
  options: Readonly<Record<string, unknown>>,
  context: SinkContext,
  clock: Clock = systemClock,
): Delivery {
  const { node, pattern, visible, beside } = parse(options)
  const { name, log, forward } = context
  const ask = createAsk(node)
  const targets = targetsOf(pattern, context)
  const cursor = createCursorDocument(ask, name)
  const graveyard = createGraveyard(ask, targets, 2 * node.timeout, clock)
  const writing = { ask, targets: new Map(targets.map((target) => [target.name, target])), visible }
  const standings = (): Promise<readonly Standing[]> => Promise.all(targets.map((target) => standingOf(ask, name, target, beside)))
  let open: Open | undefined

  /** Whose it is, and whether everything is still where it was left. */
  const stand = async (): Promise<'ours' | 'fenced' | 'lost'> => {
    const [notebook, uuids] = await Promise.all([
      cursor.read(),
      uuidsOf(
        ask,
        targets.map(({ write }) => write),
      ),
    ])
    if (open === undefined || notebook === undefined || notebook.log !== log || notebook.fence < open.fence) return 'lost'
    if (notebook.fence > open.fence) return 'fenced'
    return isSame(uuids, open.uuids) ? 'ours' : 'lost'
  }
  return {
    begin: async () => {
      open = undefined
      const known = await cursor.read()
      if (known !== undefined && known.log !== log && !context.adopt) throw otherLog(context, known)
      const found = await standings()
      for (const standing of found) await change(ask, name, standing)
      const uuids = await uuidsOf(
        ask,
        targets.map(({ write }) => write),
      )
      // Without a place something was new before, and it was not written since.
      const isNew =
        known?.log !== log ||
        known.place === undefined ||
        found.some((standing) => standing.change !== undefined) ||
        !isSame(known.uuids, uuids)
      const place = isNew ? undefined : known.place
      const stamp = Math.max(known?.stamp ?? 0, await highestStamp(ask, targets))
      const taken = await cursor.change((now) => ({ log, fence: (now?.fence ?? 0) + 1, place, stamp, uuids }))
      open = {
        fence: taken?.fence ?? 0,
        uuids,
        listed: new Set(),
        moving: found.filter(({ read, written }) => read !== written && read !== undefined),
      }
      graveyard.dig(stamp)
      // Ended after everything was written, and before readers went over.
      if (place !== undefined) await switchOver(ask, open, place)
      return { place, stamp, isNew }
    },
    deliver: async (rows, commit, signal) => {
      const standing = await stand()
      if (standing !== 'ours') return standing
      if (rows.some(({ value }) => value === null)) graveyard.dig(commit.to.version)
      return writeRows(writing, rows, commit, signal)
    },
    check: async () => {
      const standing = await stand()
      return standing === 'ours' ? undefined : standing
    },
    moved: async (place) => {
      if (open === undefined) throw new SyncError('closed', `sink ${name} has not begun`)
      const { fence } = open
      await switchOver(ask, open, place)
      // Another's document is left as it is: the next delivery says whose it is.
      await cursor.change((now) => (now?.fence === fence ? { ...now, place, stamp: Math.max(now.stamp, place.version) } : undefined))
      await graveyard.purge()
    },
    keys: async (limit, from) => {
      const keys: Key[] = []
      for (const target of [...targets].sort((a, b) => (a.name < b.name ? -1 : 1))) {
        if (keys.length >= limit) break
        if (from !== undefined && target.name < from.collection) continue
        if (open?.listed.has(target.name) !== true) await ask({ method: 'POST', path: `/${target.write}/_refresh` })
        open?.listed.add(target.name)
        const behind = from?.collection === target.name ? from : undefined
        keys.push(...(await keysOf(ask, target, limit - keys.length, behind, forward.strangers === 'delete')))
      }
      return keys
    },
    proof: createProof(ask, targets, cursor),
    plan: async () => (await standings()).flatMap(planOf),
    drop: async () => {
      for (const target of targets) await dropTarget(ask, target)
      await cursor.drop()
    },
    close: async () => undefined,
  }
}

/** While it is ours. */
interface Open {
  readonly fence: number
  readonly uuids: Notebook['uuids']
  /** Targets whose keys were asked for: searches see what was there then. */
  readonly listed: Set<string>
  /** Targets whose readers still see the old index. */
  moving: readonly Standing[]
}

async function switchOver(ask: Ask, open: Open, place: SinkPlace): Promise<void> {
  if (open.moving.length === 0 || place.refreshed !== undefined) return
  for (const standing of open.moving) await cutOver(ask, standing)
  open.moving = []
}

function isSame(a: Notebook['uuids'], b: Notebook['uuids']): boolean {
  const names = Object.keys(a)
  return names.length === Object.keys(b).length && names.every((index) => a[index] === b[index])
}

function otherLog({ name, log }: SinkContext, known: Notebook): SyncError {
  return new SyncError(
    'bad_option',
    `sink ${name}: that cluster mirrors the log ${known.log} under this sink's name, but this is the log ${log}; name the sink otherwise, or run rejoin sinks adopt ${name}`,
  )
}

interface Settings {
  readonly node: Node
  readonly pattern: string
  readonly visible: boolean
  readonly beside: boolean
}

const DEFAULT_TIMEOUT = 30

function parse({
  node,
  index = '{collection}',
  auth,
  apiKey,
  visible = false,
  timeout = DEFAULT_TIMEOUT,
  cutover = 'in place',
}: Readonly<Record<string, unknown>>): Settings {
  if (typeof timeout !== 'number' || !(timeout > 0 && timeout <= 3600)) refuse('timeout is a number of seconds above 0')
  if (cutover !== 'in place' && cutover !== 'beside') refuse("cutover is 'in place' or 'beside'")
  if (typeof visible !== 'boolean') refuse('visible is true or false')
  if (typeof index !== 'string' || !/^[a-z0-9][a-z0-9._-]{0,199}$/u.test(index.replaceAll('{collection}', 'c')))
    refuse("index is a name in lower case, such as 'pets' or 'clinic-{collection}'")
  return {
    node: { url: urlOf(node), timeout: timeout * 1000, ...credentials(auth, apiKey) },
    pattern: index,
    visible,
    beside: cutover === 'beside',
  }
}

function urlOf(node: unknown): string {
  if (typeof node !== 'string' || !URL.canParse(node)) refuse('node is a whole URL, such as http://127.0.0.1:9200')
  const url = new URL(node)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') refuse(`node begins with https:// or http://, not ${url.protocol}`)
  if (url.username !== '' || url.password !== '') refuse('node holds a user name or password; write auth: { username, password }')
  if (url.search !== '' || url.hash !== '') refuse('node has no query')
  return url.href.replace(/\/+$/u, '')
}

function credentials(auth: unknown, apiKey: unknown): Pick<Node, 'authorization' | 'secrets'> {
  if (auth !== undefined && apiKey !== undefined) refuse('auth and apiKey: one of them')
  if (apiKey !== undefined) {
    if (typeof apiKey !== 'string' || !/^[\x21-\x7e]+$/u.test(apiKey)) refuse('apiKey is a text of visible ASCII')
    return { authorization: `ApiKey ${apiKey}`, secrets: [apiKey] }
  }
  if (auth === undefined) return { authorization: undefined, secrets: [] }
  const { username, password } = (typeof auth === 'object' ? auth : {}) as Readonly<Record<string, unknown>>
  if (typeof username !== 'string' || typeof password !== 'string' || password === '' || username.includes(':'))
    refuse('auth is { username, password }, two texts')
  const token = Buffer.from(`${username}:${password}`).toString('base64')
  return { authorization: `Basic ${token}`, secrets: [token, password] }
}

function refuse(problem: string): never {
  throw new SyncError('bad_option', `elasticsearch(): ${problem}`)
}
