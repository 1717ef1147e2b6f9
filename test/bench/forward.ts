/**
 * From documents to stores: how fast rows reach Postgres and SQLite beside scripts by hand, how soon an edit is seen there, and what the relay's own work pays for it. README.md says how to read it.
 */
import { startPostgres } from '../support/servers/postgres.ts'
import { runEngine } from './forward-engine.ts'
import { runRelay } from './forward-relay.ts'
import { busyness, median, show, table } from './report.ts'

const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise)
const ROUNDS = number('ROUNDS', 3)
const CHANGES = number('CHANGES', 100_000)
const COMMITS = number('COMMITS', 3_000)
const PROVED = number('PROVED', 1_000_000)
const SECONDS = number('SECONDS', 8)
const PROVED_BESIDE = number('PROVED_BESIDE', 100_000)
const only = process.env['ONLY']?.split(',')
const wanted = (name: string): boolean => only === undefined || only.some((part) => name.startsWith(part))

process.stdout.write(busyness())
const server = await startPostgres({ settings: { shared_buffers: '512MB', max_wal_size: '4GB' } })
try {
  const { lanes, every, proofs } = await runEngine({
    url: await server.database(),
    changes: CHANGES,
    rounds: ROUNDS,
    commits: COMMITS,
    proved: PROVED,
    wanted,
  })
  const ratio = ({ ours, bare }: (typeof lanes)[number]): number => median(ours.map((rate, i) => rate / (bare[i] ?? Number.NaN)))
  process.stdout.write(`\n${show(CHANGES)} changed rows a round, ${ROUNDS} rounds\n`)
  process.stdout.write(
    table(
      ['', '÷ by hand', 'rows/s', 'by hand'],
      [...lanes, ...(every === undefined ? [] : [every])].map((lane) => [
        lane.name,
        `${show(ratio(lane), 2)}×`,
        show(median(lane.ours)),
        show(median(lane.bare)),
      ]),
    ),
  )
  if (proofs !== undefined)
    process.stdout.write(
      `\nverify of ${show(proofs.rows)} rows: --rows ${show(proofs.rowsMs / 1000, 2)} s, --projection ${show(proofs.projectionMs / 1000, 2)} s\n`,
    )
  if (wanted('relay')) {
    const { visible, acks, proving } = await runRelay({
      database: () => server.database(),
      seconds: SECONDS,
      rounds: ROUNDS,
      proved: PROVED_BESIDE,
    })
    const ms = ({ p50, p99 }: { readonly p50: number; readonly p99: number }): string[] => [show(p50, 1), show(p99, 1)]
    process.stdout.write(`\na whole relay, ${SECONDS} s each\n`)
    process.stdout.write(
      table(
        ['', 'p50 ms', 'p99 ms'],
        [
          ['edit to row in Postgres, 1,000 edits/s', ...ms(visible)],
          ...acks.flatMap(({ none, five }) => [
            ['acknowledgement, 500 edits/s, no sinks', ...ms(none)],
            ['acknowledgement, 500 edits/s, five sinks', ...ms(five)],
          ]),
          [`acknowledgement beside ${show(proving.rows)} rows`, ...ms(proving.without)],
          [`… while they are proved, ${proving.proofs} times`, ...ms(proving.during)],
        ],
      ),
    )
  }
} finally {
  await server.stop()
}
