/**
 * Calls into the application: what its listeners throw is for its own tools to see, and does not end what we are in the middle of.
 */

/** Runs `call`. What it throws is reported as uncaught, after the work at hand. */
export function shielded(call: () => void): void {
  try {
    call()
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}
