/**
 * What `npm start` runs once everything is built: the relay by its command, and the app from dist on a port of its own.
 * PORT (4400) is the relay's, APP_PORT (PORT + 1) the app's, DATA (rejoin-data) where the relay keeps its files; a port of 0 takes a free one.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { serve } from '@hono/node-server'
import { serveStatic } from '@hono/node-server/serve-static'
import { Hono } from 'hono'
import { data, mirror, startedIn } from './folder.js'

/** Exit codes: what was asked for cannot be meant; what was asked for failed. */
const MISUSED = 2
const FAILED = 1

const here = fileURLToPath(new URL('.', import.meta.url))
const port = readPort('PORT', 4400)
const appPort = readPort('APP_PORT', port === 0 || port === 65_535 ? 0 : port + 1)
if (port === appPort && port !== 0) end(`PORT and APP_PORT are both ${port}: the relay and the app need one each.`, MISUSED)
await expectFree(port, 'PORT', 'relay')
await expectFree(appPort, 'APP_PORT', 'app')

const relay = startRelay()
let stopping = false
// The relay drains and ends, and we with it. A terminal's Ctrl-C reaches it without us, and a second signal would cut its draining short.
process.on('SIGINT', () => stop(!process.stdin.isTTY))
process.on('SIGTERM', () => stop(true))
// Whatever ends this process, no relay is left behind.
process.on('exit', () => relay.child.kill('SIGTERM'))

const relayUrl = await relay.listening
const app = serve({ fetch: pages(relayUrl).fetch, hostname: '127.0.0.1', port: appPort }, ({ port: taken }) => {
  const appUrl = `http://127.0.0.1:${taken}`
  process.stdout.write(`\n  app     ${appUrl}\n  relay   ${relayUrl}\n  mirror  ${mirror}\n\n`)
  process.stdout.write(`  Ctrl-C stops them. The mirror's pets, in another terminal: ${mirrorCommand()}\n\n`)
})
app.once('error', (error) => end(`The app cannot be served on port ${appPort}: ${error.message}.`, FAILED))

/** @param {boolean} tellRelay */
function stop(tellRelay) {
  stopping = true
  if (tellRelay && !relay.child.killed) relay.child.kill('SIGTERM')
}

/**
 * Ends with one sentence for whoever ran npm start, above what npm has to say.
 * @param {string} sentence
 * @param {number} code
 * @returns {never}
 */
function end(sentence, code) {
  process.stderr.write(`\n  ${sentence}\n\n`)
  process.exit(code)
}

/**
 * A port from the environment.
 * @param {string} name
 * @param {number} usual
 */
function readPort(name, usual) {
  const text = process.env[name] || String(usual)
  if (/^\d{1,5}$/u.test(text) && Number(text) <= 65_535) return Number(text)
  return end(
    `${name} is a whole number from 0 (any free port) to 65535, not ${JSON.stringify(text)}. Without it, ${usual} is used.`,
    MISUSED,
  )
}

/**
 * Asked before anything is started, so that a taken port is told in plain words. A relay killed just now may need a moment to let go of it.
 * @param {number} wanted
 * @param {string} name
 * @param {string} whose
 */
async function expectFree(wanted, name, whose) {
  let refused = await tryListening(wanted)
  for (let tries = 0; refused === 'EADDRINUSE' && tries < 5; tries += 1) {
    await setTimeout(200)
    refused = await tryListening(wanted)
  }
  if (refused === undefined) return
  const why = refused === 'EADDRINUSE' ? 'is taken, perhaps by another npm start' : `cannot be used (${refused})`
  const other = wanted < 60_000 ? Math.max(wanted, 4400) + 100 : 4400
  end(`Port ${wanted}, the ${whose}'s, ${why}. Stop that, or choose another port: ${name}=${other} npm start`, FAILED)
}

/**
 * The code of the error that listening on a port of this machine meets, if any.
 * @param {number} wanted
 */
async function tryListening(wanted) {
  const probe = createServer()
  try {
    await once(probe.listen(wanted, '127.0.0.1'), 'listening')
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code
  }
  await new Promise((closed) => probe.close(closed))
  return undefined
}

/** What to type, where npm start was typed, to see the mirror's rows. */
function mirrorCommand() {
  const script = relative(startedIn, join(here, 'mirror.js'))
  return ['node', script, ...(process.env['DATA'] ? [mirror] : [])].map((word) => (/\s/u.test(word) ? `"${word}"` : word)).join(' ')
}

/** Starts `rejoin serve`; `listening` is the address of its one line on standard output. */
function startRelay() {
  const cli = fileURLToPath(new URL('./cli.js', import.meta.resolve('@rejoin/server')))
  const options = ['serve', '--config', join(here, 'rejoin.config.ts'), '--data', data, '--port', String(port), '--log-level', 'error']
  const child = spawn(process.execPath, [cli, ...options], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, DATA: data } })
  let listens = false
  /** @type {Promise<string>} */
  const listening = new Promise((ready) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const event = JSON.parse(line)
      if (event.event !== 'listening') return
      listens = true
      ready(event.url)
    })
  })
  child.once('exit', (code, signal) => {
    if (stopping) process.exit(code ?? FAILED)
    if (!listens) end('The relay did not start, and said why above. Put that right and run npm start again.', code || FAILED)
    const how = signal === null ? `exit code ${code}` : `killed by ${signal}`
    end(
      `The relay has ended (${how}), and the app with it. Everything it acknowledged is in ${data}: run npm start to go on.`,
      code ?? FAILED,
    )
  })
  return { child, listening }
}

/**
 * The built app. The page and its service worker carry the relay's address, so that a new address is a new shell.
 * @param {string} relayUrl
 */
function pages(relayUrl) {
  const dist = join(here, 'dist')
  const hono = new Hono()
  /** @param {string} file */
  const filled = async (file) => (await readFile(join(dist, file), 'utf8')).replaceAll('%RELAY%', relayUrl)
  hono.get('/', async (c) => c.html(await filled('index.html'), 200, { 'Cache-Control': 'no-cache' }))
  hono.get('/sw.js', async (c) => c.body(await filled('sw.js'), 200, { 'Content-Type': 'text/javascript', 'Cache-Control': 'no-cache' }))
  // Names in assets/ carry a hash of their content.
  const forever = {
    root: dist,
    onFound: (/** @type {string} */ _path, /** @type {import('hono').Context} */ c) =>
      c.header('Cache-Control', 'public, max-age=31536000, immutable'),
  }
  hono.use('/assets/*', serveStatic(forever))
  hono.use('*', serveStatic({ root: dist }))
  return hono
}
