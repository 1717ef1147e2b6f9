/**
 * Sinks without their functions (step 8 of the path), as they cross to the worker, and the functions put back there.
 */
import type { Forward, Projection, SinkSpec } from '../sinks/sink.ts'

/** A sink as plain data. */
export interface PlainSpec extends Omit<SinkSpec, 'forward' | 'functions'> {
  readonly forward: Omit<Forward, 'projections'> & { readonly projections: readonly PlainProjection[] }
  /** Names of what `functions` had. */
  readonly functions: readonly string[]
}

export type PlainProjection = Omit<Projection, 'select'>

/** Takes the functions off. */
export function plainSpec({ module, options, forward, functions = {} }: SinkSpec): PlainSpec {
  const projections = forward.projections.map(({ select: _select, ...plain }) => plain)
  return { module, options, forward: { ...forward, projections }, functions: Object.keys(functions) }
}

/** A sink as it runs. What has to be called is called by way of whoever started it; a function left here says so. */
export function runningForward({ forward }: PlainSpec): Forward {
  const select = (): never => {
    throw new Error('this thread has no functions')
  }
  return { ...forward, projections: forward.projections.map((projection) => ({ ...projection, select })) }
}

/** Why the sinks of a config file are not those that the relay was started with, or undefined. Their options may differ: only functions are taken from the file. */
export function differenceOf(plain: Readonly<Record<string, PlainSpec>>, loaded: Readonly<Record<string, SinkSpec>>): string | undefined {
  for (const [name, spec] of Object.entries(plain)) {
    const other = Object.hasOwn(loaded, name) ? loaded[name] : undefined
    if (other === undefined) return `it has no sink ${name}`
    if (other.module !== spec.module) return `sink ${name} is of another kind`
    const [was, is] = [spec.forward.projections, other.forward.projections]
    if (was.length !== is.length || was.some((each, i) => each.to !== is[i]?.to || each.source !== is[i]?.source))
      return `the projections of sink ${name} were changed`
    if (spec.functions.some((each) => typeof other.functions?.[each] !== 'function')) return `the functions of sink ${name} were changed`
  }
  return undefined
}
