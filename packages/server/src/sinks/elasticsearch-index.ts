/**
 * The indices of an Elasticsearch sink (step 8 of the path): for each target an index `pets-1` behind two aliases. Whoever searches `pets` does not see what is deleted; we write through `pets-write`.
 */
import type { FieldKind, Fields } from '@rejoin/shared'
import { SyncError, canonicalJson } from '@rejoin/shared'
import type { Ask, Body } from './elasticsearch-http.ts'
import { objectOf, textOf } from './elasticsearch-http.ts'
import type { SinkContext } from './sink.ts'

/** Version of the view at which the document was last written. */
export const STAMP = 'rejoin_version'
/** true on what remains of a deleted record until it is purged. */
export const DELETED = 'rejoin_deleted'

/** Lucene's longest term has 32,766 bytes; what is longer can be found by its words only. */
const MAX_TERM_CHARACTERS = 8_191

/** One target, as it is to be. */
export interface Target {
  readonly name: string
  /** Alias for readers. */
  readonly alias: string
  /** Alias for us. */
  readonly write: string
  /** Undefined: not declared, so the cluster makes the mapping of what comes. */
  readonly fields: Fields | undefined
  readonly revision: number
}

/** What has to be done so that a target stands. */
export type Change =
  | { readonly type: 'create'; readonly index: string; readonly doomed: string | undefined; readonly beside: string | undefined }
  | { readonly type: 'extend'; readonly index: string; readonly added: readonly string[] }

/** Where a target stands. */
export interface Standing {
  readonly target: Target
  readonly change: Change | undefined
  /** Behind the readers' alias; another one than the written one while a new index is filled beside it. */
  readonly read: string | undefined
  readonly written: string
}

const WORDS = { type: 'text', fields: { keyword: { type: 'keyword', ignore_above: MAX_TERM_CHARACTERS } } } as const
const TYPES: Readonly<Record<FieldKind, Body>> = {
  string: WORDS,
  text: { type: 'text' },
  richText: { type: 'text' },
  number: { type: 'double' },
  boolean: { type: 'boolean' },
  // A year that the cluster's dates do not reach is kept, and not found.
  date: { type: 'date', format: 'strict_date_optional_time', ignore_malformed: true },
  // Any JSON; kept, not searched: one field may be a text here and an object there.
  json: { type: 'object', enabled: false },
}

/** The targets of a sink. Throws `SyncError('bad_option')`. */
export function targetsOf(pattern: string, { name: sink, collections, untyped, forward }: SinkContext): readonly Target[] {
  const names = Object.keys(collections)
  if (names.length > 1 && !pattern.includes('{collection}'))
    throw new SyncError(
      'bad_option',
      `sink ${sink}: index is '${pattern}' and there are ${names.length} targets, ${names.join(', ')}; write index: '${pattern}-{collection}', or give it one projection`,
    )
  return names.map((name) => {
    const alias = pattern.replaceAll('{collection}', name.toLowerCase())
    const revision = forward.projections.find(({ to }) => to === name)?.revision ?? 0
    const fields = untyped.includes(name) ? undefined : collections[name]?.fields
    return { name, alias, write: `${alias}-write`, fields, revision }
  })
}

/** Looks at what is there. `beside`: what cannot be changed in place gets an index beside the old one. */
export async function standingOf(ask: Ask, sink: string, target: Target, beside: boolean): Promise<Standing> {
  const { alias, write } = target
  const found = await ask({ method: 'GET', path: `/_alias/${alias},${write}`, expect: [404] })
  const indices = Object.entries(found.body).map(([index, value]) => [index, Object.keys(objectOf(objectOf(value)['aliases']))] as const)
  const behind = (name: string): readonly string[] => indices.filter(([, names]) => names.includes(name)).map(([index]) => index)
  const [reads, writes] = [behind(alias), behind(write)]
  if (reads.length > 1 || writes.length > 1)
    throw new SyncError(
      'bad_option',
      `sink ${sink}: the alias ${alias} or ${write} stands for several indices; remove it from those that are not ours`,
    )
  const [read, written] = [reads[0], writes[0]]
  if (written === undefined) {
    await refuseForeign(ask, sink, target, read)
    // A left-over of ours without its alias stays behind: it may be somebody's copy.
    return { target, read, ...(await creation(ask, target, read, undefined)) }
  }
  const mapping = await mappingOf(ask, written)
  const meta = ownMeta(mapping)
  if (meta === undefined) throw foreign(sink, write)
  const declared = metaOf(sink, target)
  if (canonicalJson(meta) === canonicalJson(declared)) return { target, read, written, change: undefined }
  const problem = mismatch(objectOf(meta['fields']), target)
  const revised = meta['revision'] !== target.revision
  if (problem !== undefined && !beside)
    throw new SyncError(
      'bad_option',
      `sink ${sink}: ${alias}: ${problem}, and a mapping cannot be changed; write cutover: 'beside', which fills a new index and then switches`,
    )
  if (beside && (revised || problem !== undefined))
    return { target, read, ...(await creation(ask, target, read, written === read ? undefined : written)) }
  const known = objectOf(mapping['properties'])
  const added = Object.keys(target.fields ?? {}).filter((field) => !Object.hasOwn(known, field))
  return { target, read, written, change: { type: 'extend', index: written, added } }
}

async function creation(
  ask: Ask,
  { alias }: Target,
  beside: string | undefined,
  doomed: string | undefined,
): Promise<{ readonly written: string; readonly change: Change }> {
  const { body } = await ask({
    method: 'GET',
    path: `/${alias}-*/_settings?expand_wildcards=all&filter_path=*.settings.index.uuid`,
    expect: [404],
  })
  const numbers = Object.keys(body).map((index) => (index.startsWith(`${alias}-`) ? Number(index.slice(alias.length + 1)) : Number.NaN))
  const index = `${alias}-${Math.max(0, ...numbers.filter(Number.isSafeInteger)) + 1}`
  return { written: index, change: { type: 'create', index, beside, doomed } }
}

