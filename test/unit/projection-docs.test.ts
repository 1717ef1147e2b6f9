/**
 * The examples of the page on projections run as they stand.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as shared from '@rejoin/shared'
import type { DocumentId } from '@rejoin/shared'
import { expect, it } from 'vitest'
import { defineProjection, ref } from '#server/projection/define.js'
import { runSelect } from '#server/projection/select.js'
import type { Projection } from '#server/sinks/sink.js'
import { root } from '../support/sources.ts'

it('the page on projections: its examples give what it says', () => {
  const page = readFileSync(join(root, 'packages/server/docs/projections.md'), 'utf8')
  const code = [...page.matchAll(/^```ts\n(.*?)^```$/gmsu)].map(([, block]) => block ?? '').join('\n')
  const names = { ...shared, defineProjection, ref }
  const plain = code.replaceAll(/^import .*$/gmu, '').replaceAll('export const', 'const')
  const SyncFunction = (() => undefined).constructor as new (...source: string[]) => (...values: unknown[]) => Record<string, Projection>
  const run = new SyncFunction(...Object.keys(names), `${plain}\nreturn { petCard, tagRow }`)
  const { petCard, tagRow } = run(...Object.values(names))
  const rowsOf = (projection: Projection | undefined, input: Record<string, unknown>): unknown =>
    projection && runSelect(projection, [{ key: { collection: 'pets', document: 'd' as DocumentId, id: 'rex' }, input }])[0]
  const pet = { name: 'Rex', kind: 'dog', tags: ['fluffy'] }
  expect(rowsOf(petCard, { pet, owner: { city: 'Ulm' } })).toEqual({
    rows: [{ part: undefined, value: { city: 'Ulm', kind: 'dog', name: 'Rex' } }],
  })
  expect(rowsOf(petCard, { pet: { ...pet, name: null }, owner: undefined })).toEqual({ rows: [] })
  expect(rowsOf(tagRow, { pet })).toEqual({ rows: [{ part: 'fluffy', value: { tag: 'fluffy' } }] })
})
