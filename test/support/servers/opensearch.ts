/**
 * OpenSearch for tests: one node, the HTTP interface that Elasticsearch has too. Indices of tests that share one are kept apart by their names.
 */
import type { Probe } from '../requires.ts'
import { requires } from '../requires.ts'
import { javaCommand, javaProbe, javaSource } from './java.ts'
import type { TestServer } from './server.ts'
import { startServer } from './server.ts'

export interface OpensearchServer extends TestServer {
  readonly url: string
}

export interface OpensearchOptions {
  /** Settings of the node, as in opensearch.yml. */
  readonly settings?: Readonly<Record<string, string>>
}

/** Why there is no OpenSearch here, if so. */
export const opensearchProbe: Probe = javaProbe('opensearch')

/** `describe` of suites that need OpenSearch. */
export const describeOpensearch: (suite: string, body: () => void) => void = requires('OpenSearch', opensearchProbe)

/** Starts an empty OpenSearch. */
export async function startOpensearch({ settings = {} }: OpensearchOptions = {}): Promise<OpensearchServer> {
  const given = Object.entries(settings).map(([name, value]) => `${name}=${value}`)
  const server = await startServer({
    name: 'OpenSearch',
    command: (place) =>
      javaCommand(place, {
        server: 'opensearch',
        main: javaSource('opensearch', 'Start.java'),
        args: [`${place.folder}/node`, `${place.port}`, `${place.innerPort}`, ...given],
        heap: 512,
      }),
    answers: async ({ port }) => {
      const health = await fetch(`http://127.0.0.1:${port}/_cluster/health`, { signal: AbortSignal.timeout(2000) })
      const { status } = (await health.json()) as { status?: string }
      return status === 'green' || status === 'yellow'
    },
    startLimit: 40_000,
  })
  return { ...server, url: `http://127.0.0.1:${server.port}` }
}
