/**
 * `npm run example:downstream`: a clinic with a real Postgres downstream. Five devices edit, some of them offline; the relay, the forwarder and Postgres are killed once each; in the end everything is equal, and proven so.
 * DOWNSTREAM_SECONDS (18) is how long they edit. Exits with 0 when everything is equal, with 1 and a sentence when not.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { compare } from './compare.ts'
import type { Device } from './devices.ts'
import { SURVIVOR, addPet, startDevice } from './devices.ts'
import type { Postgres } from './postgres.ts'
import { startPostgres } from './postgres.ts'
import type { Relay } from './relay.ts'
import { prepareRelay } from './relay.ts'
import { tellStory } from './story.ts'

const SECONDS = readSeconds(process.env['DOWNSTREAM_SECONDS'] ?? '18')
const NAMES = ['the front desk', 'the surgery', "Jill's tablet", "Jack's phone", 'the night shift'] as const
const SINKS = ['warehouse', 'cards', 'mirror'] as const
/** How long something stays dead, at most, in ms, and how long anything may take to come right. */
const DOWN_MS = Math.min(1_500, SECONDS * 100)
const LATE_MS = 60_000

const story = tellStory()
const folder = mkdtempSync(join(tmpdir(), 'rejoin-downstream-'))
// Postgres may run as another user, and has a folder of its own in this one.
chmodSync(folder, 0o711)
const open: { postgres?: Postgres; relay?: Relay; devices: Device[] } = { devices: [] }
process.on('exit', () => {
  open.relay?.abandon()
  open.postgres?.abandon()
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
})
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  process.once(signal, () => void finish(code))

/** Set off when the relay ends although nobody killed it. */
const accident = new AbortController()

try {
  await tell()
  await finish(0)
} catch (error) {
  const reason: unknown = accident.signal.aborted ? accident.signal.reason : error
  story.end()
  story.say(reason instanceof Error ? reason.message : String(reason), 'bad')
  await finish(1)
}

async function tell(): Promise<void> {
  story.title('A clinic, five devices, and a Postgres that always equals them')
  const { postgres, relay, devices } = await start()
  await edit(postgres, relay, devices)
  await settle(devices)
  await prove(postgres, relay, devices)
  story.say(`everything is equal, after ${devices.reduce((sum, { made }) => sum + made, 0)} edits and three kills`, 'good')
}

async function start(): Promise<{ postgres: Postgres; relay: Relay; devices: readonly Device[] }> {
  const postgres = (open.postgres = await startPostgres(join(folder, 'postgres')))
  story.say(`${postgres.version} runs, with files of its own: ${postgres.url}`)
  mkdirSync(join(folder, 'relay'))
  const relay = (open.relay = await prepareRelay(join(folder, 'relay'), postgres.url, (error) => accident.abort(error)))
  await relay.start()
  story.say(`the relay listens on port ${relay.port}; its sinks: ${SINKS.join(', ')} (examples/clinic/downstream.config.ts)`)
  mkdirSync(join(folder, 'devices'))
  for (const name of NAMES) open.devices.push(await startDevice(name, join(folder, 'devices'), relay.port))
  return { postgres, relay, devices: open.devices }
}

/** They edit for about `SECONDS`, whatever happens meanwhile. */
async function edit(postgres: Postgres, relay: Relay, devices: readonly Device[]): Promise<void> {
  const [desk, , tablet, phone] = devices
  if (desk === undefined || tablet === undefined || phone === undefined) throw new Error('devices are missing')
  const go = (share: number): Promise<void> => pause(share * SECONDS * 1000)
  for (const device of devices) device.begin()
  story.say(`${devices.length} devices edit: pets and owners come, change, move to another city, and go`)
  story.watch(() => sum(devices))

  await go(0.1)
  unplug(tablet)
  await go(0.1)
  const first = await kill('kill -9: the relay', desk, () => relay.kill())
  await first.revive(() => relay.start())
  plug(tablet)
  await first.survived(postgres)

  await go(0.1)
  const second = await kill('killed: the forwarder, a thread of the relay, which starts it again', desk, () => relay.killForwarder())
  await second.survived(postgres)

  await go(0.1)
  unplug(phone)
  await go(0.1)
  const third = await kill('kill -9: Postgres', desk, () => postgres.kill())
  await third.revive(() => postgres.start())
  plug(phone)
  await third.survived(postgres)

  await go(0.1)
  for (const device of devices) device.calm = true
  await go(0.2)
  for (const device of devices) device.rest()
}

interface Killed {
  revive(start: () => Promise<void>): Promise<void>
  /** Waits until a pet that was added right after the kill is in Postgres. */
  survived(postgres: Postgres): Promise<void>
}

/** Kills something, while everybody goes on. */
async function kill(what: string, device: Device, strike: () => Promise<void>): Promise<Killed> {
  await strike()
  story.say(what, 'bad')
  const killed = story.seconds()
  const since = (): string => `${(story.seconds() - killed).toFixed(1)} s`
  const added = device.edit((pets, owners) => addPet(pets, owners, SURVIVOR))
  return {
    revive: async (start) => {
      await pause(DOWN_MS)
      await start()
      story.say(`it is started again, ${since()} later`)
    },
    survived: async (postgres) => {
      await added.wait({ to: 'sink:warehouse', signal: late() })
      const after = since()
      const rows = await postgres.query('SELECT 1 FROM pets WHERE id = $1', [added.value])
      if (rows.length !== 1) throw new Error(`the wait for sink:warehouse ended, but Postgres does not have the pet ${added.value}`)
      story.say(`a pet that was added meanwhile is in Postgres, ${after} after the kill`, 'good')
    },
  }
}

