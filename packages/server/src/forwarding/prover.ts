/**
 * Proofs that a destination holds what the documents say (step 8 of the path), and repairs of what does not: one prover per sink, in the worker that forwards, beside its forwarder.
 */
import type { JsonValue } from '@rejoin/shared'
import { SyncError } from '@rejoin/shared'
import type { Pace } from './pace.ts'
import { createPace } from './pace.ts'
import type { RowsProof } from './proof-rows.ts'
import { eachDifference, proveRows } from './proof-rows.ts'
import type { ViewProof } from './proof-view.ts'
import { proveView } from './proof-view.ts'
import type { ProofName, ProofOptions, ProofResult, Prover, ProverParts, RepairResult, Verdict } from './proof.ts'
import { PROOFS } from './proof.ts'

/** Of the differences that are found, how many are told. */
const TOLD = 100
/** Rounds of finding and writing in one repair: what changes meanwhile may need another. */
const ROUNDS = 5
/** Of the worker's time, when nobody waits for the proof. */
const QUIET_SHARE = 0.1
/** Documents whose records are compared in one round that nobody waits for. */
const SAMPLE = 1_000
/** Names in the notes. */
const LAST = 'proof'
const NEXT_DOCUMENT = 'proof-document'

/** Starts proving, every `forward.verifyEvery` where that is set. */
export function createProver(parts: ProverParts): Prover {
  const { name, forward, notes, clock } = parts
  const ending = new AbortController()
  let line: Promise<unknown> = Promise.resolve()
  let cancelNext = (): void => {}

  /** One after the other; each sees nothing trimmed from under it. */
  const inLine = <T>(work: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> => {
    const turn = line.then(async () => {
      const either = signal === undefined ? ending.signal : AbortSignal.any([signal, ending.signal])
      refuseAborted(either, name)
      const release = parts.hold()
      try {
        return await work(either)
      } finally {
        release()
      }
    })
    line = turn.catch(() => undefined)
    return turn
  }
  const verify = async (proofs: readonly ProofName[], pace: Pace, sample?: number): Promise<ProofResult> => {
    const began = clock.now()
    const result = await prove(parts, proofs, pace, sample)
    const at = clock.now()
    const whole: ProofResult = plain({ ...result, ms: Math.max(0, at - began), at })
    notes.write({ values: { [LAST]: whole as unknown as JsonValue } })
    return whole
  }
  const paceOf = (signal: AbortSignal, share = 1): Pace => createPace(clock, { share, check: () => refuseAborted(signal, name) })

  const schedule = (every: number): void => {
    cancelNext = clock.after(every, () => {
      const round = inLine((signal) => verify(PROOFS, paceOf(signal, QUIET_SHARE), SAMPLE))
      // What it could not do stands in the last proof, or the sink's own error says it: nobody waits for this one.
      void round.catch(() => undefined).then(() => (ending.signal.aborted ? undefined : schedule(every)))
    })
  }
  if (forward.verifyEvery !== undefined) schedule(forward.verifyEvery)

  return {
    verify: ({ proofs = PROOFS, signal }: ProofOptions = {}) => inLine((either) => verify(proofs, paceOf(either), undefined), signal),
    repair: ({ proofs = PROOFS, signal }: ProofOptions = {}) =>
      inLine(async (either): Promise<RepairResult> => {
        const pace = paceOf(either)
        const before = await verify(proofs, pace)
        if (before.proofs.rows !== 'different' && before.proofs.projection !== 'different') return { repaired: 0, before, after: before }
        const repaired = await repair(parts, pace)
        // What was kept is what is wrong: it is counted anew, from T.
        if (before.proofs.projection === 'different') await parts.forwarder.recount()
        return { repaired, before, after: await verify(proofs, pace) }
      }, signal),
    last: () => notes.get(LAST) as unknown as ProofResult | undefined,
    stop: async () => {
      ending.abort()
      cancelNext()
      await line
    },
  }
}

function refuseAborted(signal: AbortSignal, name: string): void {
  if (signal.aborted) throw new SyncError('aborted', `the proof of ${name} was given up`)
}

/** Without what it was asked only in passing: undefined does not cross to JSON. */
function plain(result: ProofResult): ProofResult {
  return JSON.parse(JSON.stringify(result)) as ProofResult
}

async function prove(
  parts: ProverParts,
  proofs: readonly ProofName[],
  pace: Pace,
  sample: number | undefined,
): Promise<Omit<ProofResult, 'ms' | 'at'>> {
  const asked = new Set(proofs)
  const rows: RowsProof = asked.has('rows') || asked.has('projection') ? await proveRows(parts, asked, pace) : notAsked(parts)
  const view = asked.has('view')
    ? await proveSome(parts, pace, sample)
    : { verdict: 'not asked' as const, differences: [], total: 0, reasons: [] }
  const verdicts: Record<ProofName, Verdict> = { rows: rows.rows, projection: rows.projection, view: view.verdict }
  const parked = [...rows.parked]
  return {
    sink: parts.name,
    version: rows.version,
    rows: rows.count,
    parked: { total: parked.length, first: parked.slice(0, TOLD) },
    proofs: verdicts,
    equal: PROOFS.every((proof) => verdicts[proof] === 'equal'),
    differences: {
      total: rows.total + view.total,
      first: [...rows.differences, ...view.differences].slice(0, TOLD),
    },
    reasons: [...rows.reasons, ...view.reasons],
  }
}

function notAsked({ forwarder }: ProverParts): RowsProof {
  const verdict = 'not asked'
  return {
    version: forwarder.cursor() ?? 0,
    count: 0,
    parked: forwarder.parked(),
    rows: verdict,
    projection: verdict,
    differences: [],
    total: 0,
    reasons: [],
  }
}

/** All documents, or where nobody waits, some, going on next time where this one stopped. */
async function proveSome(parts: ProverParts, pace: Pace, sample: number | undefined): Promise<ViewProof> {
  const after = sample === undefined ? undefined : parts.notes.get(NEXT_DOCUMENT)
  const from = typeof after === 'string' ? after : undefined
  const proof = await proveView(parts, pace, { limit: sample, from })
  if (sample === undefined) return proof
  parts.notes.write({ values: { [NEXT_DOCUMENT]: proof.next } })
  const isWhole = from === undefined && proof.next === undefined
  if (isWhole || proof.verdict !== 'equal') return proof
  return {
    ...proof,
    verdict: 'not asked',
    reasons: [...proof.reasons, `view: ${proof.looked} documents were compared in this round, and are equal; the others have their turn`],
  }
}

/** Finds and writes until nothing is found any more, or writing does not help. Returns how many keys were written. */
async function repair(parts: ProverParts, pace: Pace): Promise<number> {
  let [written, before] = [0, Infinity]
  for (let round = 0; round < ROUNDS; round++) {
    const found = await eachDifference(parts, pace, (keys) => parts.forwarder.write(keys, { force: true }))
    if (found === 0 || found >= before) break
    written += found
    before = found
  }
  return written
}
