/**
 * `npm run example:downstream`: a clinic with a real Postgres downstream. Five devices edit, some of them offline; the relay, the forwarder and Postgres are killed once each; in the end everything is equal, and proven so.
 * DOWNSTREAM_SECONDS (18) is how long they edit. Exits with 0 when everything is equal, with 1 and a sentence when not.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Edit } from '@rejoin/client'
import { compare } from './compare.ts'
import type { Device } from './devices.ts'
import { SURVIVOR, addPet, startDevice } from './devices.ts'
import type { Postgres } from './postgres.ts'
import { startPostgres } from './postgres.ts'
import type { Rejoin } from './rejoin.ts'
import { prepareRejoin } from './rejoin.ts'
import { tellStory } from './story.ts'

const SECONDS = readSeconds(process.env['DOWNSTREAM_SECONDS'] ?? '18')
const NAMES = ['the front desk', 'the surgery', "Jill's tablet", "Jack's phone", 'the night shift'] as const
const SINKS = ['warehouse', 'cards', 'mirror'] as const
/** One edit in so many is timed in the end. */
const TIMED = 4
/** How long something stays dead, at most, in ms, and how long anything may take to come right. */
const DOWN_MS = Math.min(1_500, SECONDS * 100)
const LATE_MS = 60_000

const story = tellStory()
/** From an edit to `SELECT` showing it, in ms. */
const delays: number[] = []
const folder = mkdtempSync(join(tmpdir(), 'rejoin-downstream-'))
// Postgres may run as another user, and has a folder of its own in this one.
chmodSync(folder, 0o711)
const open: { postgres?: Postgres; rejoin?: Rejoin; devices: Device[] } = { devices: [] }
process.on('exit', () => {
  open.rejoin?.forwarder.abandon()
  open.rejoin?.relay.abandon()
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
  const clinic = await start()
  await edit(clinic)
  await settle(clinic)
  await prove(clinic)
  const edits = clinic.devices.reduce((sum, { made }) => sum + made, 0)
  story.say(`everything is equal, after ${edits} edits and three kills`, 'good')
}

interface Clinic {
  readonly postgres: Postgres
  readonly rejoin: Rejoin
  readonly devices: readonly Device[]
}

async function start(): Promise<Clinic> {
  const postgres = (open.postgres = await startPostgres(join(folder, 'postgres')))
  story.say(`${postgres.version} runs, with files of its own: ${postgres.url}`)
  mkdirSync(join(folder, 'rejoin'))
  const rejoin = (open.rejoin = await prepareRejoin(join(folder, 'rejoin'), postgres.url, (error) => accident.abort(error)))
  await rejoin.relay.start()
  await rejoin.forwarder.start()
  story.say(`the relay listens on port ${rejoin.relay.port}; its forwarder keeps the sinks ${SINKS.join(', ')} (downstream.config.ts)`)
  mkdirSync(join(folder, 'devices'))
  for (const name of NAMES) open.devices.push(await startDevice(name, join(folder, 'devices'), rejoin.relay.port))
  return { postgres, rejoin, devices: open.devices }
}

/** They edit for about `SECONDS`, whatever happens meanwhile. */
async function edit(clinic: Clinic): Promise<void> {
  const { postgres, rejoin, devices } = clinic
  const [tablet, phone] = [devices[2], devices[3]]
  if (tablet === undefined || phone === undefined) throw new Error('devices are missing')
  const go = (share: number): Promise<void> => pause(share * SECONDS * 1000)
  for (const device of devices) device.begin()
  story.say(`${devices.length} devices edit: pets and owners come, change, move to another city, and go`)
  story.watch(() => sum(devices))

  await go(0.1)
  unplug(tablet)
  await go(0.1)
  const relayIsIn = await kill('the relay', rejoin.relay, clinic)
  plug(tablet, rejoin)
  await relayIsIn()

  await go(0.1)
  const forwarderIsIn = await kill('the forwarder', rejoin.forwarder, clinic)
  await forwarderIsIn()

  await go(0.1)
  unplug(phone)
  await go(0.1)
  const postgresIsIn = await kill('Postgres', postgres, clinic)
  plug(phone, rejoin)
  await postgresIsIn()

  await go(0.1)
  for (const device of devices) device.edited = (made) => time(device, made, rejoin)
  await go(0.2)
  for (const device of devices) device.rest()
}

/** Kills something, while everybody goes on, and starts it again. The function it gives waits until a pet that was added right after the kill is in Postgres. */
async function kill(
  name: string,
  victim: { kill(): Promise<void>; start(): Promise<void> },
  { postgres, rejoin, devices: [desk] }: Clinic,
): Promise<() => Promise<void>> {
  if (desk === undefined) throw new Error('devices are missing')
  await victim.kill()
  story.say(`kill -9: ${name}`, 'bad')
  const killed = story.seconds()
  const since = (): string => `${(story.seconds() - killed).toFixed(1)} s`
  const added = desk.edit((pets, owners) => addPet(pets, owners, SURVIVOR))
  await pause(DOWN_MS)
  await victim.start()
  story.say(`it is started again, ${since()} later`)
  return async () => {
    await rejoin.seen([added], 'warehouse', late())
    const after = since()
    const rows = await postgres.query('SELECT 1 FROM pets WHERE id = $1', [added.value])
    if (rows.length !== 1) throw new Error(`the sink warehouse is said to have the pet ${added.value}, but Postgres has not`)
    story.say(`a pet that was added meanwhile is in Postgres, ${after} after the kill`, 'good')
  }
}

/** Everybody rests: the relay has every edit, and every sink has what the relay has. */
async function settle({ rejoin, devices }: Clinic): Promise<void> {
  await Promise.all(devices.map(({ client }) => client.wait({ to: 'relay', signal: late() })))
  const last = devices.flatMap((device) => [...device.last.values()])
  for (const sink of SINKS) await rejoin.seen(last, sink, late())
  const problems = devices.flatMap((device) => device.problems)
  if (problems.length > 0) throw new Error(`${problems.length} edits went wrong: ${problems[0]}`)
  story.end()
  story.say(`everybody rests: ${sum(devices)}`)
  story.say('every sink has every edit', 'good')
  const half = delays.sort((one, other) => one - other)[Math.floor(delays.length / 2)]
  if (half !== undefined)
    story.say(`of ${delays.length} edits that were timed in the calm at the end, half were in Postgres within ${Math.ceil(half)} ms`)
}

async function prove({ postgres, rejoin, devices: [desk] }: Clinic): Promise<void> {
  if (desk === undefined) throw new Error('devices are missing')
  for (const sink of SINKS) {
    const { ok, text } = await rejoin.sinks('verify', sink)
    story.say(`rejoin sinks verify ${text}`, ok ? 'good' : 'bad')
    if (!ok) throw new Error(`rejoin sinks verify ${sink} does not say that it is equal`)
  }
  await look(postgres, desk)

  const [row] = await postgres.query('SELECT document, id FROM pets WHERE name = $1 LIMIT 1', [SURVIVOR])
  const [document, id] = [String(row?.['document']), String(row?.['id'])]
  await postgres.query("UPDATE pets SET name = 'Nobody' WHERE document = $1 AND id = $2", [document, id])
  story.say(`somebody changes a row by hand: UPDATE pets SET name = 'Nobody' WHERE id = '${id}'`, 'bad')
  const found = await rejoin.sinks('verify', 'warehouse')
  story.say(`rejoin sinks verify ${found.text}`)
  if (found.ok || !found.text.includes(`${document}/${id}`)) throw new Error('verify did not find what was changed by hand')
  const repaired = await rejoin.sinks('repair', 'warehouse')
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

function plug(device: Device, rejoin: Rejoin): void {
  const { name, pending, cable, last, problems } = device
  story.say(`${name} is back, with ${pending} edits that nobody has seen`)
  const back = story.seconds()
  cable.plug()
  rejoin.seen([...last.values()], 'warehouse', late()).then(
    () => story.say(`the ${pending} edits of ${name} are in Postgres, ${(story.seconds() - back).toFixed(1)} s after it came back`, 'good'),
    (error: unknown) => problems.push(`${name}: ${String(error)}`),
  )
}

/** One edit in so many is timed, on devices that are online. */
function time(device: Device, made: Edit<unknown>, rejoin: Rejoin): void {
  if (device.made % TIMED !== 0 || device.client.status.get().connection.name !== 'connected') return
  const from = performance.now()
  rejoin.seen([made], 'warehouse', late()).then(
    () => delays.push(performance.now() - from),
    (error: unknown) => device.problems.push(`${device.name}: ${String(error)}`),
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
  await open.rejoin?.forwarder.stop()
  await open.rejoin?.relay.stop()
  await open.postgres?.stop()
  process.exit(code)
}
