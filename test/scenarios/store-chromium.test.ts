/**
 * The browser's store in a real browser: the store contract, Web Locks between real tabs, a killed browser, and the real y-indexeddb on the same databases.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from 'esbuild'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { chromium } from 'playwright-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { storeCases } from '../contracts/store.contract.ts'
import { launchChromium } from '../support/browser.ts'
import { chromiumPath, describeChromium } from '../support/requires.ts'
import { root } from '../support/sources.ts'
import type { actions } from '../support/store-page.ts'
import { until } from '../support/until.ts'

describeChromium("the browser's store in Chromium", () => {
  let url = ''
  let browser: Browser
  let device: BrowserContext
  /** The page in which the cases of the contract run, one after the other. */
  let contract: Tab | undefined
  const server = createServer()
  const ends: (() => Promise<unknown>)[] = []

  beforeAll(async () => {
    const script = await bundlePage()
    server.on('request', (request, response) => {
      const js = request.url === '/page.js'
      response.setHeader('content-type', js ? 'text/javascript' : 'text/html')
      response.end(js ? script : '<!doctype html><title>store</title><script type="module" src="/page.js"></script>')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
    browser = await launchChromium()
    device = await browser.newContext()
  })
  afterAll(async () => {
    for (const end of ends) await end()
    await browser?.close()
    server.closeAllConnections()
    server.close()
  })

  const openTab = async (on: BrowserContext = device): Promise<Tab> => {
    const page = await on.newPage()
    await page.goto(url)
    await page.waitForFunction(() => 'actions' in globalThis)
    return {
      page,
      call: (name, ...args) =>
        page.evaluate(([name, args]) => globalThis.actions[name as string]?.(...(args as never[])), [name, args] as const) as never,
    }
  }

  it.each(storeCases.map(({ name }) => name))('%s', async (name) => {
    const page = (contract ??= await openTab())
    await page.call('runCase', name)
  })

  it('hands the incarnation of a tab that is closed, or that crashed, to a tab that waits, with its rows', async () => {
    for (const [round, end] of [(page: Page) => page.close(), crash].entries()) {
      const [one, other] = [await openTab(), await openTab()]
      await one.call('openOurs', `takeover ${round}`)
      await one.call('hold')
      await one.call('put', 1)
      await other.call('openOurs', `takeover ${round}`)
      let taken = false
      const taking = other.call('hold').then(() => (taken = true))
      await other.call('put', 2)
      await one.call('put', 3)
      expect(taken).toBe(false)
      await end(one.page)
      await taking
      expect(await other.call('outbox')).toEqual([1, 2, 3])
      expect(await other.call('pending')).toEqual(expect.arrayContaining([{ document: `takeover ${round}`, rows: 3, refused: 0 }]))
    }
  })

  it('tells the other tabs what was committed', async () => {
    const [one, other] = [await openTab(), await openTab()]
    await one.call('openOurs', 'notices')
    await other.call('openOurs', 'another')
    await one.call('put', 1)
    await until(async () => (await other.call('told')).join() === 'notices: 1')
    expect(await one.call('told')).toEqual([])
  })

  it('has every row that was said to be committed after the browser was killed', async () => {
    const profile = mkdtempSync(join(tmpdir(), 'rejoin-profile-'))
    const launch = (): Promise<BrowserContext> =>
      chromium.launchPersistentContext(profile, {
        ...(chromiumPath === undefined ? {} : { executablePath: chromiumPath }),
        args: ['--no-sandbox', '--disable-dev-shm-usage'],
      })
    const first = await launch()
    ends.push(async () => rmSync(profile, { recursive: true, force: true }))
    const tab = await openTab(first)
    await tab.call('openOurs', 'killed')
    void tab.call('putForEver').catch(() => {})
    const told = await until(async () => {
      const count = await tab.call('count')
      return count > 30 && count
    })
    const gone = new Promise((resolve) => first.once('close', resolve))
    const session = await first.newCDPSession(tab.page)
    await Promise.race([session.send('Browser.crash').catch(() => {}), gone])
    await gone
    const second = await launch()
    ends.unshift(() => second.close())
    const again = await openTab(second)
    await again.call('openOurs', 'killed')
    const rows = await again.call('outbox')
    expect(rows).toEqual(Array.from({ length: rows.length }, (_, i) => i + 1))
    expect(rows.length).toBeGreaterThanOrEqual(told)
    // Four commits a row: together or not at all, each.
    expect(Math.ceil((await again.call('updates')) / 4)).toBe(rows.length)
    expect(await again.call('pending')).toEqual([{ document: 'killed', rows: rows.length, refused: 0 }])
  })

  it('shares a database with an open tab of y-indexeddb, both writing in turn, and nothing is lost when either trims', async () => {
    const [one, other] = [await openTab(), await openTab()]
    await one.call('openOurs', 'both')
    await one.call('put', 1)
    await other.call('openTheirs', 'both')
    for (let i = 0; i < 5; i++) {
      await one.call('writeOurs', `o${i} `)
      await other.call('writeTheirs', `t${i} `)
      await one.call('cursor', i + 1)
    }
    await one.call('trim')
    const mixed = await one.call('read')
    expect(mixed).toMatchObject({ foreign: true, cursor: false })
    await other.call('writeTheirs', 'after ')
    await other.call('trimTheirs')
    await other.call('writeTheirs', 'last ')
    const { text } = await one.call('read')
    for (const part of ['o0 ', 'o1 ', 'o2 ', 'o3 ', 'o4 ', 't0 ', 't1 ', 't2 ', 't3 ', 't4 ', 'after ', 'last '])
      expect(text).toContain(part)
    expect(await one.call('outbox')).toEqual([1])
    const third = await openTab()
    await third.call('openTheirs', 'both')
    expect(await third.call('readTheirs')).toBe(text)
    await one.call('cursor', 9)
    expect(await one.call('read')).toMatchObject({ foreign: false, cursor: true })
  })

  it('adopts what an app kept in y-indexeddb before', async () => {
    const before = await openTab()
    await before.call('openTheirs', 'adopted')
    await before.call('writeTheirs', 'years of notes')
    await before.page.close()
    const tab = await openTab()
    expect(['durable', 'ephemeral']).toContain(await tab.call('openOurs', 'adopted'))
    expect(await tab.call('read')).toEqual({ text: 'years of notes', foreign: true, cursor: false })
  })

  it('commits a hundred edits that are made at once in two transactions at most', async () => {
    const tab = await openTab()
    await tab.call('openOurs', 'measured')
    const { one, hundred, transactions } = await tab.call('measure')
    console.log(`      a durable commit takes ${one.toFixed(1)} ms, a hundred at once ${hundred.toFixed(1)} ms`)
    expect(transactions).toBeLessThanOrEqual(2)
  })
})

interface Tab {
  readonly page: Page
  call<Name extends keyof typeof actions>(
    name: Name,
    ...args: Parameters<(typeof actions)[Name]>
  ): Promise<Awaited<ReturnType<(typeof actions)[Name]>>>
}

async function crash(page: Page): Promise<void> {
  const crashed = new Promise((resolve) => page.once('crash', resolve))
  const session = await page.context().newCDPSession(page)
  void session.send('Page.crash').catch(() => {})
  await crashed
}

async function bundlePage(): Promise<string> {
  const result = await build({
    entryPoints: [join(root, 'test/support/store-page.ts')],
    bundle: true,
    write: false,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    logLevel: 'error',
  })
  return result.outputFiles[0]?.text ?? ''
}
