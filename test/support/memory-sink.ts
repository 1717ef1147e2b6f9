/**
 * The memory sink that the server ships for tests, under the name that tests here know.
 */
export { createMemoryDestination, openMemorySink, rowsOf } from '#server/sinks/memory.js'
export type { MemoryDestination } from '#server/sinks/memory.js'
