/**
 * `@rejoin/server`: the relay and what it can be told.
 */

// The relay
export { createRelay, createServer } from './server.ts'
export type { Relay, Server } from './server.ts'

// Options
export { defineConfig } from './config.ts'
export type { Duration, ServerOptions } from './options.ts'
export type { Logger } from './logger.ts'

// Who may do what
export { jwt } from './http/authorize.ts'
export type { JwtOptions } from './http/authorize.ts'
export type { AuthRequest, Authorize, Grant } from './relay/grant.ts'

// Sinks: one entry of its own each, such as @rejoin/server/sinks/sqlite; what writing another takes; the kit that proves it is @rejoin/server/testing
export { sinkSpec } from './sinks/spec.ts'
export type { ForwardOptions } from './sinks/spec.ts'
export type {
  OpenSink,
  Sink,
  SinkCommit,
  SinkContext,
  SinkOutcome,
  SinkPlace,
  SinkProof,
  SinkRow,
  SinkSpec,
  SinkStanding,
  SinkTraits,
} from './sinks/sink.ts'

// What a sink gets of the records
export { defineProjection, ref } from './projection/define.ts'
export type { ProjectionOptions, RefTo } from './projection/define.ts'
export type { Projection } from './sinks/sink.ts'
