/**
 * The stories in a real browser, on the example app: two tabs, a relay that dies, a tab that dies. The network is cut by Chromium, processes by kill -9.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import {
  addPet,
  cutNetwork,
  launchChromium,
  openClinic,
  openDevice,
  readClinic,
  readStatus,
  renamePet,
  screenshot,
  untilSent,
  writeNote,
} from '../support/browser.ts'
import type { Example } from '../support/example.ts'
import { buildExample, startExample } from '../support/example.ts'
import { describeChromium } from '../support/requires.ts'
import { until, within } from '../support/until.ts'

describeChromium('stories in Chromium', () => {
  let browser: Browser
  let data: string
  let example: Example
  const devices: BrowserContext[] = []

  beforeAll(async () => {
    await buildExample()
    browser = await launchChromium()
  })
  afterAll(() => browser.close())
  beforeEach(async () => {
    data = mkdtempSync(join(tmpdir(), 'clinic-'))
    example = await startExample(data)
  })
  afterEach(async () => {
    await Promise.all(devices.splice(0).map((device) => device.close()))
    await example.stop()
    rmSync(data, { recursive: true, force: true })
  })

  async function newDevice(look: Parameters<typeof openDevice>[1] = {}): Promise<BrowserContext> {
    const device = await openDevice(browser, look)
    devices.push(device)
    return device
  }

  function mirrored(): readonly { name: string | null; kind: string | null; document: string }[] {
    const mirror = new Database(example.mirror, { readonly: true })
    try {
      return mirror.prepare('SELECT * FROM pets ORDER BY name').all() as { name: string | null; kind: string | null; document: string }[]
    } finally {
      mirror.close()
    }
  }

  async function untilMirrored(names: readonly string[]): Promise<void> {
    await until(
      () => JSON.stringify(mirrored().map(({ name }) => name)) === JSON.stringify(names.toSorted()) || undefined,
      `the mirror to hold ${names.join(', ')}`,
    )
  }

  it('two tabs edit offline, the reloaded one opens with every edit, and all come together again', async () => {
    const laptop = await newDevice()
    const phone = await newDevice({ phone: true, dark: true })
    const first = await openClinic(laptop, example.app)
    await shellIsKept(first)
    await first.getByRole('button', { name: 'Fill in examples' }).click()
    const second = await openClinic(laptop, example.app)
    const other = await openClinic(phone, example.app)
    await untilSent(first, second, other)
    await untilAlike([first, second, other])
    await screenshot(first, 'story-1-connected')

    await cutNetwork(laptop, true)
    await until(
      async () => (await readStatus(first)).connection === 'offline' && (await readStatus(second)).connection === 'offline',
      'both tabs to notice',
    )
    await renamePet(first, 'Biscuit', 'Biscuit the brave')
    await writeNote(second, 'Written without a network.')
    await addPet(second, 'Nimbus')
    await addPet(other, 'Waffle')
    await untilSent(other)
    await until(async () => (await readStatus(second)).relay > 0 && (await readStatus(second)).local === 0, 'the edits to be kept')
    await screenshot(second, 'story-1-offline')

    await first.reload()
    await first.locator('.app[data-loaded=true]').waitFor()
    const reloaded = await readClinic(first)
    expect(reloaded.pets.map(nameOf)).toEqual(['Biscuit the brave', 'Clover', 'Figaro', 'Nimbus', 'Otto', 'Pepper'])
    expect(reloaded.note).toContain('Written without a network.')
    const { connection, relay } = await readStatus(first)
    expect(connection).not.toBe('connected')
    expect(relay).toBeGreaterThan(0)
    await screenshot(first, 'story-1-reloaded-offline')

    await cutNetwork(laptop, false)
    await untilSent(first, second, other)
    const together = await untilAlike([first, second, other])
    expect(together.pets.map(nameOf)).toEqual(['Biscuit the brave', 'Clover', 'Figaro', 'Nimbus', 'Otto', 'Pepper', 'Waffle'])
    expect(together.note).toContain('Written without a network.')
    await untilMirrored(together.pets.map(nameOf))
    expect(mirrored().find(({ name }) => name === 'Nimbus')).toMatchObject({ kind: 'Dog', document: 'clinic' })
    await screenshot(first, 'story-1-together')
    await other.goto(`${example.app}/#/note`)
    await screenshot(other, 'story-1-phone')
  })

  it('a tab that dies leaves its edits to the other', async () => {
    const laptop = await newDevice({ dark: true })
    const first = await openClinic(laptop, example.app)
    const second = await openClinic(laptop, example.app)
    await untilSent(first, second)
    await cutNetwork(laptop, true)
    await addPet(first, 'Survivor')
    await addPet(second, 'Legacy')
    await writeNote(second, 'My last words.')
    await until(async () => (await readStatus(second)).local === 0, 'the second tab to have kept its edits')
    await crash(second)

    await cutNetwork(laptop, false)
    await untilSent(first)
    const stranger = await openClinic(await newDevice(), example.app)
    await untilAlike([first, stranger])
    const seen = await readClinic(stranger)
    expect(seen.pets.map(nameOf)).toEqual(['Legacy', 'Survivor'])
    expect(seen.note).toBe('My last words.')
    await untilMirrored(['Legacy', 'Survivor'])
    await screenshot(first, 'story-3-delivered')
  })

  it('a relay that is killed keeps every acknowledged edit, and the browser resends the rest', async () => {
    const laptop = await newDevice()
    const page = await openClinic(laptop, example.app)
    await addPet(page, 'Before')
    await untilSent(page)
    await addPet(page, 'During')
    await writeNote(page, 'Typed while the relay was being killed')
    await example.kill()
    await until(async () => (await readStatus(page)).connection !== 'connected', 'the page to notice')
    await addPet(page, 'After')
    await until(async () => (await readStatus(page)).relay > 0, 'an edit to wait')
    await screenshot(page, 'story-2-relay-gone')

    example = await startExample(data, example)
    await untilSent(page)
    const stranger = await openClinic(await newDevice(), example.app)
    await untilSent(stranger)
    const seen = await untilAlike([page, stranger])
    expect(seen).toEqual({ pets: ['After: Dog', 'Before: Dog', 'During: Dog'], note: 'Typed while the relay was being killed' })
    await untilMirrored(['After', 'Before', 'During'])
  })

  it('tells who is here, by name and colour', async () => {
    const first = await openClinic(await newDevice(), example.app)
    const second = await openClinic(await newDevice(), example.app)
    await second.locator('button.self').click()
    await second.locator('input[name=person]').fill('Marguerite')
    await first.locator('[data-peer=Marguerite]').waitFor()
    await second.close()
    await until(async () => (await first.locator('[data-peer=Marguerite]').count()) === 0, 'her to be gone')
  })
})

function nameOf(pet: string): string {
  return pet.replace(/: .*$/u, '')
}

/** The service worker is in charge and has the whole shell. */
async function shellIsKept(page: Page): Promise<void> {
  await page.evaluate(async () => {
    await navigator.serviceWorker.ready
  })
  await until(() => page.evaluate(() => navigator.serviceWorker.controller !== null), 'the service worker to be in charge')
}

/** Waits until every page shows the same pets and the same note; returns them. */
async function untilAlike(pages: readonly Page[]): Promise<Awaited<ReturnType<typeof readClinic>>> {
  return until(async () => {
    const [one, ...others] = await Promise.all(pages.map(readClinic))
    return others.every((other) => JSON.stringify(other) === JSON.stringify(one)) ? one : undefined
  }, 'all pages to show the same')
}

/** Ends the tab's renderer, as the system does when memory runs out. */
async function crash(page: Page): Promise<void> {
  const session = await within(page.context().newCDPSession(page), 'a session with the tab')
  const crashed = new Promise<void>((done) => page.once('crash', () => done()))
  // The answer never comes: whoever would send it is gone.
  session.send('Page.crash').catch(() => undefined)
  await within(crashed, 'the tab to crash')
  await within(page.close(), 'the crashed tab to close')
}
