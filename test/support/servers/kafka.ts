/**
 * Kafka for tests: one KRaft broker. Topics of tests that share one are kept apart by their names.
 */
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import type { Probe } from '../requires.ts'
import { requires } from '../requires.ts'
import { ask } from './ask.ts'
import { javaCommand, javaProbe, properties } from './java.ts'
import type { Place } from './place.ts'
import type { TestServer } from './server.ts'
import { startServer } from './server.ts'

export interface KafkaServer extends TestServer {
  /** `host:port`. */
  readonly url: string
}

export interface KafkaOptions {
  /** Settings as in server.properties. */
  readonly settings?: Readonly<Record<string, string>>
}

/** The simplest request there is: ApiVersions, version 0, correlation 1, no client id: length, key, version, correlation, id. */
export const API_VERSIONS: Uint8Array = Buffer.from('0000000a' + '0012' + '0000' + '00000001' + 'ffff', 'hex')

/** Why there is no Kafka here, if so. */
export const kafkaProbe: Probe = javaProbe('kafka')

/** `describe` of suites that need Kafka. */
export const describeKafka: (suite: string, body: () => void) => void = requires('Kafka', kafkaProbe)

/** Starts an empty Kafka. */
export async function startKafka({ settings = {} }: KafkaOptions = {}): Promise<KafkaServer> {
  const file = ({ folder }: Place): string => `${folder}/server.properties`
  const program = (place: Place, main: string, args: readonly string[]): string[] =>
    javaCommand(place, { server: 'kafka', main, args, heap: 512, properties: { 'org.slf4j.simpleLogger.defaultLogLevel': 'warn' } })
  const server = await startServer({
    name: 'Kafka',
    prepare: (place, run) => {
      writeFileSync(file(place), properties({ ...broker(place), ...settings }))
      const cluster = Buffer.from(randomUUID().replaceAll('-', ''), 'hex').toString('base64url').replace(/^-/u, 'A')
      return run(program(place, 'kafka.tools.StorageTool', ['format', '-t', cluster, '-c', file(place)]))
    },
    command: (place) => program(place, 'kafka.Kafka', [file(place)]),
    // It accepts connections early and answers them when it serves. The answer's first field after the correlation is an error code.
    answers: async ({ port }) => (await ask(port, API_VERSIONS)).readInt16BE(8) === 0,
    startLimit: 40_000,
  })
  return { ...server, url: `127.0.0.1:${server.port}` }
}

function broker({ folder, port, innerPort }: Place): Record<string, string> {
  return {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${innerPort}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${innerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
    'inter.broker.listener.name': 'PLAINTEXT',
    'log.dirs': `${folder}/log`,
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '4',
    'group.initial.rebalance.delay.ms': '0',
    // After a crash the broker is let in again when its former session is over.
    'broker.session.timeout.ms': '1500',
    'broker.heartbeat.interval.ms': '300',
  }
}
