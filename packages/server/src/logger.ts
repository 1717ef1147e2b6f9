/**
 * Where log lines go. The relay only knows this shape; the CLI gives it pino on standard error.
 */

/** The part of pino's logger that is used: fields first, then one sentence. Fields never hold tokens, headers or document content. */
export interface Logger {
  debug(fields: Readonly<Record<string, unknown>>, message: string): void
  info(fields: Readonly<Record<string, unknown>>, message: string): void
  warn(fields: Readonly<Record<string, unknown>>, message: string): void
  error(fields: Readonly<Record<string, unknown>>, message: string): void
}

const nothing = (): void => {}

/** Says nothing. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing }
