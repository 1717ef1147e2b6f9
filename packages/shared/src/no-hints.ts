/**
 * No hints, for a browser's production bundle: they are a tenth of it, and its users cannot act on them. See hints.ts.
 */
import type { Hints } from './errors.ts'

export const HINTS: Hints = {}
