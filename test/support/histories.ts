/**
 * Random Yjs histories by several clients: text, formats, embeds, maps, arrays, nested and XML types, subdocuments, undo, with and without garbage collection.
 */
import * as Y from 'yjs'

/** A seeded stand-in for chance: uniform in [0, 1). mulberry32. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export type Chance = () => number

export function below(chance: Chance, limit: number): number {
  return Math.floor(chance() * limit)
}

export function pick<T>(chance: Chance, from: readonly T[]): T {
  return from[below(chance, from.length)] as T
}

/** Updates of one history in the order in which they were made; each leans on earlier ones only. */
export interface History {
  readonly updates: readonly Uint8Array[]
  /** Diffs, whole states and merges that were made on the way, each with the number of updates that existed then. */
  readonly extras: readonly { readonly at: number; readonly update: Uint8Array }[]
}

const STRINGS = ['a', 'bc', 'héllo', '日本', '😀', 'x😀y', 'lorem ipsum', '\u0000', 'end']

/** `steps` edits by `devices` documents that exchange what they have now and then. */
export function makeHistory(chance: Chance, devices: number, steps: number): History {
  const updates: Uint8Array[] = []
  const extras: { at: number; update: Uint8Array }[] = []
  const docs = Array.from({ length: devices }, (_, nth) => {
    const doc = new Y.Doc({ gc: chance() < 0.7 })
    doc.clientID = nth * 1000 + below(chance, 1000) + (chance() < 0.5 ? 2 ** 31 : 1)
    doc.on('update', (update: Uint8Array, _origin: unknown, _doc: Y.Doc, transaction: Y.Transaction) => {
      if (transaction.origin !== 'remote') updates.push(update)
    })
    return { doc, undo: new Y.UndoManager([doc.getText('text'), doc.getMap('map'), doc.getArray('list')], { captureTimeout: 0 }) }
  })
  for (let step = 0; step < steps; step++) {
    const { doc, undo } = pick(chance, docs)
    if (chance() < 0.1) (chance() < 0.6 ? undo.undo.bind(undo) : undo.redo.bind(undo))()
    else
      doc.transact(() => {
        for (let n = 1 + below(chance, 3); n > 0; n--) edit(chance, doc)
      })
    if (chance() < 0.35) exchange(chance, doc, pick(chance, docs).doc)
    if (chance() < 0.15)
      extras.push({
        at: updates.length,
        update: extra(
          chance,
          docs.map((each) => each.doc),
          updates,
        ),
      })
  }
  return { updates, extras }
}

function exchange(chance: Chance, from: Y.Doc, to: Y.Doc): void {
  if (from === to) return
  Y.applyUpdate(to, Y.encodeStateAsUpdate(from, chance() < 0.5 ? Y.encodeStateVector(to) : undefined), 'remote')
}

function extra(chance: Chance, docs: readonly Y.Doc[], updates: readonly Uint8Array[]): Uint8Array {
  const kind = below(chance, 3)
  if (kind === 0) return Y.encodeStateAsUpdate(pick(chance, docs))
  if (kind === 1) return Y.encodeStateAsUpdate(pick(chance, docs), Y.encodeStateVector(pick(chance, docs)))
  return Y.mergeUpdates(
    Array.from({ length: 2 + below(chance, 4) }, () => updates[Math.max(0, updates.length - 1 - below(chance, 12))] ?? EMPTY),
  )
}

const EMPTY = Uint8Array.of(0, 0)

function edit(chance: Chance, doc: Y.Doc): void {
  const roll = below(chance, 12)
  if (roll < 5) editText(chance, doc.getText('text'))
  else if (roll < 7) editMap(chance, doc.getMap('map'), 0)
  else if (roll < 9) editList(chance, doc.getArray('list'), 0)
  else if (roll < 11) editXml(chance, doc.getXmlFragment('xml'), 0)
  else editText(chance, doc.getText(pick(chance, ['other', 'ünïcode', ''])))
}