/** Everybody rests: the relay has every edit, and every sink has what the relay has. */
async function settle(devices: readonly Device[]): Promise<void> {
  const all = (to: 'relay' | `sink:${string}`): Promise<unknown> =>
    Promise.all(devices.map(({ client }) => client.wait({ to, signal: late() })))
  await all('relay')
  const problems = devices.flatMap((device) => device.problems)
  if (problems.length > 0) throw new Error(`${problems.length} edits were refused: ${problems[0]}`)
  story.end()
  story.say(`everybody rests: ${sum(devices)}`)
  for (const sink of SINKS) await all(`sink:${sink}`)
  const delays = devices.flatMap((device) => device.delays).sort((one, other) => one - other)
  const half = delays[Math.floor(delays.length / 2)] ?? 0
  story.say('every sink has every edit', 'good')
  if (delays.length > 0)
    story.say(`of ${delays.length} edits that were timed in the calm at the end, half were in Postgres within ${Math.ceil(half)} ms`)
}

async function prove(postgres: Postgres, relay: Relay, devices: readonly Device[]): Promise<void> {
  const [desk] = devices
  if (desk === undefined) throw new Error('devices are missing')
  for (const sink of SINKS) {
    const { ok, text } = await relay.sinks('verify', sink)
    story.say(`rejoin sinks verify ${text}`, ok ? 'good' : 'bad')
    if (!ok) throw new Error(`${sink} does not equal the documents`)
  }
  await look(postgres, desk)

  const [row] = await postgres.query('SELECT document, id FROM pets WHERE name = $1 LIMIT 1', [SURVIVOR])
  const [document, id] = [String(row?.['document']), String(row?.['id'])]
  await postgres.query("UPDATE pets SET name = 'Nobody' WHERE document = $1 AND id = $2", [document, id])
  story.say(`somebody changes a row by hand: UPDATE pets SET name = 'Nobody' WHERE id = '${id}'`, 'bad')
  const found = await relay.sinks('verify', 'warehouse')
  story.say(`rejoin sinks verify ${found.text}`)
  if (found.ok || !found.text.includes(`${document}/${id}`)) throw new Error('verify did not find what was changed by hand')
  const repaired = await relay.sinks('repair', 'warehouse')
  story.say(`rejoin sinks repair ${repaired.text}`, repaired.ok ? 'good' : 'bad')
  if (!repaired.ok) throw new Error('repair did not mend it')
  await look(postgres, desk)
}

/** Waits until a device holds what Postgres shows; by then nobody edits. */
async function look(postgres: Postgres, device: Device): Promise<void> {
  const limit = story.seconds() + 10
  let result = await compare(postgres, device)
  while (result.difference !== undefined && story.seconds() < limit) {
    await pause(100)
    result = await compare(postgres, device)
  }
  if (result.difference !== undefined) throw new Error(result.difference)
  story.say(`SELECT shows what ${device.name} has: ${result.rows} rows of pets, owners and pet_cards`, 'good')
}

function unplug(device: Device): void {
  device.cable.unplug()
  story.say(`${device.name} loses its network, and goes on editing`)
}

function plug(device: Device): void {
  const { name, pending, client, cable } = device
  story.say(`${name} is back, with ${pending} edits that nobody has seen`)
  const back = story.seconds()
  cable.plug()
  client.wait({ to: 'sink:warehouse', signal: late() }).then(
    () => story.say(`the ${pending} edits of ${name} are in Postgres, ${(story.seconds() - back).toFixed(1)} s after it came back`, 'good'),
    (error: unknown) => device.problems.push(`${name}: ${String(error)}`),
  )
}

function sum(devices: readonly Device[]): string {
  const add = (count: (device: Device) => number): number => devices.reduce((total, device) => total + count(device), 0)
  const online = devices.filter(({ client }) => client.status.get().connection.name === 'connected').length
  return `${add(({ made }) => made)} edits, ${add(({ acknowledged }) => acknowledged)} acknowledged, ${online} of ${devices.length} devices online`
}

function late(): AbortSignal {
  return AbortSignal.any([accident.signal, AbortSignal.timeout(LATE_MS)])
}

async function pause(ms: number): Promise<void> {
  await setTimeout(Math.max(0, ms), undefined, { signal: accident.signal })
}

function readSeconds(text: string): number {
  const seconds = Number(text)
  if (seconds >= 2 && seconds <= 3600) return seconds
  process.stderr.write(`DOWNSTREAM_SECONDS is a number from 2 to 3600, not ${JSON.stringify(text)}.\n`)
  return process.exit(2)
}

async function finish(code: number): Promise<never> {
  story.end()
  for (const device of open.devices) await device.close()
  await open.relay?.stop()
  await open.postgres?.stop()
  process.exit(code)
}