/** Only what we made is written to. */
async function refuseForeign(ask: Ask, sink: string, { alias, write }: Target, read: string | undefined): Promise<void> {
  if (read !== undefined && ownMeta(await mappingOf(ask, read)) === undefined) throw foreign(sink, alias)
  if (read !== undefined) return
  for (const name of [alias, write]) {
    const { status } = await ask({ method: 'GET', path: `/${name}/_mapping`, expect: [404] })
    if (status !== 404) throw foreign(sink, name)
  }
}

function foreign(sink: string, name: string): SyncError {
  return new SyncError(
    'bad_option',
    `sink ${sink}: there is an index or alias ${name} already, and it was not made by Rejoin; choose another index`,
  )
}

async function mappingOf(ask: Ask, index: string): Promise<Body> {
  const { body } = await ask({ method: 'GET', path: `/${index}/_mapping` })
  return objectOf(objectOf(body[index])['mappings'])
}

function ownMeta(mapping: Body): Body | undefined {
  const meta = objectOf(mapping['_meta'])['rejoin']
  return meta === undefined ? undefined : objectOf(meta)
}

/** What stands in the index about itself: when it differs, everything is written again. */
function metaOf(sink: string, { name, fields, revision }: Target): Body {
  const kinds = fields === undefined ? null : Object.fromEntries(Object.entries(fields).map(([field, { kind }]) => [field, kind]))
  return { sink, target: name, fields: kinds, revision }
}

/** Why the mapping that is there cannot take the rows. */
function mismatch(kinds: Body, { fields = {} }: Target): string | undefined {
  const type = (kind: unknown): string => canonicalJson(TYPES[kind as FieldKind] ?? null)
  const wrong = Object.entries(fields).find(([field, { kind }]) => Object.hasOwn(kinds, field) && type(kinds[field]) !== type(kind))
  return wrong === undefined ? undefined : `the field ${wrong[0]} was ${textOf(kinds[wrong[0]])} and is ${wrong[1].kind} now`
}

/** Does what `standingOf` found missing. */
export async function change(ask: Ask, sink: string, { target, change: todo }: Standing): Promise<void> {
  if (todo === undefined) return
  const mappings = mappingFor(sink, target)
  if (todo.type === 'extend') {
    await ask({ method: 'PUT', path: `/${todo.index}/_mapping`, body: mappings })
    return
  }
  if (todo.doomed !== undefined) await ask({ method: 'DELETE', path: `/${todo.doomed}`, expect: [404] })
  // While the new one is filled, readers stay with the old one, which is no longer written. Ended between these two, it is looked at again: nothing is left over.
  if (todo.beside !== undefined)
    await ask({
      method: 'POST',
      path: '/_aliases',
      body: { actions: [{ remove: { index: todo.beside, alias: target.write } }] },
      expect: [404],
    })
  const readers = todo.beside === undefined ? { [target.alias]: { filter: LIVING } } : {}
  await ask({ method: 'PUT', path: `/${todo.index}`, body: { mappings, aliases: { [target.write]: {}, ...readers } } })
}

/** What readers of the alias see. */
const LIVING = { bool: { must_not: { term: { [DELETED]: true } } } }

/** The new index is whole: readers go over to it, and the old one goes. */
export async function cutOver(ask: Ask, { target: { alias }, read, written }: Standing): Promise<void> {
  await ask({ method: 'POST', path: `/${written}/_refresh` })
  const old = read === undefined || read === written ? [] : [{ remove_index: { index: read } }]
  await ask({ method: 'POST', path: '/_aliases', body: { actions: [{ add: { index: written, alias, filter: LIVING } }, ...old] } })
}

function mappingFor(sink: string, target: Target): Body {
  const keyword: Body = { type: 'keyword' }
  const declared = Object.entries(target.fields ?? {}).map(([field, { kind }]) => [field, TYPES[kind]] as const)
  return {
    dynamic: target.fields === undefined,
    _meta: { rejoin: metaOf(sink, target) },
    properties: {
      ...Object.fromEntries(declared),
      document: keyword,
      id: keyword,
      [STAMP]: { type: 'long' },
      [DELETED]: { type: 'boolean' },
    },
  }
}

/** In words. */
export function planOf({ target, change: todo }: Standing): readonly string[] {
  if (todo === undefined) return []
  if (todo.type === 'extend')
    return [
      todo.added.length === 0
        ? `write ${target.alias} anew, in the index ${todo.index}`
        : `add ${todo.added.join(', ')} to the mapping of ${todo.index}, and write it anew`,
    ]
  if (todo.beside === undefined)
    return [`create the index ${todo.index} with the alias ${target.alias} for readers and ${target.write} for Rejoin`]
  return [`create the index ${todo.index} beside ${todo.beside}, write it, move the alias ${target.alias} to it, delete ${todo.beside}`]
}

/** Removes the indices of a target that are ours. */
export async function dropTarget(ask: Ask, { alias, write }: Target): Promise<void> {
  const { body } = await ask({ method: 'GET', path: `/_alias/${alias},${write}`, expect: [404] })
  for (const [index, value] of Object.entries(body)) {
    if (typeof objectOf(value)['aliases'] !== 'object') continue
    if (ownMeta(await mappingOf(ask, index)) !== undefined) await ask({ method: 'DELETE', path: `/${index}`, expect: [404] })
  }
}
