/**
 * The relay's own numbers for /metrics: where each is, and what it is called.
 */
import type { ForwardingWatch } from './forwarding/watch.ts'
import type { Metric } from './http/metrics.ts'
import type { YWebSockets } from './http/ywebsocket.ts'
import type { RelayCore } from './relay/relay.ts'

/** Of sockets, documents and the log; with a `watch`, of view and sinks as well, as of its last look. */
export function relayFigures(core: RelayCore, ySockets: YWebSockets, watch: ForwardingWatch | undefined): readonly Metric[] {
  return [
    { name: 'rejoin_peers', help: 'Native sockets that are open.', type: 'gauge', read: () => core.stats().peers },
    { name: 'rejoin_y_peers', help: 'y-websocket sockets that are open.', type: 'gauge', read: () => ySockets.count },
    { name: 'rejoin_documents', help: 'Documents in memory.', type: 'gauge', read: () => core.stats().documents },
    { name: 'rejoin_pushes_waiting', help: 'Pushes taken and not yet answered.', type: 'gauge', read: () => core.stats().waiting },
    { name: 'rejoin_batches_total', help: 'Transactions of the log.', type: 'counter', read: () => core.stats().batches },
    { name: 'rejoin_pushes_total', help: 'Pushes that went through a transaction.', type: 'counter', read: () => core.stats().items },
    ...(watch === undefined ? [] : forwardingFigures(watch)),
  ]
}

/** Of view and sinks, as of the watch's last look. */
export function forwardingFigures(watch: ForwardingWatch): readonly Metric[] {
  const ofView = (name: Metric['name'], help: string, read: (view: View) => number): Metric => ({
    name,
    help,
    type: 'gauge',
    read: () => (watch.last === undefined ? 0 : read(watch.last.view)),
  })
  const ofSinks = (name: Metric['name'], help: string, read: (sink: Sink) => number, type: Metric['type'] = 'gauge'): Metric => ({
    name,
    help,
    type,
    label: 'sink',
    read: () => Object.fromEntries(Object.entries(watch.last?.sinks ?? {}).map(([sink, status]) => [sink, read(status)])),
  })
  return [
    ofView('rejoin_view_version', 'Version of the view.', ({ version }) => version),
    ofView('rejoin_view_parked_documents', 'Documents that cannot be projected.', ({ parked }) => parked.total),
    ofView('rejoin_view_misfits', 'Values and records that do not fit the schema.', ({ misfits }) => misfits.total),
    ofSinks('rejoin_sink_lag_entries', 'Entries of the log that are not in the sink yet.', ({ lag }) => lag.entries),
    ofSinks('rejoin_sink_lag_seconds', 'Age of the oldest entry that is not in the sink yet.', ({ lag }) => lag.seconds),
    ofSinks('rejoin_sink_lag_bytes', 'Size of the changes that are not in the sink yet.', ({ lag }) => lag.bytes),
    ofSinks('rejoin_sink_cursor_version', 'Version of the view up to which the sink has everything.', ({ cursor }) => cursor),
    ofSinks('rejoin_sink_parked_rows', 'Rows that the sink refuses.', ({ parked }) => parked.total),
    ofSinks('rejoin_sink_dead_letters', 'Dead letters of the sink.', ({ letters }) => letters),
    ofSinks('rejoin_sink_commits_total', 'Commits to the sink since the worker started.', ({ commits }) => commits, 'counter'),
    ofSinks('rejoin_sink_rows_total', 'Rows sent to the sink since the worker started.', ({ rows }) => rows, 'counter'),
    ofSinks(
      'rejoin_sink_failing',
      '1 while the sink stands still without having been asked to: it fails, is fenced, cut off, or stopped at a poison row.',
      ({ state }) => (TROUBLES.has(state) ? 1 : 0),
    ),
    ofSinks('rejoin_sink_paused', '1 while somebody has paused the sink.', ({ state }) => (state === 'paused' ? 1 : 0)),
    // -1: never proved.
    ofSinks(
      'rejoin_sink_equal',
      '1 when the last proof of the sink held, 0 when it found something, -1 when there was none.',
      ({ proof }) => (proof === null ? -1 : Number(!Object.values(proof.proofs).includes('different'))),
    ),
  ]
}

const TROUBLES: ReadonlySet<string> = new Set(['failing', 'fenced', 'cut-off', 'poisoned'])

type Status = NonNullable<ForwardingWatch['last']>
type View = Status['view']
type Sink = Status['sinks'][string]
