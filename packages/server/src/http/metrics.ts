/**
 * `/metrics` for Prometheus. Counting costs nothing: hot counters are plain numbers where they happen, and are read only when somebody asks.
 */
import { Counter, Gauge, Registry } from 'prom-client'

/** One metric: where its number is. Names carry their unit last; no label ever holds a document, a principal or anything else that a client chooses. */
export interface Metric {
  readonly name: `rejoin_${string}` | `process_${string}`
  readonly help: string
  readonly type: 'counter' | 'gauge'
  /** The number now; or, with `label`, numbers by the value of that label. */
  readonly read: () => number | Readonly<Record<string, number>>
  /** Name of the one label. */
  readonly label?: string | undefined
}

/** Reads all of them. */
export interface Metrics {
  readonly contentType: string
  /** The text that Prometheus reads. */
  read(): Promise<string>
}

/** Metrics of this relay, with those of its process. A name may appear once. */
export function createMetrics(metrics: readonly Metric[]): Metrics {
  const registry = new Registry()
  for (const metric of [...metrics, ...PROCESS]) {
    const kind = metric.type === 'counter' ? Counter : Gauge
    // collect() runs when the registry is read: the value is set from ours, never counted twice.
    const shown: Counter | Gauge = new kind({
      name: metric.name,
      help: metric.help,
      labelNames: metric.label === undefined ? [] : [metric.label],
      registers: [registry],
      collect: () => {
        shown.reset()
        const value = metric.read()
        if (typeof value === 'number') shown.inc(value)
        else for (const [name, number] of Object.entries(value)) shown.inc({ [metric.label ?? 'name']: name }, number)
      },
    })
  }
  return { contentType: registry.contentType, read: () => registry.metrics() }
}

const PROCESS: readonly Metric[] = [
  { name: 'process_resident_memory_bytes', help: 'Resident memory of the process.', type: 'gauge', read: () => process.memoryUsage.rss() },
  {
    name: 'process_cpu_seconds_total',
    help: 'Processor time of the process, all threads.',
    type: 'counter',
    read: () => process.cpuUsage().user / 1e6 + process.cpuUsage().system / 1e6,
  },
  {
    name: 'process_start_time_seconds',
    help: 'When the process started, since 1970.',
    type: 'gauge',
    read: () => Math.round(Date.now() / 1000 - process.uptime()),
  },
]