function editText(chance: Chance, text: Y.Text): void {
  const roll = below(chance, 10)
  const at = below(chance, text.length + 1)
  if (roll < 5 || text.length === 0) text.insert(at, pick(chance, STRINGS), chance() < 0.2 ? { bold: true } : undefined)
  else if (roll < 8) text.delete(at, Math.min(text.length - at, 1 + below(chance, 4)))
  else if (roll < 9)
    text.format(
      at,
      Math.min(text.length - at, 3),
      pick(chance, [{ bold: true }, { bold: null }, { link: { href: 'a', deep: [1, '"\\'] } }]),
    )
  else text.insertEmbed(at, { image: pick(chance, STRINGS), size: [1, 2.5, -3e10, true, null] })
}

function value(chance: Chance): unknown {
  return pick(chance, [
    1,
    -7,
    2 ** 31,
    2 ** 40,
    1.5,
    1.1,
    { big: 123n },
    true,
    false,
    null,
    'text',
    '😀',
    Uint8Array.of(1, 2, 3),
    { a: { b: [1, { c: 'd' }] } },
    [[], {}, ['x']],
    { '': 0 },
  ])
}

function type(chance: Chance): Y.AbstractType<unknown> {
  return pick(chance, [
    () => new Y.Map(),
    () => new Y.Array(),
    () => new Y.Text('nested'),
    () => new Y.XmlElement('p'),
    () => new Y.XmlFragment(),
  ])() as Y.AbstractType<unknown>
}

function editMap(chance: Chance, map: Y.Map<unknown>, depth: number): void {
  const name = pick(chance, ['a', 'b', 'c', 'kéy'])
  const current = map.get(name)
  const roll = below(chance, 10)
  if (depth < 3 && roll < 4 && current instanceof Y.AbstractType) inside(chance, current, depth)
  else if (roll < 6) map.set(name, value(chance))
  else if (roll < 8) map.set(name, type(chance))
  else if (roll < 9) map.delete(name)
  else map.set(name, new Y.Doc({ meta: { of: name }, autoLoad: chance() < 0.5 }))
}

function editList(chance: Chance, list: Y.Array<unknown>, depth: number): void {
  const at = below(chance, list.length + 1)
  const current = at < list.length ? list.get(at) : undefined
  const roll = below(chance, 10)
  if (depth < 3 && roll < 3 && current instanceof Y.AbstractType) inside(chance, current, depth)
  else if (roll < 6 || list.length === 0)
    list.insert(
      at,
      Array.from({ length: 1 + below(chance, 3) }, () => value(chance)),
    )
  else if (roll < 8) list.insert(at, [type(chance)])
  else list.delete(Math.min(at, list.length - 1), 1)
}

function inside(chance: Chance, target: Y.AbstractType<unknown>, depth: number): void {
  if (target instanceof Y.Map) editMap(chance, target, depth + 1)
  else if (target instanceof Y.Array) editList(chance, target, depth + 1)
  else if (target instanceof Y.Text) editText(chance, target)
  else if (target instanceof Y.XmlFragment) editXml(chance, target, depth + 1)
}

function editXml(chance: Chance, parent: Y.XmlFragment, depth: number): void {
  const at = below(chance, parent.length + 1)
  const child = at < parent.length ? parent.get(at) : undefined
  const roll = below(chance, 10)
  if (depth < 3 && roll < 3 && child instanceof Y.XmlFragment) editXml(chance, child, depth + 1)
  else if (roll < 4 && child instanceof Y.XmlText) editText(chance, child)
  else if (roll < 5 && child instanceof Y.XmlElement) child.setAttribute('class', pick(chance, STRINGS))
  else if (roll < 8 || parent.length === 0) parent.insert(at, [chance() < 0.5 ? new Y.XmlElement('div') : new Y.XmlText('t')])
  else parent.delete(Math.min(at, parent.length - 1), 1)
}
