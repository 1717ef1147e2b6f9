/** `npm run servers [-- postgres redis …]`: starts the real servers of the tests, says where they are as shell variables, and stops them on Ctrl-C. */
import type { Probe } from '../requires.ts'
import { kafkaProbe, startKafka } from './kafka.ts'
import { mariadbProbe, startMariadb } from './mariadb.ts'
import { natsProbe, startNats } from './nats.ts'
import { opensearchProbe, startOpensearch } from './opensearch.ts'
import { postgresProbe, startPostgres } from './postgres.ts'
import { redisProbe, startRedis } from './redis.ts'
import type { TestServer } from './server.ts'

interface Choice {
  readonly variable: string
  readonly probe: Probe
  readonly start: () => Promise<TestServer & { readonly url: string }>
}

const choices: Readonly<Record<string, Choice>> = {
  postgres: { variable: 'DATABASE_URL', probe: postgresProbe, start: startPostgres },
  mariadb: { variable: 'MYSQL_URL', probe: mariadbProbe, start: startMariadb },
  redis: { variable: 'REDIS_URL', probe: redisProbe, start: startRedis },
  nats: { variable: 'NATS_URL', probe: natsProbe, start: startNats },
  kafka: { variable: 'KAFKA_BROKERS', probe: kafkaProbe, start: startKafka },
  opensearch: { variable: 'OPENSEARCH_URL', probe: opensearchProbe, start: startOpensearch },
}

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(choices)
const unknown = names.filter((name) => !Object.hasOwn(choices, name))
if (unknown.length > 0) {
  process.stderr.write(`no server ${unknown.join(', ')}; there are ${Object.keys(choices).join(', ')}\n`)
  process.exit(2)
}

const running = Promise.all(names.map((name) => begin(name)))
let stopping = false
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // Asked twice: at once. What still runs is killed as this process ends.
    if (stopping) process.exit(1)
    stopping = true
    void finish()
  })
}

const started = (await running).filter((server) => server !== undefined)
if (started.length === 0) process.exitCode = 1
else if (!stopping) process.stdout.write('# Ctrl-C stops them and removes what they wrote.\n')

async function begin(name: string): Promise<TestServer | undefined> {
  const choice = choices[name]
  const missing = choice?.probe()
  if (choice === undefined || missing !== undefined) {
    process.stdout.write(`# ${name} is absent: ${missing ?? 'unknown'}\n`)
    return undefined
  }
  try {
    const server = await choice.start()
    process.stdout.write(`export ${choice.variable}=${server.url}\n`)
    return server
  } catch (error) {
    process.stdout.write(`# ${name} did not start: ${String(error).replaceAll('\n', '\n#   ')}\n`)
    return undefined
  }
}

async function finish(): Promise<void> {
  // One that is still starting is waited for: stopping it half-way is what its limit is for.
  const ends = (await running).flatMap((server) => server?.stop() ?? [])
  const failed = (await Promise.allSettled(ends)).some((end) => end.status === 'rejected')
  process.exit(failed ? 1 : 0)
}
