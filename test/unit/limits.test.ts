/**
 * The page of limits says what the code holds to.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { DEFAULT_LIMITS } from '@rejoin/shared'

describe('docs/limits.md', () => {
  it('names every limit with its default', () => {
    const page = readFileSync(new URL('../../packages/shared/docs/limits.md', import.meta.url), 'utf8')
    const rows = [...page.matchAll(/^\| `(\w+)` \| ([\d,]+)(?: (KiB|MiB|bytes|s))? \|/gmu)]
    const unit: Readonly<Record<string, number>> = { KiB: 1024, MiB: 1024 * 1024, s: 1000 }
    expect(
      Object.fromEntries(rows.map(([, name, value, suffix]) => [name, Number(value?.replaceAll(',', '')) * (unit[suffix ?? ''] ?? 1)])),
    ).toEqual(DEFAULT_LIMITS)
  })
})
