/**
 * Kafka Connect for tests, with Debezium's sink into PostgreSQL: a consumer of our topics that is not ours.
 */
import { writeFileSync } from 'node:fs'
import type { Probe } from '../requires.ts'
import { requires } from '../requires.ts'
import { javaCommand, javaProbe, properties } from './java.ts'
import type { TestServer } from './server.ts'
import { startServer } from './server.ts'

export interface ConnectServer extends TestServer {
  /** Of its REST interface. */
  readonly url: string
}

export interface ConnectOptions {
  /** `host:port` of a Kafka broker. */
  readonly brokers: string
  /** The topics to read. They must exist, or be made by the broker on first sight. */
  readonly topics: readonly string[]
  /** URL of the PostgreSQL database to write into. */
  readonly database: string
  /** Settings of the sink, over those that apply {schema, payload} messages row by row, deletions included, and make its tables. */
  readonly sink?: Readonly<Record<string, string>>
}

const NAME = 'sink'

/** Why there is no Kafka Connect here, if so. */
export const connectProbe: Probe = javaProbe('connect')

/** `describe` of suites that need Kafka Connect. They need Kafka and PostgreSQL as well. */
export const describeConnect: (suite: string, body: () => void) => void = requires('Kafka Connect', connectProbe)

/** Starts Kafka Connect with one sink, and resolves when the sink's task runs. */
export async function startConnect({ brokers, topics, database, sink = {} }: ConnectOptions): Promise<ConnectServer> {
  const server = await startServer({
    name: 'Kafka Connect',
    prepare: ({ folder, port }) => {
      writeFileSync(`${folder}/worker.properties`, properties(worker(folder, port, brokers)))
      writeFileSync(`${folder}/sink.properties`, properties({ ...debezium(topics, database), ...sink }))
    },
    command: (place) =>
      javaCommand(place, {
        server: 'connect',
        main: 'org.apache.kafka.connect.cli.ConnectStandalone',
        args: [`${place.folder}/worker.properties`, `${place.folder}/sink.properties`],
        heap: 512,
        properties: { 'org.slf4j.simpleLogger.defaultLogLevel': 'warn' },
      }),
    answers: async ({ port }) => {
      const answer = await fetch(`http://127.0.0.1:${port}/connectors/${NAME}/status`, { signal: AbortSignal.timeout(2000) })
      const { tasks } = (await answer.json()) as { tasks?: { state: string; trace?: string }[] }
      return tasks?.[0]?.state === 'RUNNING'
    },
    startLimit: 40_000,
  })
  return { ...server, url: `http://127.0.0.1:${server.port}` }
}

function worker(folder: string, port: number, brokers: string): Record<string, string> {
  const json = 'org.apache.kafka.connect.json.JsonConverter'
  return {
    'bootstrap.servers': brokers,
    listeners: `http://127.0.0.1:${port}`,
    'key.converter': json,
    'key.converter.schemas.enable': 'true',
    'value.converter': json,
    'value.converter.schemas.enable': 'true',
    // Looking into every jar for what declares no service takes seconds.
    'plugin.discovery': 'service_load',
    'offset.storage.file.filename': `${folder}/offsets`,
    'offset.flush.interval.ms': '1000',
    // Topics that appear later are seen soon, and read from their beginning.
    'consumer.metadata.max.age.ms': '1000',
    'consumer.auto.offset.reset': 'earliest',
    'consumer.isolation.level': 'read_committed',
  }
}

function debezium(topics: readonly string[], database: string): Record<string, string> {
  const { host, pathname, username, password } = new URL(database)
  return {
    name: NAME,
    'connector.class': 'io.debezium.connector.jdbc.JdbcSinkConnector',
    'tasks.max': '1',
    topics: topics.join(','),
    'connection.url': `jdbc:postgresql://${host}${pathname}`,
    'connection.username': decodeURIComponent(username),
    'connection.password': decodeURIComponent(password),
    'insert.mode': 'upsert',
    'delete.enabled': 'true',
    'primary.key.mode': 'record_key',
    'schema.evolution': 'basic',
  }
}
