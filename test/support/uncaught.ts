/**
 * Faults of an application that our code reports as uncaught, gathered instead of failing the test run.
 */

/** What was reported while `run` went on. */
export async function uncaught(run: () => Promise<void>): Promise<readonly Error[]> {
  const faults: Error[] = []
  const others = process.listeners('uncaughtException')
  const gather = (error: Error): void => void faults.push(error)
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', gather)
  try {
    await run()
    // What was thrown in a microtask is reported before the event loop turns.
    await new Promise((resolve) => setImmediate(resolve))
  } finally {
    process.off('uncaughtException', gather)
    for (const listener of others) process.on('uncaughtException', listener)
  }
  return faults
}
