/**
 * Chromium for the stories: real tabs of real profiles, with Chromium's own network switch, and what a person sees on the clinic's page.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { chromium } from 'playwright-core'
import { chromiumPath } from './requires.ts'
import { root } from './sources.ts'
import { until, within } from './until.ts'

const out = join(root, 'test/.out')

export async function launchChromium(): Promise<Browser> {
  const args = ['--no-sandbox', '--disable-dev-shm-usage', '--disable-background-networking']
  return chromium.launch({ ...(chromiumPath === undefined ? {} : { executablePath: chromiumPath }), args })
}

/** One device: a profile of its own. */
export async function openDevice(
  browser: Browser,
  look: { readonly phone?: boolean; readonly dark?: boolean } = {},
): Promise<BrowserContext> {
  const viewport = look.phone === true ? { width: 390, height: 800 } : { width: 1440, height: 860 }
  const device = await browser.newContext({
    viewport,
    colorScheme: look.dark === true ? 'dark' : 'light',
    locale: 'en-GB',
    reducedMotion: 'reduce',
  })
  device.setDefaultTimeout(10_000)
  return device
}

/** Opens the clinic in a new tab and waits until its own copy is loaded. */
export async function openClinic(device: BrowserContext, url: string): Promise<Page> {
  const page = await device.newPage()
  await page.goto(url)
  await page.locator('.app[data-loaded=true]').waitFor()
  return page
}

/** Chromium's own switch. It waits for every tab and service worker of the device, with no limit of its own. */
export async function cutNetwork(device: BrowserContext, offline: boolean): Promise<void> {
  await within(device.setOffline(offline), offline ? 'the network to be cut' : 'the network to come back')
}

export interface StatusLine {
  readonly connection: string
  readonly storage: string
  readonly local: number
  readonly relay: number
  readonly quarantined: number
}

/** The status line, as the page shows it. */
export async function readStatus(page: Page): Promise<StatusLine> {
  const data = await page.locator('.status').evaluate((element) => Object.fromEntries(Object.entries((element as HTMLElement).dataset)))
  return {
    connection: data['connection'] ?? '',
    storage: data['storage'] ?? '',
    local: Number(data['pendingLocal']),
    relay: Number(data['pendingRelay']),
    quarantined: Number(data['quarantined']),
  }
}

/** Waits until the page is connected and has nothing on the way. */
export async function untilSent(...pages: readonly Page[]): Promise<void> {
  for (const page of pages) {
    await until(
      async () => {
        const { connection, local, relay } = await readStatus(page)
        return (connection === 'connected' && local === 0 && relay === 0) || undefined
      },
      'everything to be sent',
      20_000,
    ).catch(async (error: unknown) => {
      throw new Error(`not everything was sent: ${JSON.stringify(await readStatus(page))}`, { cause: error })
    })
  }
}

/** Everything that the page shows of the document: pets with what stands under each name, and the note. */
export async function readClinic(page: Page): Promise<{ readonly pets: readonly string[]; readonly note: string }> {
  const pets = await page
    .locator('.list .row-words')
    .evaluateAll((rows) => rows.map((row) => [...row.children].map((part) => part.textContent).join(': ')))
  const note = await page.locator('.ProseMirror').evaluate((editor) => {
    const own = editor.cloneNode(true) as HTMLElement
    for (const caret of own.querySelectorAll('.collaboration-carets__caret, .ProseMirror-separator, .ProseMirror-trailingBreak'))
      caret.remove()
    return [...own.children].map((block) => block.textContent).join('\n')
  })
  return { pets, note }
}

export async function writeNote(page: Page, text: string): Promise<void> {
  await page.locator('.ProseMirror').click()
  await page.keyboard.press('Control+End')
  await page.keyboard.type(text)
}

export async function addPet(page: Page, name: string): Promise<void> {
  await page.getByRole('button', { name: 'New pet' }).click()
  const field = page.locator('.card input[name=name]')
  await until(async () => (await field.inputValue()) === '' || undefined, 'an empty form')
  await field.fill(name)
}

export async function renamePet(page: Page, from: string, to: string): Promise<void> {
  await page.locator('.row', { hasText: from }).click()
  await page.locator('.card input[name=name]').fill(to)
}

/** Writes test/.out/<name>.png. */
export async function screenshot(page: Page, name: string): Promise<void> {
  mkdirSync(out, { recursive: true })
  await page.screenshot({ path: join(out, `${name}.png`) })
}
